"""SpeechBrain's own networks, small ones with random weights, behind its interfaces."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models import ECAPA_TDNN, Xvector
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.speechbrain.guard import Guard

BANDS = 24


@pytest.fixture
def own_global_generator() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(params=["ecapa", "xvector"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str, classes: int) -> tuple[nn.Module, nn.Module]:
    if kind == "ecapa":
        network = ECAPA_TDNN.ECAPA_TDNN(
            BANDS,
            channels=[16, 16, 16, 16, 24],
            attention_channels=8,
            se_channels=8,
            lin_neurons=12,
        )
        return network, ECAPA_TDNN.Classifier(12, out_neurons=classes)
    network = Xvector.Xvector(tdnn_channels=[16, 16, 16, 16, 20], lin_neurons=12, in_channels=BANDS)
    return network, Xvector.Classifier((2, 1, 12), lin_neurons=10, out_neurons=classes)


def randomise(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm1d):
        module.running_mean.normal_(0.0, 0.3)
        module.running_var.uniform_(0.5, 1.5)
    elif isinstance(module, nn.Conv1d | nn.Linear):
        module.weight.data *= 2.5  # or every waveform would score nearly the same


@pytest.fixture
def make_speechbrain() -> Callable[..., Any]:
    """Build an interface of four speakers: 24 bands, 12 numbers an embedding."""

    def make(
        kind: str = "ecapa",
        *,
        normalization: nn.Module | None = None,
        interface: Any = EncoderClassifier,
        labels: tuple[str, ...] = ("ann", "bob", "cyd", "dee"),
        classifier: nn.Module | None = None,
        without: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, head = build(kind, 4)
            for module in (*network.modules(), *head.modules()):
                randomise(module)
        encoder = CategoricalEncoder()
        encoder.update_from_iterable(labels)
        encoder.ignore_len()
        plain = InputNormalization(norm_type="sentence", std_norm=False)
        modules = {
            "compute_features": Fbank(n_mels=BANDS),
            "mean_var_norm": normalization or plain,
            "embedding_model": network,
            "classifier": classifier or head,
        }
        modules = {name: module for name, module in modules.items() if name not in without}
        return interface(modules=modules, hparams={"label_encoder": encoder}, **options)

    return make


def tones(items: int = 2, samples: int = 8000) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rates = torch.rand(items, 1, generator=generator) * 0.8 + 0.1
    waves = 0.3 * torch.sin(2 * torch.pi * 3000 * rates * torch.arange(samples) / 16000)
    return waves + 0.02 * torch.randn(items, samples, generator=generator)


@pytest.fixture
def waveforms() -> Callable[..., Tensor]:
    return tones


@pytest.fixture
def padded() -> Batch:
    return Batch.collate([tones(1, samples)[0] for samples in (8000, 5217, 6543, 2601)])


@pytest.fixture
def guard(pretrained: PretrainedModel, calibration: Calibration) -> Guard:
    """The shipped model and the small world's calibration, measured in this process."""
    return Guard(pretrained, calibration, fpr=0.05, workers=1)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
