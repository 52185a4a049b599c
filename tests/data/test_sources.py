"""The sources list, inaturalist, csv and cifar, and what is found out about images, on small real files."""

import gzip
import hashlib
import json
import pickle
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.photo_folders import counts, put, section
from PIL import Image, ImageDraw
from torchvision import datasets

from ltgc.data import images, near_duplicates, shards
from ltgc.data.dataset import Dataset, prepare_dataset
from ltgc.data.near_duplicates import nearest_hashes
from ltgc.data.roots import image_file, image_root
from ltgc.data.sources import lists
from ltgc.data.splits import shot_group
from ltgc.pipeline.errors import LTGCError

SPLITS = ROOT / "../shared/data/splits"
FILES = {"train": "train.txt", "val": None, "test": "test.txt"}


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        (root / name.replace("_txt", ".txt").replace("_json", ".json").replace("_csv", ".csv")).write_text(text)


def two_classes(root: Path) -> None:
    """Two classes in folders of WordNet ids, and their lists."""
    for wnid in ("n00000002", "n00000001"):
        put(root / "train" / wnid, 3)
        put(root / "val" / wnid, 1, start=50)
    write(
        root,
        train_txt="".join(f"train/n0000000{2 - label}/00{i}.jpg {label}\n" for label in (0, 1) for i in range(3)),
        test_txt="val/n00000002/050.jpg 0\r\nval/n00000001/050.jpg 1\r\n",
        names_txt="n00000002 red_fox\nn00000001 tench\n",
    )


def listed(root: Path, **changes: object):
    return section(root, **{"source": "list", "files": FILES, "class_names": "names.txt"} | changes)


# --- names ---


def test_imagenets_twin_names_are_told_apart_by_wordnet_id_and_other_twins_stay_an_error(tmp_path, capsys):
    ids = ["n03773504", "n04008634", "n04355933", "n04356056"]
    for wnid in ids:
        put(tmp_path / "train" / wnid, 2)
    lines = [f"train/{wnid}/00{{}}.jpg {label}\n" for label, wnid in enumerate(ids)]
    names = "missile\nmissile\nsunglasses\nsunglasses\n"
    write(
        tmp_path,
        train_txt="".join(line.format(0) for line in lines),
        test_txt="".join(line.format(1) for line in lines),
        names_txt=names,
    )
    dataset = prepare_dataset(listed(tmp_path))
    assert [c.name for c in dataset.classes] == ["missile", "projectile", "sunglass", "sunglasses"]
    assert "'missile' stands twice; n04008634 is called 'projectile'" in capsys.readouterr().err
    write(tmp_path, names_txt="crane\ncrane\nsunglass\nsunglasses\n")
    with pytest.raises(LTGCError, match="two classes of one name, 'crane'"):
        prepare_dataset(listed(tmp_path))


def test_a_class_hint_stands_behind_the_name(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "hints.csv").write_text("class,hint\ntench,a (freshwater) fish\n")
    dataset = prepare_dataset(listed(tmp_path, class_hints="hints.csv"))
    assert [c.name for c in dataset.classes] == ["red fox", "tench (a freshwater fish)"]
    (tmp_path / "hints.csv").write_text("class,hint\nred foxx,an animal\n")
    with pytest.raises(LTGCError, match="line 2: no class 'red foxx'; did you mean 'red fox'"):
        prepare_dataset(listed(tmp_path, class_hints="hints.csv"))
    (tmp_path / "hints.csv").write_text("tench;fish\n")
    with pytest.raises(LTGCError, match="its first line is not `class,hint`"):
        prepare_dataset(listed(tmp_path, class_hints="hints.csv"))


# --- lists ---


def test_lists_keep_their_labels_and_names_come_from_the_class_name_file(tmp_path: Path) -> None:
    two_classes(tmp_path)
    dataset = prepare_dataset(listed(tmp_path))
    assert counts(dataset) == {"red fox": (3, 0, 1), "tench": (3, 0, 1)}
    assert [c.name for c in dataset.classes] == ["red fox", "tench"]
    assert dataset.images[0].path == "train/n00000002/000.jpg"


@pytest.mark.parametrize(
    "names",
    [
        "red fox\ntench\n",  # a name a line
        "n00000001 tench\nn00000002 red fox\n",  # folders say which class is meant, not the order
        "1\ttench\n0\tred fox\n",  # so do labels
        "\ufeffn00000002 red fox\r\n\r\nn00000001 tench",  # as Windows writes it
    ],
)
def test_the_formats_of_class_names_that_circulate(tmp_path: Path, names: str) -> None:
    two_classes(tmp_path)
    write(tmp_path, names_txt=names)
    assert [c.name for c in prepare_dataset(listed(tmp_path)).classes] == ["red fox", "tench"]


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("", "/"),  # /a/x.jpg
        ("", "data_256/"),  # the archive's own folder
        ("", "./"),
        ("", "data/set/"),
    ],
)
def test_paths_begin_where_the_images_are_whatever_the_list_puts_before_them(
    tmp_path: Path, folder: str, prefix: str
) -> None:
    two_classes(tmp_path)
    for name in ("train.txt", "test.txt"):
        lines = (tmp_path / name).read_text().splitlines()
        (tmp_path / name).write_text("".join(f"{prefix}{line}\n" for line in lines))
    images = [image.path for image in prepare_dataset(listed(tmp_path)).images]
    assert all((tmp_path / path).is_file() for path in images) and len(images) == 8


def test_validation_images_without_class_folders_and_another_image_root_are_found(tmp_path: Path) -> None:
    lists, images = tmp_path / "lists", tmp_path / "images"
    two_classes(images)
    lists.mkdir()
    for name in ("train.txt", "test.txt", "names.txt"):
        (images / name).rename(lists / name)
    for label, wnid in enumerate(("n00000002", "n00000001")):
        (images / "val" / wnid / "050.jpg").rename(images / "val" / f"{label}.JPEG")
    (lists / "test.txt").write_text("val/n00000002/0.JPEG 0\nval/n00000001/1.JPEG 1\n")
    settings = listed(lists, images=images)
    dataset = prepare_dataset(settings)
    assert image_root(settings) == images
    assert [i.path for i in dataset.images if i.split == "test"] == ["val/0.JPEG", "val/1.JPEG"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": FILES | {"train": None}}, "data.files.train: not set"),
        ({"files": FILES | {"train": "gone.txt"}}, r"gone\.txt: No such file"),
        ({"class_names": None}, "data.class_names: not set"),
        ({"images": Path("/nowhere")}, "no listed image is below /nowhere .*data.images"),
        ({"train_txt": "train/n00000002/000.jpg\n"}, "line 1: .*is not `path label`"),
        ({"train_txt": "train/n00000002/000.jpg 7\n"}, "has the label 7, but there are 2"),
        ({"train_txt": "../secret.jpg 0\n"}, "not a path below"),
        ({"train_txt": "val/n00000002/050.jpg 0\n"}, "is listed twice"),
        ({"names_txt": "fox\nFox\n"}, "two classes of one name.*'label 0', 'label 1'"),
        ({"names_txt": "0 fox\n2 tench\n"}, "none names label 1"),
    ],
)
def test_a_wrong_list_is_named_with_its_line_or_key(tmp_path: Path, change: dict, message: str) -> None:
    two_classes(tmp_path)
    write(tmp_path, **{name: text for name, text in change.items() if name.endswith("_txt")})
    keys = {key: value for key, value in change.items() if not key.endswith("_txt")}
    with pytest.raises(LTGCError, match=message) as error:
        prepare_dataset(listed(tmp_path, **keys))
    assert "\n" not in str(error.value)


def test_one_list_is_split_by_fraction_and_a_missing_image_is_a_bad_one_verified_or_not(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "train/n00000001/002.jpg").unlink()
    (tmp_path / "train/n00000002/002.jpg").write_text("no image, which only decoding tells")
    one = listed(tmp_path, files={"train": "train.txt", "val": None, "test": None}, on_bad_image="skip")

    def bad(dataset: Dataset) -> list[tuple[str, str | None]]:
        return [(finding.path, finding.class_name) for finding in dataset.findings if finding.kind == "bad"]

    verified, unverified = prepare_dataset(one), prepare_dataset(one.model_copy(update={"verify": False}))
    assert counts(verified) == {"red fox": (1, 0, 1), "tench": (1, 0, 1)}
    assert bad(verified) == [("train/n00000001/002.jpg", "tench"), ("train/n00000002/002.jpg", "red fox")]
    assert counts(unverified) == {"red fox": (2, 0, 1), "tench": (1, 0, 1)}
    assert bad(unverified) == bad(verified)[:1]


@pytest.mark.skipif(not SPLITS.is_dir(), reason="no real lists here")
def test_the_real_lists_of_places_lt(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        text = gzip.decompress((SPLITS / f"Places_LT_{split}.txt.gz").read_bytes()).decode()
        (tmp_path / f"{split}.txt").write_text(text)
        first = tmp_path / text.split()[0]
        first.parent.mkdir(parents=True, exist_ok=True)
        first.touch()
    (tmp_path / "names.txt").write_text((SPLITS / "Places_LT_classnames.txt").read_text())
    listing = lists.read(listed(tmp_path, files=FILES | {"val": "val.txt"}))
    sizes = Counter(sample.label for sample in listing.samples if sample.split == "train")
    assert len(listing.names) == 365
    assert Counter(map(shot_group, sizes.values())) == {"many": 131, "medium": 163, "few": 71}
    assert Counter(s.split for s in listing.samples) == {"train": 62_500, "val": 7_300, "test": 36_500}
    # Line 117 of the class names is desert-sand, but label 116 is desert_road: the folders decide.
    assert listing.names[116] == "desert road"
    assert all(s.path.split("/")[1].replace("_", " ") == listing.names[s.label] for s in listing.samples)


# --- inaturalist ---


def competition(root: Path, names: bool = True) -> None:
    put(root / "train_val2018/Plantae/0", 3)
    put(root / "train_val2018/Aves/1", 3)
    ranks = [{"kingdom": "Plantae", "order": "Asterales", "family": "Asteraceae"}, {"kingdom": "Animalia"}]
    species = ["Bellis perennis", "Trogon rufus"] if names else ["0", "1"]
    categories = [{"id": i, "name": species[i]} | (ranks[i] if names else {}) for i in (1, 0)]
    write(root, categories_json=json.dumps(categories[::-1]))
    start = 0
    for split, of_folder in (("train", (0, 1)), ("val", (2,))):
        files = [f"train_val2018/{f}/{i:03d}.jpg" for f in ("Plantae/0", "Aves/1") for i in of_folder]
        images = [{"id": start + n, "file_name": file, "license": 3} for n, file in enumerate(files)]
        labels = [
            {"id": n, "image_id": i["id"], "category_id": int("Aves" in i["file_name"])}
            for n, i in enumerate(images)
        ]
        content = {"images": images, "annotations": labels, "categories": categories}
        content["licenses"] = [{"id": 3, "name": "CC  BY-NC\n4.0"}]
        (root / f"{split}.json").write_text(json.dumps(content))
        (root / f"{split}.txt").write_text("".join(f"{f} {int('Aves' in f)}\n" for f in files))
        start += len(files)


@pytest.mark.parametrize("suffix", ["json", "txt"])
def test_inaturalist_has_species_for_names_and_their_taxonomy_for_context(tmp_path: Path, suffix: str) -> None:
    competition(tmp_path)
    files = {"train": f"train.{suffix}", "val": None, "test": f"val.{suffix}"}
    dataset = prepare_dataset(section(tmp_path, source="inaturalist", files=files, class_names="categories.json"))
    assert counts(dataset) == {"Bellis perennis": (2, 0, 1), "Trogon rufus": (2, 0, 1)}
    assert [c.context for c in dataset.classes] == ["Plantae > Asterales > Asteraceae", "Animalia"]
    stated = ["CC BY-NC 4.0"] * 6 if suffix == "json" else []
    assert [photo.license for photo in dataset.licenses] == stated


def test_inaturalist_without_real_names_or_annotations_is_refused_by_key(tmp_path: Path) -> None:
    competition(tmp_path, names=False)
    files = {"train": "train.json", "val": None, "test": "val.json"}
    with pytest.raises(LTGCError, match=r"names are numbers; set data\.class_names"):
        prepare_dataset(section(tmp_path, source="inaturalist", files=files))
    content = json.loads((tmp_path / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(LTGCError, match=r"val\.json: image 4 has an image or an annotation only"):
        prepare_dataset(section(tmp_path, source="inaturalist", files=files))
    (tmp_path / "val.json").write_text("{}")
    with pytest.raises(LTGCError, match=r"val\.json: not the competition's JSON"):
        prepare_dataset(section(tmp_path, source="inaturalist", files=files))


# --- csv ---


def test_a_table_has_names_or_labels_and_a_split_or_none(tmp_path: Path) -> None:
    put(tmp_path / "x", 4)
    rows = ['x/000.jpg,"fox, red",train', 'x/001.jpg,"fox, red",Test', "x/002.jpg,cat,train", "x/003.jpg,cat,test"]
    write(tmp_path, images_csv="image,class,split\n" + "\n".join(rows))
    table = section(tmp_path, source="csv")
    assert counts(prepare_dataset(table)) == {"cat": (1, 0, 1), "fox, red": (1, 0, 1)}
    unsplit = table.model_copy(update={"table": table.table.model_copy(update={"split": None})})
    assert counts(prepare_dataset(unsplit)) == {"cat": (1, 0, 1), "fox, red": (1, 0, 1)}
    write(tmp_path, images_csv="image,class,split\nx/000.jpg,0,train\nx/001.jpg,0,test\n", names_txt="fox\n")
    labelled = section(tmp_path, source="csv", class_names="names.txt")
    assert counts(prepare_dataset(labelled)) == {"fox": (1, 0, 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,split\n", "no column 'class' .it has image, label, split"),
        ("image,class,split\nx/000.jpg,fox,holdout\n", "line 2: the split 'holdout'"),
        ("image,class,split\nx/000.jpg,fox\n", "line 2: fewer columns"),
        ("", "no column 'image' .it has none"),
    ],
)
def test_a_wrong_table_is_named_with_its_line_or_column(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, images_csv=text)
    with pytest.raises(LTGCError, match=message):
        prepare_dataset(section(tmp_path, source="csv"))


# --- cifar ---


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 as torchvision keeps it, with 60 random images; its MD5 sums stand for the official ones."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)

    def batch(name: str, content: dict) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def images(count: int) -> dict:
        return {
            "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": [i % 2 for i in range(count)],
        }

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch("data_batch_1", images(40))])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", images(20))])
    name, md5 = batch("batches.meta", {"label_names": ["airplane", "automobile"]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path


def test_cifar_becomes_a_shard_of_the_images_that_the_long_tail_keeps(cifar: Path, tmp_path: Path) -> None:
    shard = tmp_path / "images.tar"
    settings = section(cifar, source="cifar10", long_tail={"head": 20, "ratio": 10})
    dataset = prepare_dataset(settings)
    assert counts(dataset) == {"airplane": (20, 0, 10), "automobile": (2, 0, 10)}
    shards.write(shard, dataset.made_images.items())
    assert sorted(i.path for i in dataset.images) == shards.names(shard)
    assert all(images.load(image_file(shard, image)).size == (32, 32) for image in dataset.images)
    first = datasets.CIFAR10(cifar, train=False)[0][0]
    assert np.array_equal(np.asarray(images.load(shard / "test/0000-airplane/0000.png")), np.asarray(first))


def test_a_cifar_batch_that_is_not_the_official_one_is_refused_before_it_is_unpickled(
    cifar: Path, tmp_path: Path
) -> None:
    touched = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (touched,)

    (cifar / datasets.CIFAR10.base_folder / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(LTGCError, match=r"cifar-10-batches-py is not there or not the official files"):
        prepare_dataset(section(cifar, source="cifar10"))
    assert not touched.exists()


# --- what is seen of the images ---


def scene(seed: int, size: int = 96) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), tuple(int(v) for v in random.integers(0, 255, 3)))
    for box in random.integers(0, size, (12, 4)):
        x, y = sorted(box[:2]), sorted(box[2:])
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        ImageDraw.Draw(image).rectangle((int(x[0]), int(y[0]), int(x[1]), int(y[1])), colour)
    return image


def png_of_16_bits() -> bytes:
    """4 x 4 pixels of 16-bit RGB, which Pillow reads and cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    pixels = zlib.compress(4 * (b"\0" + 4 * b"\x12\x34\x56\x78\x9a\xbc"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_converted_images_are_used_and_listed_with_what_they_were(tmp_path: Path) -> None:
    put(tmp_path / "test" / "a", 1)
    train = tmp_path / "train" / "a"
    put(train, 1)
    Image.new("CMYK", (8, 8)).save(train / "cmyk.jpg")
    Image.new("I;16", (8, 8)).save(train / "deep.png")
    (train / "deep_rgb.png").write_bytes(png_of_16_bits())
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(train / "moving.gif", save_all=True, append_images=frames[1:])
    dataset = prepare_dataset(section(tmp_path))
    assert dataset.classes[0].train == 5
    assert [(f.kind, f.path, f.reason, f.split) for f in dataset.findings] == [
        ("converted", "train/a/cmyk.jpg", "CMYK", "train"),
        ("converted", "train/a/deep.png", "more than 8 bits a channel", "train"),
        ("converted", "train/a/deep_rgb.png", "more than 8 bits a channel", "train"),
        ("converted", "train/a/moving.gif", "2 frames, the first is used", "train"),
    ]


def test_the_pixel_limit_is_a_parameter(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 1)
    put(tmp_path / "test" / "a", 1)
    with pytest.raises(LTGCError, match="8 x 8 pixels: over the limit of 63"):
        prepare_dataset(section(tmp_path, max_pixels=63))


def test_test_images_that_nearly_are_training_images_are_listed_with_their_twin(tmp_path: Path) -> None:
    for split, names in (("train", ("one", "two", "flat")), ("test", ("other", "again", "flat"))):
        (tmp_path / split / "a").mkdir(parents=True)
        for name in names:
            seed = {"one": 1, "two": 2, "other": 3, "again": 2}.get(name)
            image = Image.new("RGB", (96, 96), "white") if seed is None else scene(seed)
            image.save(tmp_path / split / "a" / f"{name}.png")
    # Smaller, another format, lossy: the same picture all the same. Flat images have nothing to compare.
    scene(2).resize((64, 64)).save(tmp_path / "test/a/again.jpg", quality=60)
    (tmp_path / "test/a/again.png").unlink()
    dataset = prepare_dataset(section(tmp_path, near_duplicates=4))
    (found,) = dataset.findings
    assert (found.kind, found.path, found.other) == ("near_duplicate", "test/a/again.jpg", "train/a/two.png")
    assert (found.split, found.class_name) == ("test", "a") and "of 64 bits" in found.reason
    assert prepare_dataset(section(tmp_path, near_duplicates=None)).findings == []


@pytest.mark.parametrize("distance", [0, 3, 8])
def test_the_search_finds_the_nearest_of_all_pairs(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "CANDIDATES", 50)  # so that blocks end within the run
    random = np.random.default_rng(0)
    train = random.integers(0, 2**64, 300, dtype=np.uint64)
    flips = (np.uint64(1) << random.integers(0, 64, (3, 100), dtype=np.uint64)).sum(0, dtype=np.uint64)
    train[100:200] = train[200:] ^ np.uint64(1)  # an earlier twin that is farther, for the last part of test
    test = np.concatenate(
        [train[:100] ^ flips, train[:20], train[200:], random.integers(0, 2**64, 50, dtype=np.uint64)]
    )
    apart = np.bitwise_count(test[:, None] ^ train[None])  # (test, train)
    near = [(i, int(row.argmin()), int(row.min())) for i, row in enumerate(apart) if row.min() <= distance]
    assert nearest_hashes(train.tolist(), test.tolist(), distance) == near
    assert len(near) >= 20
