"""The class feature template C_y (§3.1.3): summarize -> check -> (summarize again | end)."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs import prompts
from graphs.parse.reply import Unusable
from graphs.parse.template_2 import parse_template
from graphs.state import TemplateContext, TemplateState


async def summarize(state: TemplateState, runtime: Runtime[TemplateContext]) -> dict[str, Any]:
    """Ask for the most distinctive features of the class in Template 2."""
    question = prompts.summarize(state["class_name"], state["descriptions"], state.get("context"))
    replies = state.get("replies", 0)
    if replies:
        question = prompts.again(question, state["reply"].text, state["reason"] or "", replies + 1)
    reply = await runtime.context.chat.ask(question)
    return {"reply": reply, "replies": replies + 1, "counts": reply.counts}


async def check(state: TemplateState) -> dict[str, Any]:
    """Read the features, or find out why the reply cannot be used: a scene among them, say."""
    reply = state["reply"]
    try:
        if reply.unusable:
            raise Unusable(reply.unusable)
        features = parse_template(reply.text, state["class_name"])
    except Unusable as unusable:
        return {"features": [], "reason": str(unusable), "counts": Counter({f"failures/{unusable}": 1})}
    return {"features": features, "reason": None}


def in_template(state: TemplateState, runtime: Runtime[TemplateContext]) -> Literal["summarize", "__end__"]:
    if state["features"] or state["reply"].failure or state["replies"] >= runtime.context.tries:
        return "__end__"
    return "summarize"


builder = StateGraph(TemplateState, context_schema=TemplateContext)
builder.add_node(summarize)
builder.add_node(check)
builder.add_edge(START, "summarize")
builder.add_edge("summarize", "check")
builder.add_conditional_edges("check", in_template)
graph = builder.compile(name="template").with_config(recursion_limit=1_000_000)
