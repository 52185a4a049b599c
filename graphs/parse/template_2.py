"""The class feature template in Template 2, in plain text, or the reason why not."""

import re

from graphs.parse.entries import cut_entries
from graphs.parse.reply import MAX_REPLY, PREFIX, REFUSAL, THINKING, Unusable, normalised, one_line, plain
from graphs.parse.template_1 import HEAD, MAX_DESCRIPTION, after_class, clean_features, tidy
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, TemplateReason

MAX_FEATURES = 12  # of a class feature template; CLIP's text encoder reads 77 tokens

SCENE_IN_FEATURE = re.compile(
    r"\b(?:scenes?|setting|background|backdrop|landscape|habitat)\b"
    r"|\b(?:set|captured|photographed) (?:in|on|at|against)\b|\bsurrounded by\b"
    r"|^(?:in|at|against|during|amid|amidst|under|near|beside) (?:a|an|the)\b|^(?:in|at|during) \w+$",
    re.I,
)


def template_text(class_name: str, features: list[str]) -> str:
    """Template 2 in plain text; with no features the class's name alone."""
    name = one_line(class_name)
    with_features = f" with {', '.join(features)}" if features else ""
    return f"A photo of the class {name}{with_features}."


def class_template(c: ClassRecord, features: list[str], reason: TemplateReason | None) -> ClassTemplate:
    """The class feature template of a class. Without features the class's name stands in, for `reason`."""
    return ClassTemplate(
        label=c.label,
        class_name=c.name,
        template=template_text(c.name, features),
        features=features,
        source="llm" if features else "class_name",
        reason=reason,
    )


def parse_features(reply: str, class_name: str) -> list[str]:
    """The distinctive features in a Template 2 reply, plain text, in order, without repeats; at most MAX_FEATURES.

    Raises Unusable: "empty", "refused", "wrong_class", "too_long", "has_scene", "not_in_template".
    """
    text = THINKING.sub("", reply[:MAX_REPLY])
    if not text.strip():
        raise Unusable("empty")
    if REFUSAL.match(text):
        raise Unusable("refused")
    candidates = [piece for piece in cut_entries(text) if HEAD.match(PREFIX.sub("", plain(piece)))]
    if not candidates:
        raise Unusable("not_in_template")
    rest = after_class(PREFIX.sub("", plain(candidates[0])), class_name, prose=False)
    if len(rest) > MAX_DESCRIPTION:
        raise Unusable("too_long")
    rest = re.sub(r"^[\s,:*_]*(?:with|featuring|showing|has|having)?\b", "", rest, flags=re.I)
    braced = re.findall(r"\{([^{}]+)\}", rest)
    pieces = braced if len(braced) > 1 else re.split(r"\s*[,;{}]+\s*(?:and\s+)?|\.\s+", rest)
    features: list[str] = []
    for piece in pieces:
        feature = clean_features(tidy(piece))
        feature = re.sub(r"^(?:and|with|feature \d+:?)\s+", "", feature, flags=re.I)
        if re.fullmatch(r"(?:feature \d+|distinctive features?|\W*)", feature, re.I):
            continue
        if SCENE_IN_FEATURE.search(feature):
            raise Unusable("has_scene")
        if normalised(feature) not in map(normalised, features):
            features.append(feature)
    if not features:
        raise Unusable("not_in_template")
    return features[:MAX_FEATURES]
