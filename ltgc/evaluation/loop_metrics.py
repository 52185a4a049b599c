"""What the loops did: descriptions asked, kept and dropped, images accepted and rejected, and at what cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from ltgc.data import images
from ltgc.data.truth import DrawingTruth, Truth
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt, RealScore, Verdict


def describe(existing: Iterable[ExistingDescription]) -> dict[str, Any]:
    """Images asked about, and what became of the replies (§3.1.1)."""
    replies = 0
    reasons: Counter[str | None] = Counter()
    for d in existing:
        replies += d.replies
        reasons[_dropped(d)] += 1
    return {
        "asked": reasons.total(),
        "kept": reasons.pop(None, 0),
        "dropped": _sorted(reasons),
        "replies": replies,
    }


def extend(extended: Iterable[ExtendedDescription], classes: Sequence[ClassRecord], target: int) -> dict[str, Any]:
    """Descriptions asked for (K_y - M_y over the tail classes), received, kept and dropped (§3.1.2).

    feedback: how many of those kept rounds of feedback asked for, which is besides K_y.
    """
    tail = [c for c in classes if c.train < target]
    feedback = 0
    reasons: Counter[str | None] = Counter()
    for d in extended:
        feedback += d.kept and d.feedback > 0
        reasons[_dropped(d)] += 1
    return {
        "classes": len(tail),
        "asked": sum(target - c.train for c in tail),
        "received": reasons.total(),
        "kept": reasons.pop(None, 0),
        "dropped": _sorted(reasons),
    } | ({"feedback": feedback} if feedback else {})


def _dropped(description: ExistingDescription | ExtendedDescription) -> str | None:
    """Why it was dropped; None where it was kept."""
    return None if description.kept else description.reason or "unknown"


def templates(class_templates: Sequence[ClassTemplate]) -> dict[str, Any]:
    """How many classes got a template from the LLM, why others did not (§3.1.3), how many a person wrote."""
    written = sum(t.source == "review" for t in class_templates)
    return {
        "classes": len(class_templates),
        "llm": sum(t.source == "llm" for t in class_templates),
        "class_name": _reasons(t.reason for t in class_templates if t.source == "class_name"),
    } | ({"review": written} if written else {})


class End(NamedTuple):
    """What became of a description that was drawn."""

    round: int
    verdict: Verdict
    reason: str | None


def generate(attempts: Iterable[Attempt], real: Iterable[RealScore]) -> dict[str, Any]:
    """What became of the descriptions that were drawn: each counts once, under its last attempt (Fig. 5).

    And how many real images the filter would turn down.
    """
    drawn = 0
    ends: dict[tuple[int, int], End] = {}  # (label, index) ->
    for a in attempts:
        drawn += a.image is not None
        key, end = (a.label, a.index), End(a.round, a.verdict, a.reason)
        if key not in ends or ends[key].round < a.round:
            ends[key] = end
    last = list(ends.values())
    below = Counter(r.score < r.threshold for r in real)
    return {
        "descriptions": len(last),
        "drawn": drawn,
        "accepted": sum(a.verdict == "accepted" for a in last),
        "at_once": sum(a.verdict == "accepted" and a.round == 0 for a in last),
        "after_refinement": sum(a.verdict == "accepted" and a.round > 0 for a in last),
        "rejected": sum(a.verdict == "rejected" for a in last),
        "failed": _reasons(a.reason for a in last if a.verdict == "failed"),
        "rounds": _mean_and_max(a.round for a in last),
        "real_scored": below.total(),
        "real_below_threshold": below[True],
    }


def refinement_chains(attempts: Iterable[Attempt]) -> Iterable[list[Attempt]]:
    """The attempts of each description, in the order of their rounds; chains by label and index."""
    chains: dict[tuple[int, int], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        chains[attempt.label, attempt.index].append(attempt)
    for key in sorted(chains):
        yield sorted(chains[key], key=lambda attempt: attempt.round)


def checks(
    attempts: Iterable[Attempt],
    extended: Sequence[ExtendedDescription],
    existing: Sequence[ExistingDescription],
    truth: Truth,
) -> dict[str, Any]:
    """How right the two checks are, by what is known of a drawn data set."""
    return {
        "filter": filter_quality(attempts, truth),
        "repetition_check": repetition_quality(extended, existing, truth),
    }


def filter_quality(attempts: Iterable[Attempt], truth: DrawingTruth) -> dict[str, Any]:
    """How right CLIP's detection is, over all drawings that were scored.

    precision, recall: of finding the wrong drawings, those that do not represent their class; a drawing is flagged
    if its score is below the threshold. auroc: the chance that a right drawing scores above a wrong one, in score
    less threshold. Wrong drawings are counted by cause: the description named what the class never shows, or the
    drawing disobeyed it.
    """
    flagged, wrong, margins, misdescribed = [], [], [], []
    for a in attempts:
        if a.image is None or a.score is None or a.threshold is None:
            continue
        represents = truth.represents(images.read(a.image), a.class_name)
        if represents is not None:
            flagged.append(a.score < a.threshold)
            wrong.append(not represents)
            margins.append(a.score - a.threshold)
            misdescribed.append(not truth.describes(a.prompt, a.class_name))
    checked = list(zip(flagged, wrong, strict=True))
    found_by_cause = [(f, m) for f, w, m in zip(flagged, wrong, misdescribed, strict=True) if w]
    return precision_recall(checked) | {
        "auroc": _auroc(margins, wrong),
        "wrong_share_drawn": _share(wrong),
        "wrong_share_accepted": _share(w for f, w in checked if not f),
        "right_accepted": _share(not f for f, w in checked if not w),
        "description_wrong": _caught(f for f, m in found_by_cause if m),
        "drawing_disobeyed": _caught(f for f, m in found_by_cause if not m),
    }


def _auroc(margins: Sequence[float], wrong: Sequence[bool]) -> float | None:
    right = [margin for margin, w in zip(margins, wrong, strict=True) if not w]
    if not right or len(right) == len(margins):
        return None
    from scipy.stats import mannwhitneyu

    below = [margin for margin, w in zip(margins, wrong, strict=True) if w]
    return round(float(mannwhitneyu(right, below).statistic) / len(right) / len(below), 3)


def _share(values: Iterable[bool]) -> float | None:
    """The share of `values` that are true, with 3 decimals; None of nothing."""
    found = list(values)
    return round(sum(found) / len(found), 3) if found else None


def _caught(flagged: Iterable[bool]) -> dict[str, Any]:
    found = list(flagged)
    return {"drawn": len(found), "flagged": sum(found)}


def repetition_quality(
    extended: Sequence[ExtendedDescription], existing: Sequence[ExistingDescription], truth: Truth
) -> dict[str, Any]:
    """Precision and recall of the repetition check, over the descriptions that reached it.

    Positive: repeats an earlier description of its class. Flagged: dropped as "repeats".
    """
    known: dict[str, list[str]] = defaultdict(list)
    for d in existing:
        if d.kept and d.description is not None:
            known[d.class_name].append(d.description)
    reached: dict[str, list[ExtendedDescription]] = defaultdict(list)
    for e in sorted(extended, key=lambda e: (e.label, e.index)):
        if e.kept or e.reason == "repeats":
            reached[e.class_name].append(e)
    pairs = []
    for name, entries in reached.items():
        repeats = truth.repeats(known[name], [e.description for e in entries])
        pairs += [(not e.kept, is_repeat) for e, is_repeat in zip(entries, repeats, strict=True)]
    return precision_recall(pairs)


def precision_recall(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Counts and fractions (3 decimals; None over nothing) of (flagged, positive) pairs."""
    hits = sum(flagged and positive for flagged, positive in pairs)
    flagged = sum(flagged for flagged, _ in pairs)
    positives = sum(positive for _, positive in pairs)
    return {
        "checked": len(pairs),
        "flagged": flagged,
        "positive": positives,
        "precision": round(hits / flagged, 3) if flagged else None,
        "recall": round(hits / positives, 3) if positives else None,
    }


def score_rows(attempts: Iterable[Attempt], real: Iterable[RealScore]) -> Iterator[dict[str, Any]]:
    """Rows of plots/scores.csv: scored attempts and real images (verdict "real"), to set μ by looking.

    margin: score - threshold, comparable over classes.
    """
    drawn = ((a.class_name, a.round, a.score, a.threshold, a.verdict) for a in attempts)
    photos = ((r.class_name, None, r.score, r.threshold, "real") for r in real)
    for name, round_, score, threshold, kind in chain(drawn, photos):
        if score is not None and threshold is not None:
            row = (name, round_, score, threshold, round(score - threshold, 6), kind)
            yield dict(zip(SCORE_FIELDS, row, strict=True))


SCORE_FIELDS = ["class", "round", "score", "threshold", "margin", "verdict"]


def _reasons(reasons: Iterable[str | None]) -> dict[str, int]:
    return _sorted(Counter(reason or "unknown" for reason in reasons))


def _sorted(counts: Mapping[Any, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _mean_and_max(values: Iterable[int]) -> Mapping[str, float]:
    numbers = list(values)
    return {"mean": round(sum(numbers) / len(numbers), 2) if numbers else 0, "max": max(numbers, default=0)}
