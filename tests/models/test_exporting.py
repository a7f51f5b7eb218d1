"""Exported graphs give in onnxruntime what torch gives."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from nip_audio import load_pretrained
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, OutputError
from nip_audio.models.ecapa import EcapaTdnn
from nip_audio.models.exporting import (
    EMBEDDING,
    PURIFIED,
    SPECTROGRAM,
    WAVEFORM,
    export_onnx,
    export_purifier,
)
from nip_audio.models.resnet34 import ResNet34
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip

runtime = pytest.importorskip("onnxruntime", reason="the extra onnx runs exported graphs")

needs_exporter = pytest.mark.skipif(
    find_spec("onnx") is None or find_spec("onnxscript") is None,
    reason="the extra onnx holds the exporter (onnx, onnxscript)",
)
AUDIO = ("audionet-libri251", "deep-speaker-libri30", "resnet34-libri30", "xvector-libri251")
# of the largest value of an embedding; another order of sums in a hundred layers makes about 1e-6
RELATIVE = 1e-4


def run(path: Path, name: str, x: torch.Tensor) -> torch.Tensor:
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def noise(items: int, samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(samples)
    return 0.1 * torch.randn(items, samples, generator=generator)


@needs_exporter
@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO)
def test_embeds_waveforms_of_any_number_and_length(name, tmp_path):
    pretrained = load_pretrained(name)
    path = tmp_path / "model.onnx"
    export_onnx(pretrained, path)
    for wavs in (noise(1, 16000), noise(3, 16000), noise(1, 47123), noise(2, 80001)):
        with torch.no_grad():
            expected = pretrained.model.embed(Batch(wavs))
        found = run(path, WAVEFORM, wavs)
        assert found.shape == expected.shape
        worst = float((found - expected).abs().max() / expected.abs().max())
        assert worst < RELATIVE, (len(wavs), worst)
    with pytest.raises(OutputError, match="exists"):
        export_onnx(pretrained, path)
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert said["sample_rate"] == "16000"
    assert said["model_id"] == pretrained.model_id
    assert [value.name for value in session.get_outputs()] == [EMBEDDING]


@needs_exporter
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ecapa", "resnet34"])
def test_attentive_pooling_embeds_any_number_and_length(kind, tmp_path):
    networks = {
        "ecapa": lambda: EcapaTdnn(64, channels=(16, 16, 24), embedding_dim=6, se_channels=8),
        "resnet34": lambda: ResNet34(
            width=4, blocks=(1, 1), pooling="attentive", n_mels=64, embedding_dim=6
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = networks[kind]()
    pretrained = load_pretrained("resnet34-libri30")
    model = InstrumentedModel(
        network,
        front_end=pretrained.model.front_end,
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
    ).eval()
    path = tmp_path / "model.onnx"
    export_onnx(replace(pretrained, model=model.requires_grad_(False)), path)
    for wavs in (noise(1, 16000), noise(3, 47123)):
        expected = model.embed(Batch(wavs))
        found = run(path, WAVEFORM, wavs)
        assert float((found - expected).abs().max() / expected.abs().max()) < RELATIVE


@needs_exporter
@pytest.mark.slow
def test_purifies_spectrograms_of_any_number_and_length(tmp_path):
    directory = load_pretrained("audionet-libri251").card.directory
    purifier = GuidedNip.load(directory / "purifier.safetensors")
    path = tmp_path / "purifier.onnx"
    export_purifier(purifier, path, model_id="m")
    generator = torch.Generator().manual_seed(0)
    for items, frames in ((1, 101), (3, 100), (1, 303)):
        x = torch.rand(items, 40, frames, generator=generator)
        with torch.no_grad():
            expected = purifier.purify(Batch(x), generator=generator).x
        assert float((expected - x).abs().max()) > 0.01
        assert float((run(path, SPECTROGRAM, x) - expected).abs().max()) < RELATIVE
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [PURIFIED]


def test_refuses_models_of_images(tmp_path):
    with pytest.raises(InputError, match="expected LogMel"):
        export_onnx(load_pretrained("lenet5-mnist"), tmp_path / "model.onnx")


def test_refuses_a_purifier_that_draws_noise(tmp_path):
    purifier = GuidedNip(InverseNet(width=2).eval(), bounds=Bounds(0.0, 1.0), noise=0.1)
    with pytest.raises(InputError, match="draws noise"):
        export_purifier(purifier, tmp_path / "purifier.onnx")


def test_refuses_a_purifier_of_images(tmp_path):
    purifier = GuidedNip(InverseNet(3, width=2).eval(), bounds=Bounds(0.0, 1.0))
    with pytest.raises(InputError, match="3 channels"):
        export_purifier(purifier, tmp_path / "purifier.onnx")
