"""Artifacts read class by class."""

from pathlib import Path

import pytest

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import EXISTING, ExistingDescription
from ltgc.pipeline.by_class import ByClass
from ltgc.pipeline.errors import LTGCError


def record(label: int, image: str) -> ExistingDescription:
    return ExistingDescription(
        label=label, class_name=f"rosé {label}", image=image, description="é", features=None, scene=None,
        kept=True, reason=None, replies=1,
    )  # fmt: skip


def test_the_records_of_a_class_are_found_wherever_they_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / EXISTING
    records = [record(label, f"{i}.png") for i, label in enumerate([3, 3, 0, 5, 0, 3])]
    files.write_jsonl(path, records)
    found = ByClass(path, ExistingDescription)
    assert list(found) == records and len(found) == 6
    assert found.labels == [3, 0, 5]
    assert {label: found.of(label) for label in (0, 3, 5, 7)} == {
        label: [r for r in records if r.label == label] for label in (0, 3, 5, 7)
    }


def test_a_bad_line_or_a_missing_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "existing.jsonl"
    with pytest.raises(LTGCError, match=r"existing\.jsonl: not there"):
        ByClass(path, ExistingDescription)
    path.write_bytes(files.json_line(record(0, "0.png")) + b'{"label": 1}\n')
    with pytest.raises(LTGCError, match=r"existing\.jsonl, line 2: class_name"):
        ByClass(path, ExistingDescription)
