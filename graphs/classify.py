"""Asking the vision model for the class (Table 3): classify -> match. Each image is asked about once."""

from collections import Counter
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs import prompts
from graphs.parse.reply import Unusable
from graphs.state import ClassifyContext, ClassifyState


async def classify(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Show the image and the list of class names."""
    reply = await runtime.context.chat.ask(prompts.classify(runtime.context.class_list, state["image_url"]))
    return {"reply": reply, "counts": reply.counts}


async def match(state: ClassifyState, runtime: Runtime[ClassifyContext]) -> dict[str, Any]:
    """Find the one class that the reply names, or why there is none."""
    reply = state["reply"]
    try:
        if reply.unusable:
            raise Unusable(reply.unusable)
        return {"label": runtime.context.names.find(reply.text), "reason": None}
    except Unusable as unusable:
        return {"label": None, "reason": str(unusable), "counts": Counter({f"failures/{unusable}": 1})}


builder = StateGraph(ClassifyState, context_schema=ClassifyContext)
builder.add_node("classify", classify)
builder.add_node("match", match)
builder.add_edge(START, "classify")
builder.add_edge("classify", "match")
graph = builder.compile(name="classify")
