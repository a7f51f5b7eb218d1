from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
import torch

from nip_audio.core.state import State, file_sha256, load_state, save_state, write_atomic
from nip_audio.errors import HashMismatchError, OutputError, StateError

STATE = State(
    "calibration",
    "m" * 64,
    {
        "matrix": torch.arange(6.0, dtype=torch.float64).reshape(2, 3),
        "view": torch.arange(6).reshape(2, 3).T,
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
    },
    {"names": ["a", "ü"], "level": 0.05, "nested": {"none": None}},
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, STATE)
    return path


def test_round_trip(path):
    got = load_state(path, kind="calibration", model_id="m" * 64)
    assert (got.kind, got.model_id, got.meta) == (STATE.kind, STATE.model_id, STATE.meta)
    assert got.tensors.keys() == STATE.tensors.keys()
    for name, tensor in STATE.tensors.items():
        assert got.tensors[name].dtype == tensor.dtype
        assert torch.equal(got.tensors[name], tensor)


def test_wrong_kind_is_an_error(path):
    with pytest.raises(
        StateError, match="has kind calibration and format 1, expected kind enrolment"
    ):
        load_state(path, kind="enrolment")


def test_wrong_model_is_an_error_and_none_skips_the_comparison(path):
    with pytest.raises(StateError, match="made for model mmmmmmmmmmmm, this model is nnnnnnnnnnnn"):
        load_state(path, kind="calibration", model_id="n" * 64)
    assert load_state(path, kind="calibration").model_id == "m" * 64


def test_every_flipped_byte_is_noticed(path):
    data = path.read_bytes()
    header_size = 8 + int.from_bytes(data[:8], "little")
    mismatches = 0
    # every 7th byte of the header, every byte of the tensors
    for position in [*range(0, header_size, 7), *range(header_size, len(data))]:
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StateError) as caught:
            load_state(path, kind="calibration", model_id="m" * 64)
        mismatches += isinstance(caught.value, HashMismatchError)
    assert mismatches >= len(data) - header_size


@pytest.mark.parametrize("data", [b"", b"hello", b"\x02" + bytes(7) + b"{}"])
def test_other_file_is_an_error(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(StateError, match="is not a nip-audio calibration file"):
        load_state(path, kind="calibration")


def test_missing_file_or_folder_in_its_place_is_an_error(tmp_path):
    with pytest.raises(StateError, match="cannot be read.*No such file"):
        load_state(tmp_path / "none", kind="calibration")
    with pytest.raises(StateError, match="cannot be read"):
        load_state(tmp_path, kind="calibration")


def test_nothing_is_overwritten_without_force(path):
    before = path.read_bytes()
    other = State("calibration", "n" * 64, {}, {})
    with pytest.raises(OutputError, match="exists already; pass `force=True`"):
        save_state(path, other)
    assert path.read_bytes() == before
    save_state(path, other, force=True)
    assert load_state(path, kind="calibration").model_id == "n" * 64


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="does not exist; create it"):
        write_atomic(tmp_path / "no" / "file", b"")


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="disk full"):
        write_atomic(path, b"new", force=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_ordinary_permissions(tmp_path):
    write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_unwritable_values_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(tmp_path / "x", State("k", "m", {}, {"x": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "big").write_bytes(b"ab" * (1 << 20))
    assert file_sha256(tmp_path / "big") == hashlib.sha256(b"ab" * (1 << 20)).hexdigest()


def test_unwritable_folder_is_a_typed_error(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write_atomic(tmp_path / "a", b"data")


def test_empty_arrays_round_trip(path):
    empty = torch.from_numpy(np.sort(np.zeros(0)))
    save_state(path, State("thing", "m", {"empty": empty}, {}), force=True)
    assert load_state(path, kind="thing").tensors["empty"].shape == (0,)


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(OutputError, match="is a device, a pipe or a socket, expected a file"):
            write_atomic(tmp_path / name, b"data", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]
    assert not (tmp_path / "link").is_file()


def test_what_is_written_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, n=name, f=real: (order.append(n), f(*args))[1])
    write_atomic(tmp_path / ("ü" * 100), b"data")  # 200 bytes, and a temporary name beside it
    assert order == ["fsync", "replace", "fsync"]
