"""The tables of docs/results.md and docs/systems.md, from the artifacts that their commands write.

No figure in them is typed by hand.

python -m tools.results_page        # fills in the tables; a test compares them with the artifacts

A table stands between `<!-- table NAME: COMMAND -->` and `<!-- end -->`. Where the command has not run it says so.
"""

import re
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltgc.clients import method_costs
from ltgc.evaluation import ablations, uncertainty
from ltgc.evaluation.comparison import LMM, METRICS, Comparison, Statistic, best, beyond_noise, control, statistic
from ltgc.evaluation.tables import detectable, signed, spread
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.results import COMPARE, LOOPS, PAIRED

PAGES = [Path("docs/results.md"), Path("docs/systems.md")]
FEEDBACK = [ablations.COMPARISONS / name for name in ("feedback.json", "feedback_photos.json")]
COSTS_NOTE = (
    "USD: the calls with `{CHAT}`, without thinking, and the drawings with `{PAINTER[model]}` ({PAINTER[size]}, "
    "`quality: {PAINTER[quality]}`)."
).format_map(vars(method_costs))
WIDTH = 125  # of a line of text, as elsewhere in docs/
TABLE = re.compile(r"(<!-- table (\w+): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, root: Path = Path()) -> str:
    """The page with its tables as the artifacts below `root` have them. Raises KeyError for an unknown table."""

    def filled(match: re.Match[str]) -> str:
        begin, name, command, end = match.groups()
        lines = TABLES[name](root)
        return begin + (lines if lines else f"*Not run yet: `{command}`*\n") + end

    return TABLE.sub(filled, text)


def methods(root: Path) -> str | None:
    """The default: accuracy, and the differences to the control."""
    if not (root / COMPARE).exists():
        return None
    compared, paired = files.read_json(root / COMPARE), files.read_json(root / PAIRED)
    text = both(compared, paired)
    if LMM in compared and (asked := files.read_record(root / ASK, AskMetrics)).images < asked.of:
        text += f"\n`{LMM}` saw {asked.images:,} of the {asked.of:,} test images, the other rows all.\n"
    return text


def compared(name: str, with_costs: bool = False) -> Callable[[Path], str | None]:
    """The same of a comparison with other keys (ablations/variants.yaml), and what its methods take."""

    def table(root: Path) -> str | None:
        file = root / ablations.COMPARISONS / f"{name}.json"
        if not file.exists():
            return None
        return one(files.read_json(file), with_costs)

    return table


def one(found: Mapping[str, Any], with_costs: bool) -> str:
    text = both(found["compare"], found["paired"])
    if "filter" in found.get("loops", {}):
        text += f"\n{accepted(found['loops']['filter'])}\n"
    return text + costs(found["costs"]) if with_costs else text


def costs(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What each method takes, with the calls and drawings at the prices of hosted models."""
    rows = {
        method: [
            f"{c['trained_parameters']:,}",
            "–" if c["seconds"] is None else f"{c['seconds']:,.0f}",
            *(f"{c[count]:,}" for count in ("drawings", "calls")),
            "–" if c["hosted_usd"] is None else f"{c['hosted_usd']:.2f}",
        ]
        for method, c in found.items()
    }
    table = markdown("method", ["trained weights", "training, s", "drawings", "calls", "USD"], rows)
    return f"\nWhat each takes:\n\n{table}\n{COSTS_NOTE}\n"


def accepted(found: Mapping[str, Any]) -> str:
    """What the filter did, in one sentence."""
    right, drawn, kept = (
        percent(found[f]) for f in ("right_accepted", "wrong_share_drawn", "wrong_share_accepted")
    )
    return f"The filter accepted {right} of the right drawings; {drawn} of all were wrong, {kept} of the accepted."


def both(compare: Comparison, paired: Comparison) -> str:
    text = accuracies(compare)
    if paired and (reference := control(compare)):
        text += f"\nEach less the control, `{reference}`, in points:\n\n{differences(paired)}"
    return text


def accuracies(compare: Comparison) -> str:
    rows = {
        method: [bold(spread(value), method in best(compare, metric)) for metric, value in metrics.items()]
        for method, metrics in compare.items()
    }
    return markdown("method", METRICS.values(), rows)


def differences(paired: Comparison) -> str:
    rows = {
        method: [bold(signed(value), beyond_noise(value)) for value in metrics.values()]
        for method, metrics in paired.items()
    }
    note = detectable(paired)
    return markdown("method", METRICS.values(), rows) + (f"\n{note[0].upper()}{note[1:]}.\n" if note else "")


def variants(root: Path) -> str | None:
    """The ablations: each variant, and what it is less the unchanged pipeline with the same method."""
    if not (root / ablations.TABLE).exists():
        return None
    found = {n: ablations.Row.model_validate(r) for n, r in files.read_json(root / ablations.TABLE).items()}
    rows = {
        name: [r.method, f"{r.generated:,}", *map(spread, r.accuracy.values()), *less(r.less_ltgc)]
        for name, r in found.items()
    }
    note = detectable({name: r.less_ltgc for name, r in found.items() if r.less_ltgc})
    text = markdown("variant", ["method", "drawings", *METRICS.values(), "All, less", "Few, less"], rows)
    return text + (f"\n{note[0].upper()}{note[1:]}.\n" if note else "")


def filters(root: Path) -> str | None:
    """The default filter and the variants that change it: how right each is, and what it asks."""
    if not (root / ablations.TABLE).exists():
        return None
    found = {n: ablations.Row.model_validate(r) for n, r in files.read_json(root / ablations.TABLE).items()}
    rows = {
        name: [
            "–" if r.filter["auroc"] is None else f"{r.filter['auroc']:.3f}",
            *(
                percent(r.filter[share])
                for share in ("right_accepted", "wrong_share_drawn", "wrong_share_accepted")
            ),
            *(f"{r.filter[count]:,}" for count in ablations.ASKED),
            spread(r.accuracy["all"]),
        ]
        for name, r in found.items()
        if r.filter and (name == ablations.LTGC or "filter" in name)
    }
    headings = ["AUROC", "right accepted", "wrong of drawn", "wrong of accepted"]
    return markdown("filter", [*headings, "drawings", "LLM calls", "vision calls", "All"], rows) if rows else None


def less(difference: Mapping[str, Statistic] | None) -> list[str]:
    if difference is None:
        return ["–", "–"]
    return [bold(signed(difference[metric]), beyond_noise(difference[metric])) for metric in ("all", "few")]


def photos(name: str, with_costs: bool = False) -> Callable[[Path], str | None]:
    """Real photos: the drawings of the photos' own domain, and with a style over them."""

    def table(root: Path) -> str | None:
        file = root / ablations.COMPARISONS / f"{name}.json"
        if not file.exists():
            return None
        worlds = files.read_json(file).items()
        return "\n".join(f"**{spoken(world)}**\n\n{one(found, with_costs)}" for world, found in worlds)

    return table


def feedback(root: Path) -> str | None:
    """Rounds of feedback and their controls, of each world the mean over its generations."""
    found: dict[str, dict[str, Any]] = {}
    for file in FEEDBACK:
        found |= files.read_json(root / file) if (root / file).exists() else {}
    return "\n".join(feedback_world(name, list(runs.values())) for name, runs in found.items()) or None


def feedback_world(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    rows, less = {}, {}
    for row in runs[0]["rows"]:
        of_runs = [run["rows"][row] for run in runs]
        costs = [statistics.fmean(run["cost"][what] for run in of_runs) for what in ("calls", "drawings")]
        tokens = statistics.fmean(r["cost"]["prompt_tokens"] + r["cost"]["completion_tokens"] for r in of_runs)
        shares = [percent(statistics.fmean(run[share] for run in of_runs)) for share in ("right", "apart")]
        accuracy = [spread(statistic([run["accuracy"][metric] for run in of_runs])) for metric in ("all", "few")]
        counts = [*costs, statistics.fmean(run["accepted"] for run in of_runs), tokens / 1000]
        rows[spoken(row)] = [*(f"{count:,.0f}" for count in counts), *shares, *accuracy]
    for pair in runs[0]["less"]:
        found = [over_generations([run["less"][pair][metric] for run in runs]) for metric in ("all", "few")]
        less[spoken(pair)] = [bold(signed(value), beyond_noise(value)) for value in found]
    told = {key: statistics.fmean(run["foretold"][key] for run in runs) for key in runs[0]["foretold"]}
    count = f"{len(runs)} generation{'s' if len(runs) > 1 else ''}"
    headings = ["calls", "drawings", "accepted", "1,000 tokens", "right", "apart", "All", "Few"]
    lines = [
        f"Of {told['errors']:.0f} wrong test images of its classes {percent(told['by_rivals'])} were taken for a "
        "rival that the first round names.",
        *(f"{percent(told[k])} could be of the class they were taken for." for k in told if k == "ambiguous"),
        f"Rank correlation of need and error: {told['need_and_error']:.2f}.",
    ]
    tables = [
        markdown("", headings, rows),
        markdown("points", ["All", "Few"], less),
        textwrap.fill(" ".join(lines), WIDTH) + "\n",
    ]
    return "\n".join([f"**{spoken(name)}**, {count}\n", *tables])


def over_generations(differences: Sequence[Mapping[str, float]]) -> Statistic:
    """The mean difference; its margin covers generations, if there are several, and test images."""
    found = statistic([difference["mean"] for difference in differences])
    of_images = statistics.fmean(difference["image_std"] for difference in differences)
    margin = uncertainty.margin(found["std"] or 0.0, len(differences), of_images)
    return found | {"margin": 1.96 * of_images if margin is None else margin}


def spoken(name: str) -> str:
    return name.replace("_", " ")


def checks(root: Path) -> str | None:
    """How right the filter and the repetition check are, where the truth is known."""
    loops = files.read_json(root / LOOPS) if (root / LOOPS).exists() else {}
    if not {"filter", "repetition_check"} <= loops.keys():
        return None
    found, repeats = loops["filter"], loops["repetition_check"]
    wrong, disobeyed = found["description_wrong"], found["drawing_disobeyed"]
    rows = {
        "drawings checked": f"{found['checked']:,}",
        "wrong of those drawn": percent(found["wrong_share_drawn"]),
        "wrong of those accepted": percent(found["wrong_share_accepted"]),
        "right ones accepted": percent(found["right_accepted"]),
        "AUROC of the score": f"{found['auroc']:.3f}",
        "found, of those whose description was wrong already": f"{wrong['flagged']:,} of {wrong['drawn']:,}",
        "found, of those that disobeyed their description": f"{disobeyed['flagged']:,} of {disobeyed['drawn']:,}",
        "repeats that the repetition check drops": percent(repeats["recall"]),
        "repeats among what it drops": percent(repeats["precision"]),
    }
    return markdown("", [""], {name: [value] for name, value in rows.items()})


def generations(root: Path) -> str | None:
    """Our recipe and the filter with other seeds of the language and the text-to-image model."""
    rows = {}
    for name in ("default", "generation_1", "generation_2"):
        file = root / ablations.COMPARISONS / f"{name}.json"
        if name != "default" and not file.exists():
            return None
        found = files.read_json(file) if name != "default" else of_default(root)
        if found is None or "ltgc_plus" not in found["compare"]:
            return None
        ours, seen = (found["compare"]["ltgc_plus"], found["paired"]["ltgc_plus"]), found["loops"]["filter"]
        rows[name] = [values[metric]["mean"] for values in ours for metric in ("all", "few")]
        rows[name] += [100 * seen["right_accepted"], 100 * seen["wrong_share_accepted"]]
    cells = {name: [f"{value:.1f}" for value in values] for name, values in rows.items()}
    cells["mean±std"] = [spread(statistic(values)) for values in zip(*rows.values(), strict=True)]
    headings = ["All", "Few", "All, less", "Few, less", "right accepted", "wrong of accepted"]
    return markdown("llm.seed, t2i.seed", headings, cells)


def of_default(root: Path) -> dict[str, Any] | None:
    if not (root / COMPARE).exists():
        return None
    return {name: files.read_json(root / path) for name, path in
            (("compare", COMPARE), ("paired", PAIRED), ("loops", LOOPS))}  # fmt: skip


def percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def markdown(first: str, headings: Any, rows: Mapping[str, Sequence[str]]) -> str:
    headings = list(headings)
    lines = [row([first, *headings]), "|---" + "|--:" * len(headings) + "|"]
    lines += [row([f"`{name}`" if name.isidentifier() else name, *cells]) for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[Path], str | None]] = {
    "methods": methods,
    "five_seeds": compared("five_seeds"),
    "systems": compared("systems", with_costs=True),
    "systems_gap": compared("systems_gap", with_costs=True),
    "systems_starts": compared("systems_starts", with_costs=True),
    "systems_starts_gap": compared("systems_starts_gap", with_costs=True),
    "domain_gap": compared("domain_gap"),
    "generations": generations,
    "variants": variants,
    "filters": filters,
    "photo_world": photos("photo_world"),
    "photo_systems": photos("photo_systems", with_costs=True),
    "photo_systems_starts": photos("photo_systems_starts", with_costs=True),
    "feedback": feedback,
    "checks": checks,
}


def main() -> None:
    for path in PAGES:
        files.write_text(path, page(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
