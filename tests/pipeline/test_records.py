"""Records in the numbers of ImageNet-LT: half a million of them fit in memory and are written as they come."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import EXTENDED, ExtendedDescription


def descriptions(count: int) -> Iterator[ExtendedDescription]:
    for index in range(count):
        yield ExtendedDescription(
            label=1, class_name="daisy", index=index, round=1, description=f"A photo of the class daisy, {index}",
            features=f"{index} petals", scene=None, kept=True, reason=None,
        )  # fmt: skip


@pytest.fixture
def memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_records_are_written_as_they_come(tmp_path: Path, memory: None) -> None:
    files.write_jsonl(tmp_path / EXTENDED, descriptions(5000))
    _, peak = tracemalloc.get_traced_memory()
    assert (tmp_path / EXTENDED).stat().st_size > 700_000 > 2 * peak
    assert files.read_jsonl(tmp_path / EXTENDED, ExtendedDescription) == list(descriptions(5000))


def test_a_record_takes_the_memory_of_its_values(tmp_path: Path, memory: None) -> None:
    files.write_jsonl(tmp_path / EXTENDED, descriptions(1000))
    before, _ = tracemalloc.get_traced_memory()
    read = files.read_jsonl(tmp_path / EXTENDED, ExtendedDescription)
    after, _ = tracemalloc.get_traced_memory()
    assert (after - before) / len(read) < 1000  # bytes; with a set of field names in each record 1,500


def test_a_copy_of_a_record_leaves_the_others_as_they_are() -> None:
    first, second = descriptions(2)
    dropped = first.model_copy(update={"kept": False, "reason": "repeats"})
    assert (dropped.kept, first.kept, second.kept) == (False, True, True)
    assert dropped.model_dump(exclude_unset=True) == dropped.model_dump()
