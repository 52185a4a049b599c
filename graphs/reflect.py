"""Extended descriptions with self-reflection (§3.1.2): ask -> number_check -> (ask | repetition_check) -> end."""

from collections import Counter
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from graphs.parse.entries import lists_nothing, parse_entries
from graphs.parse.repeats import chunks, match_entries
from graphs.parse.reply import normalised
from graphs.state import ReflectContext, ReflectState
from ltgc.pipeline.artifacts.descriptions import ExtendedDescription
from ltgc.pipeline.artifacts.feedback import Feedback
from ltgc.pipeline.artifacts.reasons import ListReason, ReplyReason, RequestReason

WANTED = 20  # descriptions asked for at once: longer lists end in truncated replies
# A repetition check that leaves less than this fraction of all that was shown was misunderstood (only the repeats
# listed, a summary, an example): it is not obeyed.
LEAST_KEPT = 0.2


async def ask(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Ask for descriptions that the list so far does not have."""
    c = state["class_record"]
    known = [*state["existing"], *_kept(state)]
    wanted = min(WANTED, _missing(state, runtime))
    rivals = state["feedback"].rivals if "feedback" in state else ()
    question = runtime.context.prompts.extend(c.name, known, wanted, state.get("stalled", 0), c.context, rivals)
    reply = await runtime.context.chat.ask(c.slug, question)
    return {"reply": reply, "round": state.get("round", 0) + 1, "counts": reply.counts + Counter(rounds=1)}


async def number_check(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Put what is new on the list, up to K_y = M_y + N_y; note what is not, and why."""
    c, reply = state["class_record"], state["reply"]
    extended = list(state.get("extended", []))
    known = {normalised(text) for text in [*state["existing"], *(e.description for e in extended)]}
    missing, new = _missing(state, runtime), 0
    nothing = lists_nothing(reply)
    for found in [] if nothing else parse_entries(reply.text, c.name, reply.truncated):
        reason: ReplyReason | RequestReason | ListReason | None = found.reason
        if reason is None and (words := normalised(found.text)) in known:
            reason = "duplicate"
        elif reason is None:
            known.add(words)
            new += 1
            reason = "over_target" if new > missing else None
        extended.append(
            ExtendedDescription(
                label=c.label,
                class_name=c.name,
                index=len(extended),
                round=state["round"],
                description=found.text,
                features=found.features,
                scene=found.scene,
                kept=reason is None,
                reason=reason,
                feedback=state["feedback"].round if "feedback" in state else 0,
            )
        )
    stalled = 0 if new else state.get("stalled", 0) + 1
    return {"extended": extended, "stalled": stalled, "failures": Counter([nothing] if nothing else [])}


def number_reached(
    state: ReflectState, runtime: Runtime[ReflectContext]
) -> Literal["ask", "repetition_check", "__end__"]:
    bounds = runtime.context
    going_on = state["stalled"] < bounds.max_stalled and state["round"] < bounds.max_rounds
    if _missing(state, runtime) > 0 and going_on:
        return "ask"
    return "repetition_check" if bounds.repetition_check and len(_new(state)) > 1 else "__end__"


async def repetition_check(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Drop what the LLM leaves out of the list when it is asked to exclude repeats; accept nothing it adds.

    It is shown the existing list, that of the rounds before, and what remains of the chunks before: these may not
    be repeated either.
    """
    c = state["class_record"]
    extended = list(state["extended"])
    counts: Counter[str] = Counter()
    new = [entry.index for entry in _new(state)]
    known = [*state["existing"], *(e.description for e in extended[: state.get("listed", 0)] if e.kept)]
    for chunk in chunks(new, [e.description for e in extended], runtime.context.check_characters):
        descriptions = [extended[i].description for i in chunk]
        question = runtime.context.prompts.repetition_check(c.name, descriptions, known)
        reply = await runtime.context.chat.ask(c.slug, question)
        counts += reply.counts + Counter(repetition_checks=1)
        remaining, invented = match_entries(reply.text, descriptions, known)
        # A late part of the list may well say nothing new.
        misunderstood = len(known) + len(remaining) < LEAST_KEPT * (len(known) + len(chunk))
        if reply.unusable or misunderstood or not remaining:
            counts["unusable_repetition_checks"] += 1
            known += descriptions
            continue
        counts["invented_entries"] += invented
        for position, i in enumerate(chunk):
            if position in remaining:
                known.append(extended[i].description)
            else:
                extended[i] = extended[i].model_copy(update={"kept": False, "reason": "repeats"})
    return {"extended": extended, "counts": counts}


def _kept(state: ReflectState) -> list[str]:
    return [entry.description for entry in state.get("extended", []) if entry.kept]


def _new(state: ReflectState) -> list[ExtendedDescription]:
    """What this round has added to the list."""
    return [entry for entry in state.get("extended", [])[state.get("listed", 0) :] if entry.kept]


def _missing(state: ReflectState, runtime: Runtime[ReflectContext]) -> int:
    first = runtime.context.target - state["class_record"].train
    return (state["feedback"].descriptions if "feedback" in state else first) - len(_new(state))


def next_round(end: dict[str, Any], feedback: Feedback) -> ReflectState:
    """The state in which a round of feedback begins: the lists at the `end` before, which stay as they are."""
    return ReflectState(
        class_record=end["class_record"],
        existing=end["existing"],
        extended=end["extended"],
        counts=end["counts"],
        failures=end["failures"],
        feedback=feedback,
        listed=len(end["extended"]),
    )


builder = StateGraph(ReflectState, context_schema=ReflectContext)
builder.add_node(ask)
builder.add_node(number_check)
builder.add_node(repetition_check)
builder.add_edge(START, "ask")
builder.add_edge("ask", "number_check")
builder.add_conditional_edges("number_check", number_reached)
builder.add_edge("repetition_check", END)
graph = builder.compile(name="reflect").with_config(recursion_limit=1_000_000)
