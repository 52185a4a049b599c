"""Existing descriptions (§3.1.1): describe -> check -> (describe again, saying what was wrong | end)."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.reply import Unusable, usable_text
from graphs.parse.template_1 import parse_description
from graphs.state import DescribeContext, DescribeState
from ltgc.pipeline.artifacts.descriptions import ExistingDescription


async def describe(state: DescribeState, runtime: Runtime[DescribeContext]) -> dict[str, Any]:
    """Ask the vision model for the image in Template 1."""
    c, prompts = state["class_record"], runtime.context.prompts
    question = prompts.describe(c.name, state["image_url"], c.context)
    if last := state.get("record"):
        question = prompts.again(question, state["reply"].text, last.reason or "", last.replies + 1)
    reply = await runtime.context.chat.ask(c.slug, question)
    return {"reply": reply, "counts": reply.counts}


async def check(state: DescribeState) -> dict[str, Any]:
    """Read the reply, or find out why it cannot be used."""
    image = state["image"]
    found, reason = None, None
    try:
        found = parse_description(usable_text(state["reply"]), image.class_name, prose=True)
    except Unusable as unusable:
        reason = unusable.reason
    record = ExistingDescription(
        label=image.label,
        class_name=image.class_name,
        image=image.path,
        description=found.text if found else None,
        features=found.features if found else None,
        scene=found.scene if found else None,
        kept=found is not None,
        reason=reason,
        replies=state["record"].replies + 1 if "record" in state else 1,
    )
    return {"record": record, "failures": Counter([reason] if reason else [])}


def in_template(state: DescribeState, runtime: Runtime[DescribeContext]) -> Literal["describe", "__end__"]:
    record = state["record"]
    if record.kept or state["reply"].failure or record.replies >= runtime.context.tries:
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
