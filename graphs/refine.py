"""Iterative evaluation (§3.1.3, Fig. 5): generate -> detect -> (refine -> regenerate -> detect)* -> end."""

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs import prompts
from graphs.parse.entries import cut_entries
from graphs.parse.reply import Unusable
from graphs.parse.template_1 import Description, parse_description
from graphs.state import RefineContext, RefineState, ScoredDrawing
from ltgc.clients.chat import Reply
from ltgc.pipeline.artifacts.drawings import Verdict


async def generate(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Draw the description (Eq. 1)."""
    painter = runtime.context.painter
    seed = painter.seed(state["class_name"], state["index"], state.get("round", 0))
    drawing = await painter.draw(state["slug"], state["prompt"], seed)
    return {"drawing": drawing, "counts": Counter(drawings=1, prompts_cut=int(drawing.cut))}


regenerate = generate  # the improved description, another seed


async def detect(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Score the image against the class feature template (Eq. 2)."""
    round, drawing = state.get("round", 0), state["drawing"]
    shot = ScoredDrawing(round, state["prompt"], drawing.seed, drawing.image, None, None, "failed", drawing.reason)
    if drawing.image is not None:
        score, threshold = await runtime.context.scorer.score(state["label"], drawing.image)
        low: Verdict = "refined" if round < runtime.context.max_refinements else "rejected"
        shot = replace(shot, score=score, threshold=threshold, verdict="accepted" if score >= threshold else low)
    counts: Counter[str] = Counter({f"failures/{drawing.reason}": 1}) if drawing.reason else Counter()
    return {"shots": [*state.get("shots", []), shot], "counts": counts}


def quality(state: RefineState, runtime: Runtime[RefineContext]) -> Literal["refine", "__end__"]:
    """Refine a low-quality image, and a description that the T2I model would not draw."""
    rounds_left = state.get("round", 0) < runtime.context.max_refinements
    # A server that is down draws no better from another description.
    refinable = state["shots"][-1].verdict == "refined" or state["drawing"].refinable
    return "refine" if refinable and rounds_left else "__end__"


async def refine(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Have the LLM improve the distinctive features of the description."""
    shots = state["shots"]
    tried = [(shot.prompt, shot.reason) for shot in shots]
    round = state.get("round", 0) + 1
    question = prompts.refine(state["class_name"], tried, state.get("refine_reason"), round)
    reply = await runtime.context.chat.ask(question)
    try:
        if reply.unusable:
            raise Unusable(reply.unusable)
        prompt = _read(reply.text, state["class_name"]).text
    except Unusable as unusable:
        counts = reply.counts + Counter({f"failures/refinement: {unusable}": 1})
        # The image that was to be refined failed with it, unless a later refinement can be used.
        failed = replace(shots[-1], verdict="failed", reason=shots[-1].reason or f"refinement: {unusable}")
        shots = shots if _may_ask_again(reply, round, runtime) else [*shots[:-1], failed]
        return {"round": round, "reply": reply, "refine_reason": str(unusable), "shots": shots, "counts": counts}
    return {"round": round, "reply": reply, "refine_reason": None, "prompt": prompt, "counts": reply.counts}


def _read(reply: str, class_name: str) -> Description:
    """The first description in the reply; models like to say what they changed. Raises Unusable."""
    for piece in cut_entries(reply):
        try:
            return parse_description(piece, class_name)
        except Unusable:
            continue
    return parse_description(reply, class_name)


def refined(state: RefineState, runtime: Runtime[RefineContext]) -> Literal["regenerate", "refine", "__end__"]:
    if state["refine_reason"] is None:
        return "regenerate"
    return "refine" if _may_ask_again(state["reply"], state["round"], runtime) else "__end__"


def _may_ask_again(reply: Reply, round: int, runtime: Runtime[RefineContext]) -> bool:
    return not reply.failure and round < runtime.context.max_refinements


builder = StateGraph(RefineState, context_schema=RefineContext)
builder.add_node("generate", generate)
builder.add_node("detect", detect)
builder.add_node("refine", refine)
builder.add_node("regenerate", regenerate)
builder.add_edge(START, "generate")
builder.add_edge("generate", "detect")
builder.add_conditional_edges("detect", quality)
builder.add_conditional_edges("refine", refined)
builder.add_edge("regenerate", "detect")
graph = builder.compile(name="refine").with_config(recursion_limit=1_000_000)
