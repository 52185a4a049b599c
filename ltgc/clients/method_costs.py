"""What each method of a comparison takes: weights, seconds of training, drawings, calls and money.

What a user must buy for a row: the texts that its head starts from (describe, extend, templates), and for a row
with drawings also `generate`. Rows share what they read; it is bought once.
"""

from collections.abc import Sequence
from typing import Any

from ltgc.clients import drawing_tokens
from ltgc.clients.costs import Cost, stage_cost
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.runs import MODELS, MethodCosts, Run
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS, Method

# The first choices of docs/models.md, chats without thinking: what the calls of a free server would cost there.
CHAT = "gpt-6-luna"
PAINTER = {"backend": "openai", "model": "gpt-image-2.5-flare", "size": "1024x1024", "quality": "low"}
PROMPT = "d" * 110  # as long as a description is

TEXTS = ("describe", "extend", "templates")
BOUGHT = {"templates": TEXTS, "descriptions": TEXTS[:2]}  # train.head_init -> stages; the others ask nothing
ALL = (*TEXTS, "generate")


def collect() -> dict[str, dict[str, Any]]:
    """method -> MethodCosts, of the runs in the working directory. Raises LTGCError where one is missing."""
    section = params.load("train", "methods", "seeds", "servers", "llm", "vision", "t2i", "prices")
    seconds = stage.run_seconds()
    found: dict[str, dict[str, Any]] = {}
    for method in section.methods:
        runs = [files.read_record(MODELS / method / str(seed) / "run.json", Run) for seed in section.seeds]
        times = [seconds.get(run.key) for run in runs]
        known = [time for time in times if time is not None]
        bought = stages_of(section, method)
        own = cost(section, bought)
        found[method] = MethodCosts(
            trained_parameters=runs[0].trained_parameters,
            seconds=round(sum(known) / len(runs), 1) if len(known) == len(runs) else None,
            drawings=runs[0].generated,
            calls=int(own.calls),
            usd=rounded(own.usd),
            hosted_usd=rounded(cost(hosted(section), bought).usd),
        ).model_dump()
    return found


def stages_of(section: Params, method: Method) -> Sequence[str]:
    """The stages whose calls a run of `method` needs."""
    return BOUGHT.get(section.train.of(method).head_init, ()) if method in WITHOUT_DRAWINGS else ALL


def cost(section: Params, stages: Sequence[str]) -> Cost:
    """What these stages asked for, at the prices of the models that `section` names."""
    total = Cost()
    for name in stages:
        counted = files.read_json(CALLS / f"{name}.json")
        drawn = counted.get("drawings", 0)
        prompt, image = drawing_tokens.expected(section.t2i, PROMPT)
        expected = {"drawing_prompt_tokens": drawn * prompt, "drawing_tokens": drawn * image}
        total += stage_cost(section, name, expected | counted | {"drawn": drawn})
    return total


def hosted(section: Params) -> Params:
    """The same with models that a server sells."""
    chats = {name: getattr(section, name).model_copy(update={"model": CHAT}) for name in ("llm", "vision")}
    return section.model_copy(update=chats | {"t2i": section.t2i.model_copy(update=PAINTER)})


def rounded(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 4)
