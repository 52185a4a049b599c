"""One description in Template 1, in plain text, or the reason why not."""

import re
from dataclasses import dataclass

from graphs.parse.reply import MARK, PREFIX, REFUSAL, Unusable, one_line, plain
from ltgc.pipeline.artifacts.reasons import ReplyReason, RequestReason

MAX_DESCRIPTION = 1_000  # characters after the class name; some images APIs take 1,000 in all


@dataclass(frozen=True)
class Description:
    """What a model wrote of one image: Template 1 in plain text, or the raw text and why it is not."""

    text: str
    features: str | None = None
    scene: str | None = None
    reason: ReplyReason | RequestReason | None = None


# "A photo of the class", and what models make of it: "This image of a", "In the photo of the class", ...
HEAD = re.compile(
    rf"(?:in\s+)?(?:a|an|the|this)?\s*(?:photo(?:graph)?|image|picture)\s+of\s+(?:(?:the|a|an)\s+)?(class\b)?{MARK}*",
    re.I,
)
# "The photo features a vibrant class rose, ...": prose around the class, read in existing descriptions only.
PROSE = re.compile(
    r"^(?:in\s+)?(?:the|this|a|an)\s+(?:photo(?:graph)?|image|picture)\s*,?\s*"
    r"(?:(?:features?|shows?|showcas\w+|captur\w+|depicts?|displays?|presents?|of)\b)?\s*"
    r"(?:the|an?)?\s*(?P<adjectives>(?:[\w-]+,?\s+){0,4}?)(?:class(?:\s+of)?\s+)?(?:of\s+)?$",
    re.I,
)

# Words of the template itself, and what models hang on them. They say nothing about the image.
SUCH_AS = r"(?:\s*(?:,|:)?\s*(?:such as|like|including|which include|include|are|being)\b)?\s*:?"
FEATURES_WORDS = re.compile(
    r"^(?:(?:\w+ing|with|noted for|its|their|\w+s)\s+)*?(?:its |their |the )?"
    rf"distinct(?:ive)? features?\b(?:\s+of\b)?{SUCH_AS}\s*",
    re.I,
)
SCENE_WORDS = re.compile(
    rf"\bin (?:the |this |these |a |an |some )?specific scenes?\b(?P<such>\s+of\b|{SUCH_AS})[\s,:]*", re.I
)

LEFT_OVER = re.compile(rf"\bwith (?:its |their |the )?distinct(?:ive)? features?\b{SUCH_AS}[\s,]*", re.I)

SAYS_FEATURES = (
    "featur|showcas|show|display|highlight|exhibit|includ|characteri|hav|boast|illustrat|reveal|wear|depict|"
    "accentuat|enhanc|symboli|represent|signify|embody|contrast|rang"
)
PLACE = (
    r"(?:in|on|at|against|among|amongst|amid|amidst|under|underneath|beneath|beside|near|by|along|across|through|"
    r"over|within|inside|outside|atop|upon|during|around|behind|before|between|into|onto|next to|"
    r"surrounded by|alongside)"
)
A = r"(?:a|an|the|its|their|his|her|some|another)"
SCENE_STARTS = re.compile(
    "|".join(
        [
            rf",\s+(?=set {PLACE}\b)",
            r",?\s+(?=(?:set )?against (?:a|an|the)\b)",
            rf",\s+(?:is\s+)?(?=(?:\w+ly\s+)?(?!{SAYS_FEATURES})\w+(?:ed|en|ht|wn|id)\s+(?:\w+ly\s+)?{PLACE}\b)",
            rf",\s+(?:is\s+)?(?=(?:\w+ly\s+)?(?!{SAYS_FEATURES})\w+ing\s+(?:\w+ly\s+)?(?:{PLACE}|{A}|upside|off|out|up|down|about|as|from|for|with|of)\b)",
            rf",\s+(?=(?:all\s+)?(?:{PLACE}|above|below|as it|as they|while|where)\b)",
            r"(?<=[.!])\s+(?=\w)",
            r",\s+(?=stands?\b|with a? ?\w* ?(?:background|backdrop)\b)",
            r"\s+(?=while being\b|surrounded by\b|in specific scenes?\b)",
        ]
    ),
    re.I,
)
PLAIN_PLACE = re.compile(rf"\s+(?=(?:\w+ing\s+|\w+ed\s+|set\s+)?{PLACE}\s+{A}\b)", re.I)
BARE_PLACE = re.compile(rf"\s+(?={PLACE}\s+\w)", re.I)  # "in fresh snow": the last one, if nothing says more


def parse_description(reply: str, class_name: str, *, prose: bool = False) -> Description:
    """Read one Template 1 description of `class_name`.

    prose: also take sentences that name the class but forget the template's opening ("The image shows a ...").
    Raises Unusable: "empty", "refused", "wrong_class", "too_long", "not_in_template".
    """
    text = plain(reply)
    if not text:
        raise Unusable("empty")
    if REFUSAL.match(text):
        raise Unusable("refused")
    rest = after_class(PREFIX.sub("", text), class_name, prose)
    if len(rest) > MAX_DESCRIPTION:
        raise Unusable("too_long")
    if rest.rstrip(" \"'*_`”’}").endswith(("?", ":")):  # an offer or a preamble that quotes the template
        raise Unusable("not_in_template")
    features, scene = _split(rest)
    if not re.search(r"\w", features) or not re.search(r"\w", scene):
        raise Unusable("not_in_template")
    text = f"A photo of the class {one_line(class_name)}, {features} {scene}."
    return Description(text, features, scene)


def after_class(text: str, class_name: str, prose: bool) -> str:
    """What follows the class's name in Template 1. Raises Unusable."""
    name = _name_pattern(class_name)
    head = HEAD.match(text)
    if head:
        match = name.match(text, head.end())
        if match and _ends_name(text[match.end() :]):
            return text[match.end() :]
        if head[1]:
            raise Unusable("wrong_class")
    if prose:
        opening = name.search(text[:400])
        if opening and (said := PROSE.match(text[: opening.start()].strip() + " ")):
            adjectives = one_line(re.sub(r"\b(?:class|of|view|the|an?)\b", "", said["adjectives"])).strip(" ,")
            return (f" {adjectives}," if adjectives else "") + text[opening.end() :]
    raise Unusable("not_in_template")


def _name_pattern(class_name: str) -> re.Pattern[str]:
    """The class's name as models write it: any case, "_" for a blank, quoted, in the plural, without its hint."""
    base, hint = split_hint(class_name)
    words = re.findall(r"[^\W_]+", base)
    if not words:  # an emoji, say
        return re.compile(re.escape(one_line(class_name)))
    name = r"[\W_]{0,5}".join(map(re.escape, words))
    meant = r"[\W_]{0,5}".join(map(re.escape, re.findall(r"[^\W_]+", hint)))
    hinted = rf"(?:[\W_]{{1,5}}{meant}\W?(?=\W|$))?" if meant else ""
    return re.compile(rf"\W*(?<!\w){name}(?:e?s)?(?![^\W_]){hinted}", re.I)


def split_hint(class_name: str) -> tuple[str, str]:
    """The name and the hint of "crane (the bird)" (data.class_hints); without a hint, the name and ""."""
    match = re.fullmatch(r"(.*\S) \(([^()]+)\)", class_name)
    return (match[1], match[2]) if match else (class_name, "")


def _ends_name(rest: str) -> bool:
    """Whether the name ends here: the class "rose" is not meant by "rose mallow, with ..."."""
    word = re.match(r"[ _-]?([^\W\d_][\w-]*)", rest)
    goes_on = rf"(?:{PLACE}|with|of|that|which|is|are|as|\w+ing|\w+ed|\w+s)$"
    return not word or bool(re.match(goes_on, word[1], re.I))


def _split(rest: str) -> tuple[str, str]:
    """The distinctive features and the scene in what follows the class's name, both without markup."""
    pieces = [p for p in re.split(r"[{}\[\]]+|\*+|(?<!\w)_+|_+(?!\w)", rest) if re.search(r"\w", p)]
    # A group that holds nothing but words of the template, or a joint, belongs to what follows it.
    groups: list[str] = []
    joint = ""
    for piece in pieces:
        piece = joint + piece.strip()
        joint = ""
        if not re.search(r"\w", _bare(piece)):
            joint = piece.rstrip(" ,:") + " "
        else:
            groups.append(piece)
    if len(groups) >= 2:
        features, scene = groups[0], " ".join(groups[1:])
    else:
        text = " ".join(groups).strip()
        at = _scene_start(text)
        features, scene = text[:at], text[at:]
    return clean_features(features), _scene(scene)


def _bare(piece: str) -> str:
    bare = FEATURES_WORDS.sub("", SCENE_WORDS.sub("", piece.strip(" ,.:;") + " "))
    joint = r"^\W*(?:with|in|featuring|showcasing|showing|and|distinctive features|specific scenes)?\W*$"
    return re.sub(joint, "", bare, flags=re.I)


def _scene_start(text: str) -> int:
    """Where the scene begins in unmarked text; len(text) if nowhere."""

    def starts(pattern: re.Pattern[str]) -> list[int]:
        found = [(m.start(), m.end()) for m in pattern.finditer(text)]
        return [end for start, end in found if re.search(r"\w{3}", clean_features(text[:start]))]

    boilerplate = SCENE_WORDS.search(text)
    clear = starts(SCENE_STARTS) + ([boilerplate.start()] if boilerplate and boilerplate.start() else [])
    return min(clear or starts(PLAIN_PLACE) or starts(BARE_PLACE)[-1:], default=len(text))


def clean_features(text: str) -> str:
    text = text.strip(" ,.;:-–—")
    bare = FEATURES_WORDS.sub("", text)
    if bare != text and bare:
        bare = f"with {bare}"
    return re.sub(r",? (?:is|are|and|with)$", "", tidy(_mended(bare)))


def _scene(text: str) -> str:
    text = text.strip(" ,.;:-–—")
    text = re.sub(r"(?i)^in (?:the|this) (?:specific )?(?:scene|image|photo),\s*", "in a scene where ", text)
    text = SCENE_WORDS.sub(lambda m: "in scenes of " if (m["such"] or "").strip() == "of" else "", text)
    text = re.sub(r"(?i)^(?:the|this) (?:specific )?(?:scene|setting)\s+(?=\w+s\b)", "in a scene that ", text)
    text = re.sub(r"(?i)^(?:the|its) (?:setting|environment) (?:is|are) ", "", text)
    if re.match(r"[A-Z][a-z'’]* ", text) and not re.match(rf"{PLACE}\b", text, re.I):  # a sentence of its own
        text = f"in a scene where {text[0].lower()}{text[1:]}"
    elif text[:1].isupper():
        text = text[0].lower() + text[1:]
    text = tidy(_mended(text))
    return f"in {text}" if re.match(r"(?:a|an|the)\b|\w+$", text) else text  # "{a meadow}", "{meadow}"


def _mended(text: str) -> str:
    """The template's words in the middle of a sentence, put so that the sentence stays one."""
    text = LEFT_OVER.sub("with ", text)
    return re.sub(r"\bdistinct(?:ive)? (?=features?\b)|\bspecific (?=scenes?\b)", "", text, flags=re.I)


def tidy(text: str) -> str:
    text = re.sub(r"[{}*`\[\]\"“”«»<>#|]+", " ", text)
    text = re.sub(r"(?<!\w)['‘’_]+(?=\w)|(?<![s\w])['‘’_]+|\s['‘’_]+(?=\s|$)", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", one_line(text))
    text = re.sub(r"([,;:])(?:\s*[,.;:])+", r"\1", text)
    return text.strip(" ,.;:-–—'‘’_")
