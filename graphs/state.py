"""What flows through the graphs, and what they are given to work with.

A state is what one run of a graph knows; a context is what all runs share: models and bounds. `counts` adds
up over a run what the metrics report: calls, tokens, replies that could not be used.
"""

import operator
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, NotRequired, Protocol, TypedDict

from graphs.parse.template_1 import Description
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.painter import Drawing
from ltgc.pipeline.artifacts.drawings import Verdict

Counts = Annotated[Counter[str], operator.add]


# --- describe (§3.1.1) ---


@dataclass(frozen=True)
class DescribeContext:
    chat: Chat  # the vision model
    tries: int


class DescribeState(TypedDict):
    class_name: str
    context: NotRequired[str | None]  # the wider taxonomy of the class (ClassRecord.context)
    image_url: str  # the image as a data URL
    reply: NotRequired[Reply]  # the last one
    replies: NotRequired[int]  # how many there were
    description: NotRequired[Description | None]
    reason: NotRequired[str | None]  # why the last reply is not a description
    counts: Counts


# --- classify (Table 3) ---


class Names(Protocol):
    def find(self, reply: str) -> int:
        """The label of the class that a reply names. Raises Unusable."""
        ...


@dataclass(frozen=True)
class ClassifyContext:
    chat: Chat  # the vision model
    class_list: str  # see prompts.class_list
    names: Names


class ClassifyState(TypedDict):
    image_url: str
    reply: NotRequired[Reply]
    label: NotRequired[int | None]  # of the class that it names
    reason: NotRequired[str | None]  # why it names none
    counts: Counts


# --- reflect (§3.1.2) ---


@dataclass(frozen=True)
class Entry:
    """One description the LLM listed, kept or dropped."""

    round: int  # which question brought it, from 1
    description: str
    features: str | None
    scene: str | None
    reason: str | None = None  # why dropped; None: kept

    @property
    def kept(self) -> bool:
        return self.reason is None


@dataclass(frozen=True)
class ReflectContext:
    chat: Chat
    target: int  # K_y
    max_rounds: int
    max_stalled: int
    repetition_check: bool
    check_characters: int  # of the list in one repetition check, which comes back in one reply


class ReflectState(TypedDict):
    class_name: str
    context: NotRequired[str | None]
    images: int  # M_y
    existing: list[str]  # the existing descriptions list, Template 1
    reply: NotRequired[Reply]  # to the last question
    round: NotRequired[int]  # questions asked so far
    stalled: NotRequired[int]  # of them, the last ones in a row that brought nothing new
    entries: NotRequired[list[Entry]]  # in the order of arrival, dropped ones included
    counts: Counts


# --- template (§3.1.3) ---


@dataclass(frozen=True)
class TemplateContext:
    chat: Chat
    tries: int


class TemplateState(TypedDict):
    class_name: str
    context: NotRequired[str | None]
    descriptions: list[str]  # existing and extended; empty for a class that was not extended
    reply: NotRequired[Reply]
    replies: NotRequired[int]
    features: NotRequired[list[str]]  # of the class feature template; empty while there is none
    reason: NotRequired[str | None]
    counts: Counts


# --- refine (§3.1.3, Fig. 5) ---


class Painter(Protocol):
    async def draw(self, slug: str, prompt: str, seed: int) -> Drawing: ...

    def seed(self, class_name: str, index: int, round: int) -> int: ...


class Scorer(Protocol):
    async def score(self, label: int, image: bytes) -> tuple[float, float]:
        """S and the threshold it is held against."""
        ...


@dataclass(frozen=True)
class ScoredDrawing:
    """One drawing of a description and what became of it."""

    round: int  # 0 the first, r after r refinements
    prompt: str
    seed: int
    image: bytes | None
    score: float | None
    threshold: float | None
    verdict: Verdict
    reason: str | None


@dataclass(frozen=True)
class RefineContext:
    chat: Chat
    painter: Painter
    scorer: Scorer
    max_refinements: int  # R


class RefineState(TypedDict):
    label: int
    class_name: str
    slug: str
    index: int  # of the description it begins with
    prompt: str  # what to draw next
    round: NotRequired[int]  # refinements asked for so far
    drawing: NotRequired[Drawing]  # the last one
    shots: NotRequired[list[ScoredDrawing]]  # all of them, in order
    reply: NotRequired[Reply]  # to the last refinement asked for
    refine_reason: NotRequired[str | None]  # why the last refinement could not be used
    counts: Counts
