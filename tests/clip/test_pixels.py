"""Images that do not fit in memory: decoded and cropped by worker processes, as the device crops those that do."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ltgc.clip import pixels
from ltgc.clip.crops import steady
from ltgc.clip.encoder import Clip
from ltgc.clip.pixels import FilePixels
from ltgc.data import images
from ltgc.pipeline.errors import LTGCError

CPU = torch.device("cpu")


def ramp(path: Path, width: int, height: int, quality: int = 95) -> Path:
    """Brighter to the right in red, and downwards in green: its colours say where a crop was taken."""
    across = torch.linspace(0, 255, width).expand(height, width)
    down = torch.linspace(0, 255, height)[:, None].expand(height, width)
    colours = torch.stack([across, down, torch.full_like(down, 128)], -1).round().byte()
    Image.fromarray(colours.numpy()).save(path, quality=quality)
    return path


@pytest.mark.parametrize("size", [(64, 64), (96, 60), (60, 90)], ids=["square", "wide", "high"])
def test_a_crop_from_the_file_is_the_crop_that_the_device_takes(
    size: tuple[int, int], model: Clip, tmp_path: Path
) -> None:
    files = FilePixels([ramp(tmp_path / "a.png", *size)] * 50, model)
    randoms = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    requests = [(torch.arange(50), steady(randoms))]
    (from_files,) = pixels.batches(files, requests, CPU, workers=0)
    (on_device,) = pixels.batches(files.in_memory(), requests, CPU, workers=0)
    assert from_files.dtype == torch.uint8 and from_files.shape == on_device.shape == (50, 3, 16, 16)
    # Equal to half a pixel, as CLIP rounds the middle of an image that is not square, away from the border.
    assert (from_files - on_device)[..., 2:-2, 2:-2].abs().max() < 8


def test_worker_processes_read_the_same_batches_in_order(model: Clip, tmp_path: Path) -> None:
    files = FilePixels([ramp(tmp_path / f"{k}.jpg", 40 + 8 * k, 48) for k in range(5)], model)
    requests = [(torch.randint(5, (3,)), steady(torch.rand(3, 4))) for _ in range(6)]
    alone, together = (list(pixels.batches(files, requests, CPU, workers)) for workers in (0, 2))
    assert len(together) == 6 and all(map(torch.equal, together, alone))


def test_images_that_are_not_cropped_come_whole_as_clip_sees_them(model: Clip, tmp_path: Path) -> None:
    files = FilePixels([ramp(tmp_path / f"{k}.jpg", 200, 150) for k in range(3)], model)
    (batch,) = pixels.batches(files, [(torch.tensor([2, 0]), None)], CPU, workers=0)
    assert torch.equal(batch, files.in_memory()[[2, 0]])


def test_an_unreadable_image_is_one_line_that_names_it_also_from_a_worker(model: Clip, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    files = FilePixels([tmp_path / "torn.jpg"], model)
    for crops in (None, steady(torch.rand(1, 4))):
        with pytest.raises(LTGCError) as error:
            list(pixels.batches(files, [(torch.tensor([0]), crops)], CPU, workers=1))
        assert "torn.jpg: not an image" in str(error.value) and "\n" not in str(error.value)


def test_a_jpeg_is_decoded_no_larger_than_needed_and_no_smaller(tmp_path: Path) -> None:
    path = ramp(tmp_path / "photo.jpg", 1000, 750)
    sizes = {shortest: images.load(path, shortest).size for shortest in (None, 376, 375, 188, 187, 90, 50)}
    assert sizes == {
        None: (1000, 750),
        376: (1000, 750),
        375: (500, 375),
        188: (500, 375),
        187: (250, 188),
        90: (125, 94),
        50: (125, 94),
    }
    assert images.load(ramp(tmp_path / "photo.png", 100, 75), shortest=10).size == (100, 75)


def test_a_clip_that_pads_images_is_refused_by_name(model: Clip, tmp_path: Path) -> None:
    files = FilePixels([ramp(tmp_path / "a.png", 20, 20)], model)
    files.cfg, files.frame = files.cfg | {"resize_mode": "longest"}, None
    with pytest.raises(LTGCError, match=r"clip\.model: resizes images by 'longest'"):
        list(pixels.batches(files, [(torch.tensor([0]), torch.rand(1, 4))], CPU, workers=0))
