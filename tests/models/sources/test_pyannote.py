"""pyannote.audio's checkpoints of WeSpeaker's ResNets, written as it writes them."""

from __future__ import annotations

import dataclasses
import enum
import io
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torchaudio.compliance import kaldi

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import load_source, parse_spec
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures
from nip_audio.models.sources.wespeaker_resnet import WeSpeakerResNet

COMMIT = "837717ddb9ff5507820346191109dc79c958d614"
NAME = "pyannote/wespeaker-voxceleb-resnet34-LM"


class Problem(enum.Enum):
    REPRESENTATION = 4


class Resolution(enum.Enum):
    CHUNK = 2


@dataclasses.dataclass
class Specifications:
    problem: Problem
    resolution: Resolution
    duration: float


@contextmanager
def as_in_pyannote() -> Iterator[None]:
    """Let the classes above be written under pyannote.audio's names, which then do not exist."""
    names = ("pyannote", "pyannote.audio", "pyannote.audio.core", "pyannote.audio.core.task")
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names})
    for kind in (Problem, Resolution, Specifications):
        setattr(sys.modules[names[-1]], kind.__name__, kind)
        kind.__module__ = names[-1]
    try:
        yield
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def network() -> WeSpeakerResNet:
    torch.manual_seed(0)
    features = KaldiFeatures(KaldiFbank().band_range)
    return WeSpeakerResNet("ResNet34", features, variance_floor=0.0).eval()


def checkpoint(**changes: object) -> bytes:
    content = {
        "state_dict": {f"resnet.{name}": value for name, value in network().state_dict().items()},
        "pyannote.audio": {
            "versions": {"torch": torch.__version__, "pyannote.audio": "3.1.0"},
            "architecture": {
                "module": "pyannote.audio.models.embedding.wespeaker",
                "class": "WeSpeakerResNet34",
            },
            "specifications": Specifications(Problem.REPRESENTATION, Resolution.CHUNK, 5.0),
        },
        "pytorch-lightning_version": "2.1.0",
        **changes,
    }
    file = io.BytesIO()
    with as_in_pyannote():
        torch.save(content, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def plain() -> bytes:
    return checkpoint()


def test_reads_a_directory(plain, tmp_path):
    assert "pyannote.audio" not in sys.modules
    (tmp_path / "pytorch_model.bin").write_bytes(plain)
    source = load_source(parse_spec(f"pyannote:{tmp_path}"))
    assert "pyannote.audio" not in sys.modules
    assert "ResNet34" in source.architecture
    wav = 0.1 * torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    feats = kaldi.fbank(32768 * wav, num_mel_bins=80, window_type="hamming", dither=0.0)
    net = network()
    low, high = net.features.band_range.low_db, net.features.band_range.high_db
    levels = ((feats.T[None] * 10 / torch.tensor(10.0).log() - low) / (high - low)).clamp(0, 1)
    with torch.no_grad():
        expected, found = net(levels), source.model.embed(Batch(wav))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_reads_the_hub_by_its_cache(plain, tmp_path, monkeypatch):
    reason = "the extra hub reads models of the hub"
    constants = pytest.importorskip("huggingface_hub.constants", reason=reason)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "models--pyannote--wespeaker-voxceleb-resnet34-LM"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "blobs" / "b").write_bytes(plain)
    (root / "snapshots" / COMMIT / "pytorch_model.bin").symlink_to("../../blobs/b")
    source = load_source(parse_spec(f"pyannote:{NAME}"))
    assert source.name == NAME
    assert COMMIT in source.notes[0]
    pinned = load_source(parse_spec(f"pyannote:{NAME}@{COMMIT}"))
    assert pinned.files == source.files


def test_takes_settings_of_the_training(tmp_path):
    data = checkpoint(hyper_parameters={"sample_rate": 8000, "window_type": "povey", "dither": 0.0})
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    source = load_source(parse_spec(f"pyannote:{tmp_path}"))
    assert source.sample_rate_hz == 8000
    assert source.model.front_end.sample_rate_hz == 8000


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hyper_parameters": {"fbank_centering_span": 3.0}}, "fbank_centering_span = 3.0"),
        ({"hyper_parameters": {"num_mel_bins": "80"}}, "num_mel_bins = '80', expected a whole"),
        ({"hyper_parameters": [1]}, "no mapping"),
        ({"pyannote.audio": {"architecture": {"class": "XVectorSincNet"}}}, "of XVectorSincNet"),
        ({"pyannote.audio": None}, "no class of pyannote"),
        ({"state_dict": {"resnet.conv1.weight": torch.ones(1)}}, "does not fit"),
    ],
)
def test_refuses_other_checkpoints(changes, match, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(checkpoint(**changes))
    with pytest.raises(ModelCardError, match=match):
        load_source(parse_spec(f"pyannote:{tmp_path}"))


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("ran",))


def test_runs_no_code(tmp_path, capsys):
    (tmp_path / "pytorch_model.bin").write_bytes(checkpoint(callbacks=Evil()))
    with pytest.raises(ModelCardError, match="no file of weights alone"):
        load_source(parse_spec(f"pyannote:{tmp_path}"), trust=True)
    assert "ran" not in capsys.readouterr().out


def test_refuses_what_is_neither_directory_nor_id():
    with pytest.raises(ModelCardError, match="no directory and no id"):
        load_source(parse_spec("pyannote:nowhere"))
