"""The class feature template C_y (§3.1.3): summarize -> check -> (summarize again | end)."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.reply import Unusable, usable_text
from graphs.parse.template_2 import class_template, parse_features
from graphs.state import TemplateContext, TemplateState


async def summarize(state: TemplateState, runtime: Runtime[TemplateContext]) -> dict[str, Any]:
    """Ask for the most distinctive features of the class in Template 2."""
    c, replies, prompts = state["class_record"], state.get("replies", 0), runtime.context.prompts
    question = prompts.summarize(c.name, state["descriptions"], c.context)
    if replies:
        question = prompts.again(question, state["reply"].text, state["template"].reason or "", replies + 1)
    reply = await runtime.context.chat.ask(c.slug, question)
    return {"reply": reply, "replies": replies + 1, "counts": reply.counts}


async def check(state: TemplateState) -> dict[str, Any]:
    """Read the features, or find out why the reply cannot be used: a scene among them, say."""
    c = state["class_record"]
    try:
        features = parse_features(usable_text(state["reply"]), c.name)
    except Unusable as unusable:
        return {"template": class_template(c, [], unusable.reason), "failures": Counter([unusable.reason])}
    return {"template": class_template(c, features, None)}


def in_template(state: TemplateState, runtime: Runtime[TemplateContext]) -> Literal["summarize", "__end__"]:
    if state["template"].features or state["reply"].failure or state["replies"] >= runtime.context.tries:
        return "__end__"
    return "summarize"


builder = StateGraph(TemplateState, context_schema=TemplateContext)
builder.add_node(summarize)
builder.add_node(check)
builder.add_edge(START, "summarize")
builder.add_edge("summarize", "check")
builder.add_conditional_edges("check", in_template)
graph = builder.compile(name="template").with_config(recursion_limit=1_000_000)
