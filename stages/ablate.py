"""Stage ablate: the loops, one method and its evaluation with some keys changed; or the table of all variants.

python -m stages.ablate no_repetition_check
python -m stages.ablate five_seeds           # a comparison: all methods from all seeds
python -m stages.ablate
"""

import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from ltgc.clients import method_costs
from ltgc.clients.store import Store
from ltgc.data.truth import known_truth
from ltgc.evaluation import ablations
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.errors import LTGCError


def main(variant: str = "") -> None:
    variants, comparisons = ablations.variants(), ablations.comparisons()
    settings = params.load("seeds", "data.source")
    seeds, truth = settings.seeds, known_truth(settings.data.source)
    if not variant:
        results = {name: files.read_record(result_file(name), ablations.Result) for name in variants}
        methods = dict.fromkeys(map(ablations.method_of, variants.values()))
        unchanged = {ablations.base(method): ablations.result(seeds, method, truth) for method in methods}
        rows = ablations.rows(unchanged | results)
        files.write_json(ablations.TABLE, {name: row.model_dump() for name, row in rows.items()})
        ablations.print_table()
        return
    if variant not in variants | comparisons:
        raise LTGCError(
            f"{ablations.VARIANTS}: no variant {variant!r}; there are {', '.join(variants | comparisons)}"
        )
    take_in_replies()
    folder = ablations.build(variant, (variants | comparisons)[variant])
    if variant in comparisons:
        ablations.take_finished_runs(folder)
        run_in(folder, "")
        with chdir(folder):
            compared = ablations.comparison(truth) | {"costs": method_costs.collect()}
        files.write_json(ablations.COMPARISONS / f"{variant}.json", compared)
        return
    method = ablations.method_of(variants[variant])
    run_in(folder, method)
    with chdir(folder):
        result = ablations.result(seeds, method, truth)
    files.write_json(result_file(variant), result.model_dump())


def run_in(folder: Path, method: str) -> None:
    for arguments in ablations.stages(method):
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why


def take_in_replies() -> None:
    """What LTGC itself asked may have been pulled, and be in no pool of this machine yet."""
    settings = params.load("servers", "llm", "t2i")
    for name in ("extend", "templates", "generate"):
        with Store(STORE / name, [settings.llm, settings.t2i], share=False):
            pass


def result_file(variant: str) -> Path:
    return ablations.RESULTS / f"{variant}.json"


if __name__ == "__main__":
    stage.run(main)
