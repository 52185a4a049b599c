"""Stage compare: mean and standard deviation of every method over the seeds, and paired differences to BalanceMix.

python -m stages.compare
"""

from ltgc import artifacts, compare, params, stage
from ltgc.artifacts import AskMetrics


def main() -> None:
    section = params.load("methods", "seeds", "compare")
    results = compare.read_results(section.methods, section.seeds)
    asked = artifacts.read_record(artifacts.ASK, AskMetrics)

    comparison = compare.summarise(results.runs)
    artifacts.write_json(artifacts.COMPARE, comparison | compare.lmm_row(asked))
    artifacts.write_json(artifacts.PAIRED, compare.differences(results.runs))
    fields = ["method", "metric", "mean", "std", *(f"seed_{seed}" for seed in section.seeds)]
    artifacts.write_csv(artifacts.COMPARE_PLOT, compare.plot_rows(results.runs, section.seeds), fields)
    rows = compare.per_class_rows(results.accuracies)
    artifacts.write_csv(artifacts.PER_CLASS_PLOT, rows, compare.PER_CLASS_FIELDS)
    compare.print_tables(results.skipped)


if __name__ == "__main__":
    stage.run(main)
