"""Sizes that a stranger's files state are checked before anything is made of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from nip_audio import load_pretrained
from nip_audio.core.state import State, load_state, save_state
from nip_audio.core.strict_json import load_json
from nip_audio.errors import NipAudioError, StateError
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.plda import Plda
from nip_audio.models.sources.base import load_source, parse_spec
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibration import Calibration

PRETRAINED = Path(__file__).parents[2] / "pretrained"
NAME = "xvector-libri251"


@pytest.fixture
def directory(tmp_path) -> Path:
    return Path(shutil.copytree(PRETRAINED / NAME, tmp_path / "model"))


def refused(make, *, match: str) -> None:
    with pytest.raises(NipAudioError, match=match):
        make()


def change_card(directory: Path, **changes: object) -> None:
    path = directory / "model_card.json"
    text = json.dumps(json.loads(path.read_text()) | changes)
    path.write_text(text.replace("Infinity", "1e999"))


def change_yaml(directory: Path, old: str, new: str) -> None:
    path = directory / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    files = json.loads((directory / "model_card.json").read_text())["files"]
    files["hyperparams.yaml"] = hashlib.sha256(path.read_bytes()).hexdigest()
    change_card(directory, files=files)


@pytest.mark.parametrize(
    ("new", "match"),
    [
        ("embedding_dim: 1000000000", "has the number 1000000000, expected at most"),
        ("embedding_dim: 1e9", "has the number 1e9"),
        ("embedding_dim: 1000000", "describes a network with more than"),
        ("embedding_dim: .nan", "has the number .nan"),
        ("embedding_dim: .inf", "has the number .inf"),
        ("embedding_dim: -.INF", "has the number -.INF"),
        ("embedding_dim: nan", "has the number nan"),
        ("embedding_dim: -5", "does not describe a model"),
    ],
)
def test_sizes_of_a_description_are_limited(directory, new, match):
    text = (directory / "hyperparams.yaml").read_text()
    old = next(line.strip() for line in text.splitlines() if "embedding_dim:" in line)
    change_yaml(directory, old, new)
    refused(lambda: load_pretrained(directory), match=match)


def test_a_million_blocks_are_refused(directory):
    blocks = ", ".join(["512"] * 10_000)
    text = (directory / "hyperparams.yaml").read_text()
    line = next((one for one in text.splitlines() if "channels:" in one), None)
    old, new = ("embedding_dim:", f"channels: [{blocks}]\n    embedding_dim:")
    if line is not None:
        old, new = line.strip(), f"channels: [{blocks}]"
    change_yaml(directory, old, new)
    refused(
        lambda: load_pretrained(directory), match=r"expected at most|does not describe|more than"
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": float("inf")}, "1e999 is too large"),
        ({"scale": 0}, "wrong scale"),
        ({"scale": -3}, "wrong scale"),
        ({"scale": 1e300}, "wrong scale"),
        ({"sample_rate_hz": 0}, "wrong sample_rate_hz"),
        ({"sample_rate_hz": 10**12}, "wrong sample_rate_hz"),
        ({"noises": [{"family": "gaussian", "level": "raw", "scale": 1e30}]}, "wrong noises"),
        ({"noises": [{"family": "gaussian", "level": "raw", "scale": -1}]}, "wrong noises"),
        (
            {"noises": [{"family": "gaussian", "level": "raw", "scale": 0.1, "patch": 10**9}]},
            "wrong noises",
        ),
        ({"modality": "image", "image_shape": [3, 10**6, 10**6]}, "wrong image_shape"),
    ],
)
def test_numbers_of_a_card_are_limited(directory, changes, match):
    change_card(directory, **changes)
    refused(lambda: load_pretrained(directory), match=match)


def test_deep_nesting_of_a_card_is_refused(directory):
    (directory / "model_card.json").write_text('{"a": ' + "[" * 10**6)
    refused(lambda: load_pretrained(directory), match="not valid JSON")


def test_json_has_no_infinity():
    for text in ("1e999", "[-1e400]", '{"a": 1e309}'):
        with pytest.raises(ValueError, match="is too large"):
            load_json(text)
    assert load_json("[1.5, 1e300, -2]") == [1.5, 1e300, -2]


HEADERS = [struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 8) + b"{", b"", b"\xff" * 64]


@pytest.mark.parametrize("data", HEADERS, ids=["2^60", "short", "empty", "ones"])
def test_headers_of_weights_are_not_trusted(directory, data):
    (directory / "embedding_model.safetensors").write_bytes(data)
    files = json.loads((directory / "model_card.json").read_text())["files"]
    files["embedding_model.safetensors"] = hashlib.sha256(data).hexdigest()
    change_card(directory, files=files)
    refused(lambda: load_pretrained(directory), match="does not fit")


READERS = {
    "calibration": lambda path: Calibration.load(path, model_id="m"),
    "enrolment": lambda path: Enrolment.load(path, model_id="m"),
    "plda": lambda path: Plda.load(path, model_id="m"),
    "purifier": lambda path: GuidedNip.load(path, model_id="m"),
}


@pytest.mark.parametrize("data", HEADERS, ids=["2^60", "short", "empty", "ones"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_headers_of_fitted_files_are_not_trusted(tmp_path, read, data):
    (tmp_path / "x").write_bytes(data)
    refused(lambda: read(tmp_path / "x"), match="is not a nip-audio")


def state_of(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["state"])
    return load_state(path, kind=content["kind"])


SHIPPED = ["calibration.safetensors", "purifier.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", SHIPPED)
def test_fitted_values_that_are_not_finite_are_refused(tmp_path, name, value):
    state = state_of(PRETRAINED / "resnet34-libri30" / name)
    for tensor in list(state.tensors)[::7]:
        if not state.tensors[tensor].is_floating_point():
            continue
        changed = state.tensors[tensor].clone()
        changed.view(-1)[0] = value
        save_state(
            tmp_path / "x", replace(state, tensors={**state.tensors, tensor: changed}), force=True
        )
        with pytest.raises(StateError, match="NaN or infinite in"):
            load_state(tmp_path / "x", kind=state.kind)


@pytest.mark.parametrize("name", sorted(path.name for path in PRETRAINED.iterdir()))
def test_the_shipped_files_are_within_the_limits(name):
    loaded = load_pretrained(name)
    if loaded.card.calibration_path is not None:
        Calibration.of(loaded)
    if loaded.card.purifier_path is not None:
        GuidedNip.load(loaded.card.purifier_path, model_id=loaded.model_id)


@pytest.mark.parametrize(
    "changes", [{"width": 10**9}, {"width": -1}, {"channels": 10**9}, {"width": "a"}, {"bounds": 1}]
)
def test_sizes_of_a_purifier_are_limited(tmp_path, changes):
    state = state_of(PRETRAINED / "resnet34-libri30/purifier.safetensors")
    save_state(tmp_path / "x", replace(state, meta={**state.meta, **changes}))
    refused(lambda: GuidedNip.load(tmp_path / "x"), match="is damaged")


def test_a_purifier_without_its_settings_is_damaged(tmp_path):
    save_state(tmp_path / "x", State("guided purifier", "m", {"a": torch.zeros(2)}, {}))
    refused(lambda: GuidedNip.load(tmp_path / "x"), match="is damaged")


@pytest.mark.parametrize(
    "changes",
    [{"window_s": 1e-9}, {"window_s": 1e9}, {"nccr": {"draws": 10**9}}],
    ids=["short windows", "long windows", "draws"],
)
def test_sizes_of_a_calibration_are_limited(tmp_path, changes):
    state = state_of(PRETRAINED / "resnet34-libri30/calibration.safetensors")
    inner = dict(state.meta["response"])
    for key, value in changes.items():
        inner[key] = inner[key] | value if isinstance(value, dict) else value
    save_state(tmp_path / "x", replace(state, meta={**state.meta, "response": inner}))
    refused(
        lambda: Calibration.load(tmp_path / "x", model_id=state.model_id),
        match="is damaged|at most 1000",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"embed_dim": 10**9}},
        {
            "model_args": {"feat_dim": 10**6},
            "dataset_args": {"fbank_args": {"num_mel_bins": 10**6}},
        },
        {"dataset_args": {"fbank_args": {"frame_length": 10**9}}},
        {"dataset_args": {"fbank_args": {"frame_length": float("nan")}}},
        {"dataset_args": {"fbank_args": {"frame_shift": 0}}},
        {"dataset_args": {"fbank_args": {"frame_shift": 1e-9}}},
        {"dataset_args": {"resample_rate": 0}},
    ],
    ids=str,
)
def test_sizes_of_wespeaker_are_limited(tmp_path, changes):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": "ResNet34", **changes}))
    (tmp_path / "avg_model.pt").write_bytes(b"")
    spec = parse_spec(f"wespeaker:{tmp_path}")
    refused(lambda: load_source(spec), match="expected|describes no model|describes a network")
