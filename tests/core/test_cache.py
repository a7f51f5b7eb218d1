from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from nip_audio.core.cache import keep_or_make
from nip_audio.errors import StateError


class Maker:
    """Makes 1, then 2, and so on."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


def dump(value: int) -> bytes:
    return json.dumps({"value": value}).encode()


def read(data: bytes) -> int:
    return int(json.loads(data)["value"])


def test_a_result_is_made_once_and_its_folder_too(tmp_path):
    make, path = Maker(), tmp_path / "a" / "b" / "x.json"
    assert [keep_or_make(path, make, dump=dump, load=read) for _ in range(3)] == [1, 1, 1]
    assert make.made == 1
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


def test_the_result_of_something_else_is_replaced(tmp_path):
    make, path = Maker(), tmp_path / "x.json"
    keep_or_make(path, make, dump=dump, load=read)
    assert keep_or_make(path, make, dump=dump, load=lambda data: None) == 2
    assert keep_or_make(path, make, dump=dump, load=read) == 2


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"value": "x"}', b"\xff"])
def test_a_damaged_file_is_refused_not_replaced(tmp_path, data):
    make, path = Maker(), tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(StateError, match=r"x\.json is damaged \(.*\); remove it"):
        keep_or_make(path, make, dump=dump, load=read)
    assert (make.made, path.read_bytes()) == (0, data)


def test_damaged_tensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"x": torch.ones(2)})[:-1])
    with pytest.raises(StateError, match="is damaged"):
        keep_or_make(path, dict, dump=save, load=load)


def test_nothing_is_kept_if_making_fails(tmp_path):
    def fail() -> int:
        raise KeyError("no")

    with pytest.raises(KeyError):
        keep_or_make(tmp_path / "a" / "x.json", fail, dump=dump, load=read)
    assert not list(tmp_path.iterdir())
