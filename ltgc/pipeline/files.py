"""Reading and writing artifacts: JSON Lines, JSON or CSV, so that git and people can diff them.

Every write is atomic: a file appears whole under its name or not at all.
"""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from ltgc.pipeline.errors import LTGCError


class Record(BaseModel):
    """One line of an artifact. Unknown fields are errors: a stale artifact is noticed, not misread."""

    model_config = ConfigDict(extra="forbid")

    def model_post_init(self, context: Any) -> None:
        # pydantic keeps the names of the given fields in a set of each record: half of a record's memory. Here all
        # records of a class share one set: ImageNet-LT has half a million records.
        object.__setattr__(self, "__pydantic_fields_set__", _field_names(type(self)))


@cache
def _field_names(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) so that `path` holds either all of it or what it held before."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either all of it or what it held before, also after a power cut."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """`write_bytes` of all `chunks`, which need not fit into memory together."""
    with replaced_file(path) as file:
        file.writelines(chunks)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """An empty file to write inside the block; where the block succeeds it takes the name `path`.

    Where the block fails, `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def _beside(path: Path) -> Path:
    """Where this thread writes what is to become `path`."""
    _clean(path.parent.absolute())
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")


@cache
def _clean(folder: Path) -> None:
    """Remove what killed processes left in `folder`; once, as a store holds a file of each class."""
    for part in folder.glob(".*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[2].partition("-")[0]
        if owner.isdecimal() and int(owner) != os.getpid() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last over a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill inside the block; where the block succeeds it takes the place of `folder`.

    Where the block fails, `folder` stays as it was.
    """
    part = _beside(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        while True:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                part.rename(folder)
                break
            except OSError as error:
                # Another process may have put its own there in between.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bad_file(path: object, why: object) -> LTGCError:
    """The error for a file of the user's that cannot be used."""
    return LTGCError(f"{path}: {why}; replace or remove it and run `dvc repro`")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    # Line by line: the attempts of ImageNet-LT are 200 MB.
    write_chunks(path, map(json_line, records))


def json_line(record: Record) -> bytes:
    """The line of a JSON Lines file that holds `record`."""
    return f"{record.model_dump_json()}\n".encode()


def write_csv(path: Path, rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> None:
    """Write `rows` under the header `fields` (written even when there are no rows).

    A text that a spreadsheet would run as a formula gets an apostrophe in front, which `read_csv` takes away.
    """
    with replaced_file(path) as binary:
        # Row by row: the scores of iNaturalist 2018 are a million.
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        quoting = csv.DictWriter(file, fields, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row in rows:
            safe = {name: f"'{value}" if _is_formula(value) else value for name, value in row.items()}
            # csv quotes no \r (macOS names a file "Icon\r"), at which its reader ends the line.
            torn = any(isinstance(value, str) and "\r" in value for value in safe.values())
            (quoting if torn else writer).writerow(safe)
        file.detach()


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "'"))


R = TypeVar("R", bound=Record)


def write_records_csv(path: Path, records: Iterable[Record], model: type[Record]) -> None:
    write_csv(path, (r.model_dump() for r in records), list(model.model_fields))


def read_jsonl(path: Path, model: type[R]) -> list[R]:
    return list(each_jsonl(path, model))


def each_jsonl(path: Path, model: type[R]) -> Iterator[R]:
    """The records of `read_jsonl` one after another: as a list, those of iNaturalist 2018 take a gigabyte."""
    check_exists(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield parsed(path, number, model, line)


def read_csv(path: Path, model: type[R]) -> list[R]:
    return list(each_csv(path, model))


def each_csv(path: Path, model: type[R]) -> Iterator[R]:
    """The records of `read_csv` one after another."""
    check_exists(path)
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            # CSV has no null: an empty cell is None.
            yield _validate(path, number, model, {key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    return value.removeprefix("'") or None if isinstance(value, str) else value


def read_json(path: Path) -> Any:
    check_exists(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise LTGCError(f"{path}: not JSON ({error}); run `dvc repro` to make it again") from error


def read_record(path: Path, model: type[R]) -> R:
    """One record, written by `write_json`."""
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        raise LTGCError(_bad_line(path, 1, model, error)) from error


def check_exists(path: Path) -> None:
    """Raises LTGCError for an artifact that is not there."""
    if not path.exists():
        raise LTGCError(f"{path}: not there; run `dvc repro` to make it")


def parsed(path: Path, number: int, model: type[R], line: bytes) -> R:
    """The record in line `number` (from 1) of a JSON Lines file. Raises LTGCError naming file and line."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise LTGCError(_bad_line(path, number, model, error)) from error


def _validate(path: Path, number: int, model: type[R], row: dict[str, Any]) -> R:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise LTGCError(_bad_line(path, number, model, error)) from error


def _bad_line(path: Path, number: int, model: type[Record], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the line"
    return f"{path}, line {number}: {where}: {first['msg']} (expected a {model.__name__})"
