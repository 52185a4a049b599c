"""Existing descriptions (§3.1.1): describe -> check -> (describe again, saying what was wrong | end)."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs import prompts
from graphs.parse.reply import Unusable
from graphs.parse.template_1 import parse_description
from graphs.state import DescribeContext, DescribeState


async def describe(state: DescribeState, runtime: Runtime[DescribeContext]) -> dict[str, Any]:
    """Ask the vision model for the image in Template 1."""
    question = prompts.describe(state["class_name"], state["image_url"], state.get("context"))
    replies = state.get("replies", 0)
    if replies:
        question = prompts.again(question, state["reply"].text, state["reason"] or "", replies + 1)
    reply = await runtime.context.chat.ask(question)
    return {"reply": reply, "replies": replies + 1, "counts": reply.counts}


async def check(state: DescribeState) -> dict[str, Any]:
    """Read the reply, or find out why it cannot be used."""
    reply = state["reply"]
    try:
        if reply.unusable:
            raise Unusable(reply.unusable)
        description = parse_description(reply.text, state["class_name"], prose=True)
    except Unusable as unusable:
        return {"description": None, "reason": str(unusable), "counts": Counter({f"failures/{unusable}": 1})}
    return {"description": description, "reason": None}


def in_template(state: DescribeState, runtime: Runtime[DescribeContext]) -> Literal["describe", "__end__"]:
    if state["description"] or state["reply"].failure or state["replies"] >= runtime.context.tries:
        return "__end__"
    return "describe"


builder = StateGraph(DescribeState, context_schema=DescribeContext)
builder.add_node(describe)
builder.add_node(check)
builder.add_edge(START, "describe")
builder.add_edge("describe", "check")
builder.add_conditional_edges("check", in_template)
# The bound of the loop is `tries`, not LangGraph's own.
graph = builder.compile(name="describe").with_config(recursion_limit=1_000_000)
