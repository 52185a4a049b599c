"""Iterative evaluation (§3.1.3, Fig. 5): generate -> detect -> (refine -> regenerate -> detect)* -> end."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.entries import first_description
from graphs.parse.reply import Unusable, usable_text
from graphs.review import reworded
from graphs.state import RefineContext, RefineState
from ltgc.clients.chat import Reply
from ltgc.clip.subject import Score, Subject
from ltgc.pipeline.artifacts.drawings import Attempt, Verdict, attempt_id, attempt_image
from ltgc.pipeline.artifacts.review import ReviewRow


async def generate(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Draw the description (Eq. 1)."""
    painter, first = runtime.context.painter, state["description"]
    seed = painter.seed(first.class_name, first.index, state.get("round", 0))
    prompt = state.get("prompt", first.description)
    drawing = await painter.draw(state["slug"], prompt, seed, state["start"])
    counts = Counter(drawings=1, prompts_cut=int(drawing.cut))
    if drawing.image_tokens:
        counts |= Counter(drawing_prompt_tokens=drawing.prompt_tokens, drawing_tokens=drawing.image_tokens)
    return {"prompt": prompt, "drawing": drawing, "counts": counts}


regenerate = generate  # the improved description, another seed


async def detect(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Score the image against what it is meant to show (Eq. 2)."""
    drawing, first, round = state["drawing"], state["description"], state.get("round", 0)
    attempts, images = state.get("attempts", []), state.get("images", {})
    start = state["start"]
    scored, reviewed = Score(None, None), None
    verdict: Verdict = "failed"
    id = attempt_id(state["slug"], first.index, round)
    if drawing.image is not None:
        # What is left of a photo may differ from the description: it is held against its class alone.
        features = None if start and start.strength < 1 else state.get("features", first.features)
        subject = Subject(first.label, features, first.index)
        scored = await runtime.context.scorer.score(subject, drawing.image)
        reviewed = runtime.context.review.drawing(first.class_name, drawing.image)
        refinable = round < runtime.context.max_refinements or bool(reviewed and reviewed.text)
        verdict = _verdict(scored, reviewed, refinable)
        images = images | {id: drawing.image}
    attempt = Attempt(
        id=id,
        label=first.label,
        class_name=first.class_name,
        index=first.index,
        round=round,
        prompt=state["prompt"],
        seed=drawing.seed,
        image=attempt_image(id, verdict) if drawing.image is not None else None,
        score=scored.score,
        threshold=scored.threshold,
        verdict=verdict,
        refines=attempts[-1].id if attempts else None,
        reason=f"{reviewed.verdict}ed_in_review" if reviewed else drawing.reason or scored.reason,
        answers=scored.answers,
        photo=start.path if start else None,
        strength=start.strength if start else None,
    )
    failures = Counter([drawing.reason] if drawing.reason else []) + scored.failures
    rewording = reworded(reviewed) if reviewed and reviewed.text else None
    update = {"attempts": [*attempts, attempt], "images": images, "rewording": rewording}
    return update | {"counts": scored.counts, "failures": failures}


def _verdict(scored: Score, reviewed: ReviewRow | None, refinable: bool) -> Verdict:
    """What becomes of a drawing: a person's verdict goes before the filter's."""
    if reviewed:
        passes = reviewed.verdict == "accept"
    elif scored.score is None or scored.threshold is None:
        return "failed"
    else:
        passes = scored.score >= scored.threshold
    return "accepted" if passes else "refined" if refinable else "rejected"


def represents_class(state: RefineState, runtime: Runtime[RefineContext]) -> Literal["refine", "__end__"]:
    """Refine the description of an image that scored low, and one that the T2I model would not draw."""
    rounds_left = state.get("round", 0) < runtime.context.max_refinements
    # A server that is down draws no better from another description.
    refinable = state["attempts"][-1].verdict == "refined" or state["drawing"].refinable
    return "refine" if state["rewording"] or (refinable and rounds_left) else "__end__"


async def refine(state: RefineState, runtime: Runtime[RefineContext]) -> dict[str, Any]:
    """Have the LLM improve the distinctive features of the description, unless a person has done so."""
    attempts, class_name = state["attempts"], state["description"].class_name
    round = state.get("round", 0) + 1
    if words := state["rewording"]:
        return {"round": round, "unusable": None, "prompt": words.text, "features": words.features}
    tried = [(attempt.prompt, attempt.reason if attempt.image is None else None) for attempt in attempts]
    question = runtime.context.prompts.refine(class_name, tried, state.get("unusable"), round)
    reply = await runtime.context.chat.ask(state["slug"], question)
    update = {"round": round, "reply": reply, "counts": reply.counts}
    try:
        description = first_description(usable_text(reply), class_name)
    except Unusable as unusable:
        reason = f"refinement: {unusable.reason}"
        if not _may_ask_again(reply, round, runtime):
            # The image that was to be refined failed with it.
            failed = {"verdict": "failed", "reason": attempts[-1].reason or reason}
            attempts = [*attempts[:-1], attempts[-1].model_copy(update=failed)]
        return update | {"unusable": unusable.reason, "attempts": attempts, "failures": Counter([reason])}
    return update | {"unusable": None, "prompt": description.text, "features": description.features}


def refined(state: RefineState, runtime: Runtime[RefineContext]) -> Literal["regenerate", "refine", "__end__"]:
    if state["unusable"] is None:
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
builder.add_conditional_edges("detect", represents_class)
builder.add_conditional_edges("refine", refined)
builder.add_edge("regenerate", "detect")
graph = builder.compile(name="refine").with_config(recursion_limit=1_000_000)
