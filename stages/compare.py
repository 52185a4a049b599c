"""Stage compare: mean and standard deviation of every method over the seeds, and differences to the control.

python -m stages.compare
"""

from ltgc.evaluation.comparison import (
    PER_CLASS_FIELDS,
    comparison_rows,
    differences_to_control,
    lmm_row,
    per_class_rows,
    read_results,
    summarise,
)
from ltgc.evaluation.tables import print_tables
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.results import COMPARE, COMPARE_PLOT, PAIRED, PER_CLASS_PLOT


def main() -> None:
    section = params.load("methods", "seeds", "compare")
    results = read_results(section.methods, section.seeds)
    asked = files.read_record(ASK, AskMetrics)

    comparison = summarise(results.runs)
    files.write_json(COMPARE, comparison | lmm_row(asked))
    files.write_json(PAIRED, differences_to_control(results, section.seeds))
    fields = ["method", "metric", "mean", "std", *(f"seed_{seed}" for seed in section.seeds)]
    files.write_csv(COMPARE_PLOT, comparison_rows(results.runs, section.seeds), fields)
    rows = per_class_rows(results.accuracies)
    files.write_csv(PER_CLASS_PLOT, rows, PER_CLASS_FIELDS)
    print_tables(results.skipped)


if __name__ == "__main__":
    stage.run(main)
