"""Stage ablate: the loops, BalanceMix and its evaluation with some keys changed; or the table of all variants.

python -m stages.ablate no_repetition_check
python -m stages.ablate
"""

from contextlib import chdir
from pathlib import Path

from ltgc import ablations, artifacts, params, stage
from ltgc.errors import LTGCError
from stages import evaluate, extend, generate, quality, templates, train


def main(variant: str = "") -> None:
    variants = ablations.variants()
    seeds = params.load("seeds").seeds
    if not variant:
        results = {name: artifacts.read_record(place(name), ablations.Result) for name in variants}
        rows = ablations.rows({ablations.LTGC: ablations.result(seeds)} | results)
        artifacts.write_json(ablations.TABLE, {name: row.model_dump() for name, row in rows.items()})
        ablations.print_table()
        return
    if variant not in variants:
        raise LTGCError(f"{ablations.VARIANTS}: no variant {variant!r}; there are {', '.join(variants)}")
    with chdir(ablations.build(variant, variants[variant])):
        for loop in (extend, templates, generate, quality):
            loop.main()
        for seed in seeds:
            train.main(ablations.METHOD, str(seed))
        evaluate.main(ablations.METHOD)
        result = ablations.result(seeds)
    artifacts.write_json(place(variant), result.model_dump())


def place(variant: str) -> Path:
    return ablations.RESULTS / f"{variant}.json"


if __name__ == "__main__":
    stage.run(main)
