"""Stage compare: mean and standard deviation of every method over the seeds, as one metrics file and two plots.

python -m stages.compare
"""

from ltgc import artifacts, compare, params, stage


def main() -> None:
    section = params.load("methods", "seeds")
    results = compare.read_results(section.methods, section.seeds)

    comparison = compare.summarise(results.runs)
    artifacts.write_json(artifacts.COMPARE, comparison)
    fields = ["method", "metric", "mean", "std", *(f"seed_{seed}" for seed in section.seeds)]
    artifacts.write_csv(artifacts.COMPARE_PLOT, compare.plot_rows(results.runs, section.seeds), fields)
    rows = compare.per_class_rows(results.accuracies)
    artifacts.write_csv(artifacts.PER_CLASS_PLOT, rows, compare.PER_CLASS_FIELDS)
    compare.print_table(compare.table(comparison, results.skipped))


if __name__ == "__main__":
    stage.run(main)
