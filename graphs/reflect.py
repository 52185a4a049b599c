"""Extended descriptions with self-reflection (§3.1.2): ask -> number_check -> (ask | repetition_check) -> end."""

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from graphs import prompts
from graphs.parse.entries import cut_entries
from graphs.parse.repeats import chunks, match_entries
from graphs.parse.reply import Unusable, normalised, plain, refused
from graphs.parse.template_1 import parse_description
from graphs.state import Entry, ReflectContext, ReflectState
from ltgc.clients.chat import Reply

WANTED = 20  # descriptions asked for at once: longer lists end in truncated replies
# A repetition check that leaves fewer than this part of the list was misunderstood (only the repeats listed, a
# summary, an example): it is not obeyed.
LEAST_KEPT = 0.2


async def ask(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Ask for descriptions that the list so far does not have."""
    kept = _kept(state)
    question = prompts.extend(
        state["class_name"],
        [*state["existing"], *kept],
        min(WANTED, _missing(state, runtime)),
        state.get("stalled", 0),
        state.get("context"),
    )
    reply = await runtime.context.chat.ask(question)
    return {
        "reply": reply,
        "round": state.get("round", 0) + 1,
        "counts": reply.counts + Counter(rounds=1),
    }


async def number_check(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Put what is new on the list, up to K_y = M_y + N_y; note what is not, and why."""
    entries = list(state.get("entries", []))
    known = {normalised(text) for text in [*state["existing"], *(e.description for e in entries)]}
    missing = _missing(state, runtime)
    listed = _listed(state)
    new = 0
    for entry in listed:
        if entry.kept and (words := normalised(entry.description)) in known:
            entry = replace(entry, reason="duplicate")
        elif entry.kept:
            known.add(words)
            new += 1
            if new > missing:
                entry = replace(entry, reason="over_target")
        entries.append(entry)
    counts = Counter({f"failures/{nothing}": 1} if (nothing := _nothing(state["reply"])) else {})
    return {"entries": entries, "stalled": 0 if new else state.get("stalled", 0) + 1, "counts": counts}


def number_reached(
    state: ReflectState, runtime: Runtime[ReflectContext]
) -> Literal["ask", "repetition_check", "__end__"]:
    bounds = runtime.context
    going_on = state["stalled"] < bounds.max_stalled and state["round"] < bounds.max_rounds
    if _missing(state, runtime) > 0 and going_on:
        return "ask"
    return "repetition_check" if bounds.repetition_check and len(_kept(state)) > 1 else "__end__"


async def repetition_check(state: ReflectState, runtime: Runtime[ReflectContext]) -> dict[str, Any]:
    """Drop what the LLM leaves out of the list when it is asked to exclude repeats; accept nothing it adds."""
    entries = list(state["entries"])
    counts: Counter[str] = Counter()
    places = [i for i, entry in enumerate(entries) if entry.kept]
    for chunk in chunks(places, [e.description for e in entries], runtime.context.check_characters):
        descriptions = [entries[i].description for i in chunk]
        reply = await runtime.context.chat.ask(prompts.repetition_check(state["class_name"], descriptions))
        counts += reply.counts + Counter(repetition_checks=1)
        remaining, invented = match_entries(reply.text, descriptions)
        if reply.unusable or len(remaining) < LEAST_KEPT * len(chunk) or not remaining:
            counts["unusable_repetition_checks"] += 1
            continue
        counts["invented_entries"] += invented
        for position, i in enumerate(chunk):
            if position not in remaining:
                entries[i] = replace(entries[i], reason="repeats")
    return {"entries": entries, "counts": counts}


def _listed(state: ReflectState) -> list[Entry]:
    """The entries of the last reply as they came, those that are no description with the reason."""
    reply, number = state["reply"], state["round"]
    if _nothing(reply):
        return []
    pieces = cut_entries(reply.text)
    listed = []
    for i, piece in enumerate(pieces):
        try:
            if reply.truncated and i == len(pieces) - 1:
                raise Unusable("truncated")
            found = parse_description(piece, state["class_name"])
        except Unusable as unusable:
            raw = plain(piece)[:500]
            listed.append(Entry(number, raw, None, None, str(unusable)))
        else:
            listed.append(Entry(number, found.text, found.features, found.scene))
    return listed


def _nothing(reply: Reply) -> str | None:
    """Why a reply lists nothing at all; None if it may. A truncated list is a list."""
    if reply.unusable and not reply.truncated:
        return reply.unusable
    return "refused" if refused(reply.text) else None


def _kept(state: ReflectState) -> list[str]:
    return [entry.description for entry in state.get("entries", []) if entry.kept]


def _missing(state: ReflectState, runtime: Runtime[ReflectContext]) -> int:
    return runtime.context.target - state["images"] - len(_kept(state))


builder = StateGraph(ReflectState, context_schema=ReflectContext)
builder.add_node(ask)
builder.add_node(number_check)
builder.add_node(repetition_check)
builder.add_edge(START, "ask")
builder.add_edge("ask", "number_check")
builder.add_conditional_edges("number_check", number_reached)
builder.add_edge("repetition_check", END)
graph = builder.compile(name="reflect").with_config(recursion_limit=1_000_000)
