"""GE2E equals the package Resemblyzer; its weights are read and its code is not run."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources import load_source, parse_spec, resemblyzer

needed = pytest.mark.skipif(find_spec("resemblyzer") is None, reason="Resemblyzer is not installed")


@pytest.fixture(scope="module")
def source():
    return load_source(parse_spec("resemblyzer"))


@pytest.fixture(scope="module")
def original():
    pytest.importorskip("webrtcvad", reason="the package's own code needs webrtcvad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports a name that SciPy has moved
        from resemblyzer import VoiceEncoder
        from resemblyzer.audio import normalize_volume
    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda wav: encoder.embed_utterance(normalize_volume(wav, -30, increase_only=True))


def recording(voice, size: int, level: float) -> np.ndarray:
    wav = np.concatenate([np.asarray(voice(1, k), dtype=np.float32) for k in range(3)])
    wav = np.resize(wav, size)
    return (level * wav / np.sqrt(np.mean(wav**2))).astype(np.float32)


@needed
def test_what_is_read(source):
    assert set(source.files) == {"pretrained.pt"}
    assert source.sample_rate_hz == 16000
    assert source.licence == "Apache-2.0"
    assert "webrtcvad" in source.notes[0]
    assert not source.model.training
    assert not any(p.requires_grad for p in source.model.parameters())


@needed
@pytest.mark.parametrize("level", [0.005, 0.1], ids=["quiet", "loud"])
@pytest.mark.parametrize(
    "size",
    [
        4800,  # far less than a window
        25600 - 1,
        25600,
        25600 + 1,
        160 * (77 + 120) - 1,  # the second window is not covered
        160 * (77 + 120),  # and now it is
        160 * (77 + 120) + 121,  # two frames beyond the end still see it
        160 * (77 + 160),
        160 * (3 * 77 + 119) + 159,
        160_000,
    ],
)
def test_embeddings_are_the_packages(source, original, voice, size, level):
    wav = recording(voice, size, level)
    expected = original(wav)
    found = source.model.embed(Batch(torch.from_numpy(wav)[None]))[0].numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert found @ expected > 1 - 1e-6


@needed
def test_the_package_is_not_imported():
    before = "resemblyzer" in sys.modules
    load_source(parse_spec("resemblyzer"))
    assert ("resemblyzer" in sys.modules) == before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of that name whose checkpoint is what a test writes."""
    monkeypatch.setattr(resemblyzer, "package_folder", lambda *args, **kwargs: tmp_path)
    return tmp_path / "pretrained.pt"


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [{}, [1], {"model_state": 3}, {"model_state": Harmful()}])
def test_another_checkpoint_is_refused(package, content, capsys):
    torch.save(content, package)
    with pytest.raises(ModelCardError, match="no checkpoint of Resemblyzer.*expected.*install"):
        load_source(parse_spec("resemblyzer"))
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04" + bytes(60), b"\x80\x02."])
def test_damage_is_refused(package, content):
    package.write_bytes(content)
    with pytest.raises(ModelCardError, match="no checkpoint of Resemblyzer"):
        load_source(parse_spec("resemblyzer"))


def test_a_missing_file_is_refused(package):
    with pytest.raises(ModelCardError, match=r"pretrained\.pt cannot be read"):
        load_source(parse_spec("resemblyzer"))
