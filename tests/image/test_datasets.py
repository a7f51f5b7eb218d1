"""Labelled pictures: bundled, from arrays, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.image import datasets
from nip_audio.image.datasets import ImageSet, from_npz, load_images


def arrays(folder, *, colour: bool = True, series: bool = False, name: str = "tiny"):
    rng = np.random.default_rng(0)
    shape = (8, 8, 3) if colour else (8, 8)
    values = {
        "x_train": rng.integers(0, 256, (20, *shape), dtype=np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": rng.integers(0, 256, (40, *shape), dtype=np.uint8),
        "y_test": np.arange(40) % 2,
        "class_names": np.array(["cat", "dog"]),
    }
    if series:
        values["track_test"] = np.arange(40) // 10
    np.savez(folder / f"{name}.npz", **values)
    return folder / f"{name}.npz"


def test_digits_need_no_network_and_roles_do_not_overlap():
    parts = [load_images("digits", role) for role in ("train", "calibrate", "test")]
    assert [len(p) for p in parts] == [1077, 360, 360]
    assert parts[0].pixels.shape[1:] == (1, 28, 28)
    assert parts[0].classes == tuple("0123456789")
    seen = {p.numpy().tobytes() for p in parts[0].pixels}
    again = sum(p.numpy().tobytes() in seen for p in parts[2].pixels)
    assert again == 0


@pytest.mark.parametrize("colour", [True, False])
def test_arrays_become_pixels(tmp_path, colour):
    path = arrays(tmp_path, colour=colour)
    found = load_images("tiny", "train", folder=tmp_path)
    assert found.pixels.shape == (20, 3 if colour else 1, 8, 8)
    raw = np.load(path)["x_train"][3]
    expected = raw.transpose(2, 0, 1) if colour else raw[None]
    np.testing.assert_allclose(found.pixels[3].numpy() * 255, expected, atol=1e-4)
    assert found.classes == ("cat", "dog")


def test_the_test_part_is_dealt_once(tmp_path):
    path = arrays(tmp_path)
    first, second = (from_npz(path, role) for role in ("calibrate", "test"))
    assert len(first) + len(second) == 40
    seen = {p.numpy().tobytes() for p in first.pixels}
    assert not any(p.numpy().tobytes() in seen for p in second.pixels)
    torch.testing.assert_close(from_npz(path, "test").pixels, second.pixels)


def test_whole_series_are_dealt(tmp_path):
    path = arrays(tmp_path, series=True)
    with np.load(path) as values:
        of = {
            x.transpose(2, 0, 1).tobytes(): (int(y), int(t))
            for x, y, t in zip(
                values["x_test"], values["y_test"], values["track_test"], strict=True
            )
        }
    sides = []
    for role in ("calibrate", "test"):
        levels = (from_npz(path, role).pixels * 255).round().to(torch.uint8).numpy()
        sides.append({of[x.tobytes()] for x in levels})
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 8


def test_resizing_keeps_the_levels_of_8_bits(tmp_path):
    found = from_npz(arrays(tmp_path), "train").resized(5, 6)
    assert found.pixels.shape == (20, 3, 5, 6)
    levels = found.pixels * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="pass a folder, or use 'digits'"):
        load_images("mnist", "train")
    with pytest.raises(InputError, match="no data set 'nothing'"):
        load_images("nothing", "train", folder=tmp_path)
    with pytest.raises(InputError, match="role is 'dev'"):
        load_images("digits", "dev")
    np.savez(tmp_path / "bad.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="class_names"):
        load_images("bad", "train", folder=tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match="images"):
        datasets.from_torchvision("MNIST", "train", folder=tmp_path)


def test_parts_must_fit():
    with pytest.raises(InputError, match="one label per image"):
        ImageSet(torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), ("a",), "x")
    with pytest.raises(InputError, match="labels range"):
        ImageSet(torch.zeros(1, 1, 4, 4), torch.tensor([1]), ("a",), "x")
    with pytest.raises(InputError, match="channels|1 or 3"):
        ImageSet(torch.zeros(1, 2, 4, 4), torch.tensor([0]), ("a",), "x")
