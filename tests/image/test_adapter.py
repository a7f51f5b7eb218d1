"""Picture files in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow

from nip_audio.errors import FileError, ImageError, InputError, OutputError
from nip_audio.image.adapter import ImageAdapter, pixels_sha256, to_8_bits


def picture(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> Path:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pillow.fromarray(values).convert(mode).save(path)
    return path


COLOUR = ImageAdapter(3, 32, 32)


def test_what_is_saved_is_read_back_exactly(tmp_path):
    x = to_8_bits(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))
    COLOUR.save(x, tmp_path / "a.png")
    loaded = COLOUR.load(tmp_path / "a.png")
    torch.testing.assert_close(loaded.pixels, x)
    assert loaded.changes == ()
    assert loaded.content_sha256 == pixels_sha256(x)
    assert loaded.original_size == (32, 32)


def test_grey_values_make_the_round_trip(tmp_path):
    adapter = ImageAdapter(1, 28, 28)
    x = to_8_bits(torch.rand(1, 28, 28))
    adapter.save(x, tmp_path / "a.png")
    torch.testing.assert_close(adapter.load(tmp_path / "a.png").pixels, x)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "ppm", "webp"])
def test_any_size_and_format_becomes_the_models(tmp_path, ending):
    loaded = COLOUR.load(picture(tmp_path / f"a.{ending}", size=(50, 40)))
    assert loaded.pixels.shape == (3, 32, 32)
    assert 0 <= float(loaded.pixels.min()) <= float(loaded.pixels.max()) <= 1
    assert loaded.changes == ("resized from 50 × 40",)
    assert loaded.original_size == (40, 50)


def test_colours_become_grey_and_transparent_is_white(tmp_path):
    grey = ImageAdapter(1, 32, 32).load(picture(tmp_path / "a.png"))
    assert grey.pixels.shape == (1, 32, 32)
    assert grey.changes == ("RGB to L",)
    clear = pillow.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.save(tmp_path / "b.png")
    loaded = COLOUR.load(tmp_path / "b.png")
    assert float(loaded.pixels.min()) == 1.0
    assert loaded.changes == ("placed on white", "RGBA to RGB")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty"), (b"no picture at all", "not_a_picture")],
)
def test_bad_files_say_what_they_are(tmp_path, content, code):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError) as raised:
        COLOUR.load(tmp_path / "a.png")
    assert raised.value.code == code
    assert isinstance(raised.value, FileError)


def test_a_cut_file_is_damaged(tmp_path):
    path = picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError) as raised:
        COLOUR.load(path)
    assert raised.value.code == "damaged"


def test_missing_animated_and_deep_files_are_refused(tmp_path):
    with pytest.raises(ImageError, match="check the path"):
        COLOUR.load(tmp_path / "none.png")
    frames = [pillow.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="several frames"):
        COLOUR.load(tmp_path / "a.webp")
    pillow.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="8 bits"):
        COLOUR.load(tmp_path / "b.png")


def test_nothing_is_overwritten_or_written_with_loss(tmp_path):
    x = torch.zeros(3, 8, 8)
    COLOUR.save(x, tmp_path / "a.png")
    with pytest.raises(OutputError):
        COLOUR.save(x, tmp_path / "a.png")
    COLOUR.save(x, tmp_path / "a.png", force=True)
    with pytest.raises(InputError, match="lossless"):
        COLOUR.save(x, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="bounds"):
        COLOUR.save(x + 2, tmp_path / "b.png")


def test_no_picture_has_two_channels():
    with pytest.raises(InputError, match="1 or 3"):
        ImageAdapter(2, 8, 8)
