"""Asking the vision model for the class (Table 3): classify -> match. Each image is asked about once."""

from collections import Counter
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.reply import Unusable, usable_text
from graphs.state import ClassifyContext, ClassifyState


async def classify(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Show the image and the list of class names."""
    question = runtime.context.prompts.classify(runtime.context.class_list, state["image_url"])
    reply = await runtime.context.chat.ask(state["slug"], question)
    return {"reply": reply, "counts": reply.counts}


async def match(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Find the one class that the reply names, or why there is none."""
    try:
        return {"label": runtime.context.names.find(usable_text(state["reply"])), "reason": None}
    except Unusable as unusable:
        return {"label": None, "reason": unusable.reason, "failures": Counter([unusable.reason])}


builder = StateGraph(ClassifyState, context_schema=ClassifyContext)
builder.add_node("classify", classify)
builder.add_node("match", match)
builder.add_edge(START, "classify")
builder.add_edge("classify", "match")
graph = builder.compile(name="classify")
