"""What flows through the graphs, and what they are given to work with.

A state is what one run of a graph knows; a context is what all runs share: models and bounds. Over a run, `counts`
adds up calls, tokens and rounds, and `failures` the replies and drawings that could not be used, by reason.
"""

import operator
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, NotRequired, Protocol, TypedDict

from graphs.parse.template_1 import Description
from graphs.prompts import Prompts
from graphs.review import Review
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.painter import Drawing
from ltgc.clients.start import Start
from ltgc.clip.subject import Score, Subject
from ltgc.pipeline.artifacts.dataset import ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.pipeline.artifacts.feedback import Feedback
from ltgc.pipeline.artifacts.reasons import ReplyReason, RequestReason

Counts = Annotated[Counter[str], operator.add]


# --- describe (§3.1.1) ---


@dataclass(frozen=True)
class DescribeContext:
    chat: Chat  # the vision model
    prompts: Prompts
    tries: int


class DescribeState(TypedDict):
    class_record: ClassRecord
    image: ImageRecord
    image_url: str  # the image as a data URL
    reply: NotRequired[Reply]  # the last one
    record: NotRequired[ExistingDescription]  # what the last reply says, or why it cannot be used
    counts: NotRequired[Counts]
    failures: NotRequired[Counts]


# --- classify (Table 3) ---


class Names(Protocol):
    def find(self, reply: str) -> int:
        """The label of the class that a reply names. Raises Unusable."""
        ...


@dataclass(frozen=True)
class ClassifyContext:
    chat: Chat  # the vision model
    prompts: Prompts
    class_list: str  # see prompts.class_list
    names: Names
    llm: Chat | None = None  # which tells the class of the vision model's tags; None: the vision model tells it


class ClassifyState(TypedDict):
    slug: str  # of the image's class; the model is not told
    image_url: str
    reply: NotRequired[Reply]  # the last one
    tags: NotRequired[str]  # what the vision model says that the image shows
    label: NotRequired[int | None]  # of the class that it names
    reason: NotRequired[ReplyReason | RequestReason | None]  # why it names none
    counts: NotRequired[Counts]  # of the vision model
    llm_counts: NotRequired[Counts]
    failures: NotRequired[Counts]


# --- reflect (§3.1.2) ---


@dataclass(frozen=True)
class ReflectContext:
    chat: Chat
    prompts: Prompts
    target: int  # K_y
    max_rounds: int
    max_stalled: int
    repetition_check: bool
    check_characters: int  # of the list in one repetition check, which comes back in one reply


class ReflectState(TypedDict):
    class_record: ClassRecord
    existing: list[str]  # the existing descriptions list, Template 1
    feedback: NotRequired[Feedback]  # the round of feedback that asks; absent: the first list is made
    listed: NotRequired[int]  # entries of `extended` from before this round, which stay as they are
    reply: NotRequired[Reply]  # to the last question
    round: NotRequired[int]  # questions asked so far
    stalled: NotRequired[int]  # of them, the last ones in a row that brought nothing new
    extended: NotRequired[list[ExtendedDescription]]  # in the order of arrival, dropped ones included
    counts: NotRequired[Counts]
    failures: NotRequired[Counts]


# --- template (§3.1.3) ---


@dataclass(frozen=True)
class TemplateContext:
    chat: Chat
    prompts: Prompts
    tries: int


class TemplateState(TypedDict):
    class_record: ClassRecord
    descriptions: list[str]  # existing and extended; empty for a class that was not extended
    reply: NotRequired[Reply]  # the last one
    replies: NotRequired[int]  # how many there were
    template: NotRequired[ClassTemplate]  # from the last reply, or from the class's name and why
    counts: NotRequired[Counts]
    failures: NotRequired[Counts]


# --- refine (§3.1.3, Fig. 5) ---


class Painter(Protocol):
    async def draw(self, slug: str, prompt: str, seed: int, start: Start | None) -> Drawing: ...

    def seed(self, class_name: str, index: int, round: int) -> int: ...


class Scorer(Protocol):
    async def score(self, subject: Subject, image: bytes) -> Score: ...


@dataclass(frozen=True)
class RefineContext:
    chat: Chat
    prompts: Prompts
    review: Review
    painter: Painter
    scorer: Scorer
    max_refinements: int  # R


class RefineState(TypedDict):
    slug: str  # of the class
    description: ExtendedDescription  # what it begins with
    start: Start | None  # the photo that all its drawings begin with
    prompt: NotRequired[str]  # what to draw next; at first the description
    features: NotRequired[str | None]  # of the prompt; at first of the description
    round: NotRequired[int]  # refinements asked for so far
    drawing: NotRequired[Drawing]  # the last one
    attempts: NotRequired[list[Attempt]]  # every drawing and what became of it, in order
    images: NotRequired[dict[str, bytes]]  # id of an attempt -> its image as it came
    rewording: NotRequired[Description | None]  # what a person wants drawn in place of the last drawing
    reply: NotRequired[Reply]  # to the last refinement asked for
    unusable: NotRequired[ReplyReason | RequestReason | None]  # why that reply could not be used
    counts: NotRequired[Counts]
    failures: NotRequired[Counts]
