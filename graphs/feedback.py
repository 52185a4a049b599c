"""What the rounds of feedback ask for (feedback/rivals.jsonl), as the stage extend and `ltgc estimate` read it."""

from collections import defaultdict
from collections.abc import Collection

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.feedback import RIVALS, Feedback
from ltgc.pipeline.terminal import console


def load(tail: Collection[str]) -> dict[str, list[Feedback]]:
    """Name of a class -> its rounds in order. tail: the classes that are filled up; others go to the terminal."""
    rounds: dict[str, list[Feedback]] = defaultdict(list)
    for line in files.read_jsonl(RIVALS, Feedback) if RIVALS.exists() else []:
        rounds[line.class_name].append(line)
    if others := sorted(rounds.keys() - set(tail)):
        console.print(f"{RIVALS}: {len(others):,} of its classes are not filled up here ({', '.join(others[:3])})")
    for lines in rounds.values():
        lines.sort(key=lambda line: line.round)
    return rounds
