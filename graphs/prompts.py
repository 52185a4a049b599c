"""What is said to the models: prompts/*.txt, with its places filled in.

The files are Jinja templates. Templates 1 and 2 in them are the paper's; the words around them are ours. A class
name is untrusted text: it is put between other words, on one line, and nothing in it is evaluated. A question that
is asked again says what is different this time, so that it is another question for the model and for the store.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import jinja2.meta
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from graphs.parse.reply import REASONS, one_line
from ltgc.pipeline.errors import LTGCError

PROMPTS = Path("prompts")
# The names that each file may use. Its first lines say what they are.
PLACES = {
    "describe": {"class_name", "context"},
    "classify": {"class_list"},
    "ask_features": {"features", "unusable", "number"},
    "tags": set(),
    "classify_tags": {"class_list", "tags"},
    "extend": {"class_name", "descriptions", "wanted", "stalled", "context", "rivals"},
    "repetition_check": {"class_name", "descriptions", "known"},
    "summarize": {"class_name", "descriptions", "context"},
    "refine": {"class_name", "description", "reason", "tried", "unusable", "number"},
    "again": {"reason", "number"},
}
# No autoescape: a prompt is not HTML. Lines that hold nothing but {% ... %} or {# ... #} leave no line.
ENVIRONMENT = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def load(*names: str) -> "Prompts":
    """The prompts `names` (all of them if none is named), which a stage declares in dvc.yaml.

    Raises LTGCError for a file that is missing, is no template or has a place that is never filled.
    """
    return Prompts({name: _read(name) for name in names or PLACES})


def _read(name: str) -> jinja2.Template:
    path = PROMPTS / f"{name}.txt"
    places = ", ".join(sorted(PLACES[name]))
    try:
        source = path.read_text(encoding="utf-8")
        unknown = jinja2.meta.find_undeclared_variables(ENVIRONMENT.parse(source)) - PLACES[name]
        template = ENVIRONMENT.from_string(source)
    except FileNotFoundError as error:
        raise LTGCError(f"{path}: not there; get it back with `git checkout {path}`") from error
    except UnicodeDecodeError as error:
        raise LTGCError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except jinja2.TemplateSyntaxError as error:
        raise LTGCError(f"{path}, line {error.lineno}: {error.message}; its places are {places}") from error
    if unknown:
        raise LTGCError(f"{path}: no place is called {', '.join(sorted(unknown))}; its places are {places}")
    return template


class Prompts:
    """The questions, in the words of the files that were loaded."""

    def __init__(self, templates: Mapping[str, jinja2.Template]) -> None:
        self._templates = templates

    def _text(self, name: str, **places: object) -> str:
        """White space around a prompt does not count."""
        try:
            return self._templates[name].render(places).strip()
        except jinja2.TemplateError as error:
            raise LTGCError(f"{PROMPTS / name}.txt: {error}") from error

    def describe(self, class_name: str, image_url: str, context: str | None = None) -> list[BaseMessage]:
        """An image, to be described in Template 1 (§3.1.1)."""
        text = self._text("describe", class_name=one_line(class_name), context=one_line(context or ""))
        return _with_image(text, image_url)

    def classify(self, class_list: str, image_url: str) -> list[BaseMessage]:
        """Which class an image shows (Table 3)."""
        return _with_image(self._text("classify", class_list=class_list), image_url)

    def ask_features(
        self, features: Sequence[str], image_url: str, unusable: str | None, number: int
    ) -> list[BaseMessage]:
        """Which of the features an image shows. unusable, number: as of `refine`."""
        text = self._text(
            "ask_features",
            features=numbered([one_line(feature) for feature in features]),
            unusable=REASONS.get(unusable, unusable) if unusable else None,
            number=number,
        )
        return _with_image(text, image_url)

    def tags(self, image_url: str) -> list[BaseMessage]:
        """An image, to be described for a language model that tells its class."""
        return _with_image(self._text("tags"), image_url)

    def classify_tags(self, class_list: str, tags: str) -> list[BaseMessage]:
        """Which class an image shows, of what the vision model says of it alone."""
        return [HumanMessage(self._text("classify_tags", class_list=class_list, tags=tags.strip()))]

    def extend(
        self,
        class_name: str,
        descriptions: Sequence[str],
        wanted: int,
        stalled: int,
        context: str | None = None,
        rivals: Sequence[str] = (),
    ) -> list[BaseMessage]:
        """What is missing from the list so far (§3.1.2).

        stalled: replies in a row with nothing new. rivals: the classes that this one is most often taken for.
        """
        text = self._text(
            "extend",
            class_name=one_line(class_name),
            descriptions=numbered(descriptions),
            wanted=wanted,
            stalled=stalled,
            context=one_line(context or ""),
            rivals=" or ".join(f'"{one_line(rival)}"' for rival in rivals),
        )
        return [HumanMessage(text)]

    def repetition_check(
        self, class_name: str, descriptions: Sequence[str], known: Sequence[str] = ()
    ) -> list[BaseMessage]:
        """The list without what repeats (§3.1.2). known: what it may not repeat, and is not on it."""
        text = self._text(
            "repetition_check",
            class_name=one_line(class_name),
            descriptions=numbered(descriptions),
            known="\n".join(f"- {one_line(description)}" for description in known),
        )
        return [HumanMessage(text)]

    def summarize(
        self, class_name: str, descriptions: Sequence[str], context: str | None = None
    ) -> list[BaseMessage]:
        """The class feature template (§3.1.3)."""
        text = self._text(
            "summarize",
            class_name=one_line(class_name),
            descriptions=numbered(descriptions),
            context=one_line(context or ""),
        )
        return [HumanMessage(text)]

    def refine(
        self, class_name: str, tried: Sequence[tuple[str, str | None]], unusable: str | None, number: int
    ) -> list[BaseMessage]:
        """A description whose image does not look like the class (§3.1.3).

        tried: (description, why it could not be drawn, or None if its image scored low), the latest last.
        unusable: why the model's last refinement could not be used, if it could not; number: of refinements asked
        for.
        """
        description, reason = tried[-1]
        text = self._text(
            "refine",
            class_name=one_line(class_name),
            description=description,
            reason=reason,
            tried=numbered([description for description, _ in tried[:-1]]),
            unusable=REASONS.get(unusable, unusable) if unusable else None,
            number=number,
        )
        return [HumanMessage(text)]

    def again(self, question: list[BaseMessage], reply: str, reason: str, number: int) -> list[BaseMessage]:
        """`question` asked for the `number`-th time: the reply to it, and what was wrong with it."""
        text = self._text("again", reason=REASONS.get(reason, reason), number=number)
        # Some servers refuse an assistant's turn without content.
        return [*question, AIMessage(one_line(reply)[:2000] or "(no reply)"), HumanMessage(text)]


def class_list(class_names: Sequence[str]) -> str:
    """All classes, a line each. For the 8,142 of iNaturalist that is 180 kB, made once for all questions."""
    return "\n".join(map(one_line, class_names))


def numbered(descriptions: Sequence[str]) -> str:
    return "\n".join(f"{i}. {d}" for i, d in enumerate(descriptions, 1))


def _with_image(text: str, image_url: str) -> list[BaseMessage]:
    return [HumanMessage([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image_url}}])]
