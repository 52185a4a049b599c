"""Asking for the class of an image, once: classify -> match (Table 3), or tag -> classify_tags -> match.

The second is LENS (Berrios et al. 2023, "Towards Language Models That Can See"), which takes tags and captions of
CLIP and BLIP; here the vision model gives both.
"""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.reply import THINKING, Unusable, refused, usable_text
from graphs.state import ClassifyContext, ClassifyState


def way(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> Literal["classify", "tag"]:
    return "tag" if runtime.context.llm else "classify"


async def classify(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Show the image and the list of class names."""
    question = runtime.context.prompts.classify(runtime.context.class_list, state["image_url"])
    reply = await runtime.context.chat.ask(state["slug"], question)
    return {"reply": reply, "counts": reply.counts}


async def tag(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Show the image alone, and ask what can be seen."""
    reply = await runtime.context.chat.ask(state["slug"], runtime.context.prompts.tags(state["image_url"]))
    update = {"reply": reply, "counts": reply.counts}
    try:
        text = usable_text(reply)
        if refused(text):
            raise Unusable("refused")
    except Unusable as unusable:
        return update | _none(unusable)
    return update | {"tags": THINKING.sub("", text)}


def tagged(state: ClassifyState) -> Literal["classify_tags", "__end__"]:
    return "classify_tags" if "tags" in state else "__end__"


async def classify_tags(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Give the LLM, which does not see the image, what the vision model said and the list of class names."""
    assert runtime.context.llm
    question = runtime.context.prompts.classify_tags(runtime.context.class_list, state["tags"])
    reply = await runtime.context.llm.ask(state["slug"], question)
    return {"reply": reply, "llm_counts": reply.counts}


async def match(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Find the one class that the reply names, or why there is none."""
    try:
        return {"label": runtime.context.names.find(usable_text(state["reply"])), "reason": None}
    except Unusable as unusable:
        return _none(unusable)


def _none(unusable: Unusable) -> dict[str, Any]:
    return {"label": None, "reason": unusable.reason, "failures": Counter([unusable.reason])}


builder = StateGraph(ClassifyState, context_schema=ClassifyContext)
builder.add_node("classify", classify)
builder.add_node("tag", tag)
builder.add_node("classify_tags", classify_tags)
builder.add_node("match", match)
builder.add_conditional_edges(START, way)
builder.add_conditional_edges("tag", tagged)
builder.add_edge("classify_tags", "match")
builder.add_edge("classify", "match")
graph = builder.compile(name="classify")
