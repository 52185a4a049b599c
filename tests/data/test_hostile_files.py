"""Files, names and images that break programs: each is used, or named in a finding or in one line."""

import io
import json
import os
import struct
from pathlib import Path

import pytest
from helpers.photo_folders import counts, put, section
from PIL import Image
from rich.console import Console

from ltgc.data import images
from ltgc.data.dataset import prepare_dataset
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import FINDINGS, ClassRecord, Finding
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import PlainConsole


def findings(root: Path, folder: Path, **changes: object) -> dict[str, str]:
    """path -> reason, through the file that the report reads."""
    files.write_records_csv(folder / FINDINGS, prepare_dataset(section(root, **changes)).findings, Finding)
    return {found.path: found.reason for found in files.read_csv(folder / FINDINGS, Finding)}


def test_files_of_a_mac_links_and_pipes_are_findings_and_hold_nothing_up(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    put(root / "rose", 9)
    put(tmp_path / "elsewhere", 2)
    (root / "rose" / "Icon\r").write_bytes(b"")
    (root / "rose" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    os.mkfifo(root / "rose" / "pipe.jpg")
    assert findings(root, tmp_path) == {
        "rose/Icon\r": "not an image file",
        "rose/linked": "a link to a folder",
        "rose/pipe.jpg": "not a file",
    }
    assert sum(counts(prepare_dataset(section(root)))["rose"]) == 9


def test_a_listed_pipe_is_a_bad_image(tmp_path: Path) -> None:
    put(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    lines = [f"a/{i:03d}.jpg 0" for i in range(4)] + ["a/pipe.jpg 0"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "names.txt").write_text("rose")
    changes = {"files": {"train": "train.txt", "val": None, "test": None}, "class_names": "names.txt"}
    with pytest.raises(LTGCError, match=r"pipe.jpg: not a file; replace or remove it"):
        prepare_dataset(section(tmp_path, source="list", **changes))


@pytest.mark.parametrize("where", ["class", "below"])
def test_a_folder_name_that_is_not_utf_8_is_refused(tmp_path: Path, where: str) -> None:
    folder = os.fsencode(tmp_path) + (b"/a\xff" if where == "class" else b"/rose/a\xff")
    put(tmp_path / "rose", 9)
    Path(os.fsdecode(folder)).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(os.fsdecode(folder + b"/1.jpg"))
    with pytest.raises(LTGCError, match=r"a\\xff.*: a name that is not UTF-8; rename it"):
        prepare_dataset(section(tmp_path))


@pytest.mark.parametrize("what", ["images", "annotations", "categories"])
def test_two_entries_of_one_id_in_inaturalists_json_are_refused(tmp_path: Path, what: str) -> None:
    put(tmp_path / "a", 3)
    content = {
        "images": [{"id": i, "file_name": f"a/{i:03d}.jpg"} for i in range(3)],
        "annotations": [{"image_id": i, "category_id": 0} for i in range(3)],
        "categories": [{"id": 0, "name": "Rosa canina"}],
    }
    content[what].append(content[what][0])
    (tmp_path / "train.json").write_text(json.dumps(content))
    changes = {"source": "inaturalist", "files": {"train": "train.json", "val": None, "test": None}}
    with pytest.raises(LTGCError, match=r"train.json: two .* 0; remove one"):
        prepare_dataset(section(tmp_path, **changes))


def test_names_reach_no_terminal_as_orders_and_no_spreadsheet_as_formulas(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("=cmd|' '!A0", "\x1b[2Jrose\x07", "'quoted"):
        put(root / name, 9)
    classes = prepare_dataset(section(root)).classes
    assert [c.name for c in classes] == ["'quoted", "=cmd|' '!A0", "[2Jrose"]
    files.write_records_csv(tmp_path / "classes.csv", classes, ClassRecord)
    assert ",\"'=cmd" in (text := (tmp_path / "classes.csv").read_text()) or ",'=cmd" in text
    assert files.read_csv(tmp_path / "classes.csv", ClassRecord) == classes
    shown = io.StringIO()
    PlainConsole(file=shown).print("a server said \x1b]0;title\x07 and \x9b2J")
    assert isinstance(PlainConsole(), Console) and not {"\x1b", "\x07", "\x9b"} & set(shown.getvalue())


def jpeg(exif: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0not tiff at all",
        b"Exif\0\0II*\0" + struct.pack("<I", 2**31),
        b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 9, 0x0112, 3, 1, 99),
        b"Exif\0\0MM\0*" + struct.pack(">IHHHII", 8, 1, 0x0112, 2, 2**30, 2**30),
        b"Exif\0\0II*\0\x08",
    ],
)
def test_broken_exif_is_read_or_a_bad_image(exif: bytes) -> None:
    try:
        assert images.decode(jpeg(exif)).size == (8, 8)
    except images.BadImage as bad:
        assert "truncated or corrupt" in str(bad)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "PCX", "TGA", "SGI"])
def test_formats_that_are_not_named_are_no_images(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, kind)
    with pytest.raises(images.BadImage, match="not an image"):
        images.decode(file.getvalue())
