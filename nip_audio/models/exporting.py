"""Write a model or a purifier as an ONNX graph, for programs without torch."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nip_audio.audio.features import LogMel
from nip_audio.audio.front_ends import Framing
from nip_audio.core.adapter import Bounds
from nip_audio.core.state import write_atomic
from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.models.pretrained import PretrainedModel

__all__ = [
    "EMBEDDING",
    "PURIFIED",
    "SPECTROGRAM",
    "WAVEFORM",
    "ExportablePurifier",
    "export_onnx",
    "export_purifier",
]

WAVEFORM = "waveform"
"""Name of the input of an exported model."""

EMBEDDING = "embedding"
"""Name of the output of an exported model."""

SPECTROGRAM = "spectrogram"
"""Name of the input of an exported purifier."""

PURIFIED = "purified"
"""Name of the output of an exported purifier."""

_OPSET = 18


class ExportablePurifier(Protocol):
    """What a guided purifier (``GuidedNip``) has that its graph needs."""

    net: Any
    bounds: Bounds
    random: bool

    @property
    def name(self) -> str:
        """Name for records."""
        ...


def export_onnx(pretrained: PretrainedModel, path: Path, *, force: bool = False) -> None:
    """Write an audio model as an ONNX graph of waveforms.

    The graph takes ``waveform`` (batch, samples), 32-bit floats in [-1, 1] at the model's sample
    rate, of any number of items and samples, and returns ``embedding`` (batch, D). All items are
    valid to their ends: embed recordings of different lengths one by one. Metadata of the graph
    give the sample rate and the identity of the model.

    Args:
        pretrained: Model with a front end.
        path: File to write; its folder must exist.
        force: Whether an existing file is overwritten.

    Raises:
        InputError: If the model has another front end than ``LogMel``, as image models have.
        OutputError: If the file exists and ``force`` is false, or it cannot be written.
        MissingDependencyError: If onnx or onnxscript is not installed.
    """
    front_end = pretrained.model.front_end
    if not isinstance(front_end, LogMel):
        found = "no front end" if front_end is None else f"the front end {type(front_end).__name__}"
        raise InputError(
            f"{pretrained.card.name} has {found}, expected {LogMel.__name__}; only models of "
            "speech that come with nip-audio, or were trained by its recipes, are exported"
        )
    rate = pretrained.card.sample_rate_hz
    generator = torch.Generator().manual_seed(0)
    example = 0.1 * torch.randn(2, rate * 3 // 2, generator=generator)
    said = {"sample_rate": str(rate), "model_id": pretrained.model_id}
    names = (WAVEFORM, EMBEDDING)
    embedder = _Embedder(front_end, pretrained.model.network)
    data = _graph(embedder, example, {0: "batch", 1: "samples"}, names, said)
    write_atomic(path, data, force=force)


def export_purifier(
    purifier: ExportablePurifier,
    path: Path,
    *,
    bands: int = 40,
    model_id: str = "",
    force: bool = False,
) -> None:
    """Write a guided purifier of spectrograms as an ONNX graph.

    The graph takes ``spectrogram`` (batch, bands, frames), which is the model's input in [0, 1], of
    any number of items and frames, and returns ``purified`` of the same shape. All frames of all
    items are valid.

    Args:
        purifier: Purifier without noise.
        path: File to write; its folder must exist.
        bands: Bands of the model's input.
        model_id: Identity of the model that it was trained for; kept in the graph's metadata.
        force: Whether an existing file is overwritten.

    Raises:
        InputError: If the purifier draws noise, or was trained for images.
        OutputError: If the file exists and ``force`` is false, or it cannot be written.
        MissingDependencyError: If onnx or onnxscript is not installed.
    """
    if purifier.random:
        raise InputError(
            f"the purifier draws noise ({purifier.name}), expected one without: a graph would draw "
            "the same noise every time, which an attacker could learn"
        )
    if purifier.net.channels != 1:
        raise InputError(
            f"the purifier takes {purifier.net.channels} channels, expected 1; purifiers of images "
            "and of complex spectra are not exported"
        )
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, bands, 101, generator=generator)
    said = {"model_id": model_id, "purifier": purifier.name}
    names = (SPECTROGRAM, PURIFIED)
    data = _graph(_Purifier(purifier), example, {0: "batch", 2: "frames"}, names, said)
    write_atomic(path, data, force=force)


class _Embedder(nn.Module):
    def __init__(self, front_end: LogMel, network: nn.Module) -> None:
        super().__init__()
        self.front_end = copy.deepcopy(front_end)
        self.front_end.fbank.compute_STFT = _Fourier(front_end.framing)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        embeddings: Tensor = self.network(self.front_end(x)[0], None)
        return embeddings


class _Fourier(nn.Module):
    """Short-time Fourier transform as a convolution: (B, N) → (B, T, bins, 2).

    ONNX has an operator for it, which few programs run. With a front end run by onnxruntime,
    embeddings differ by 2e-5 of the largest value with it and by 3e-7 with the convolution, and the
    export is twice as fast.
    """

    kernels: Tensor

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        n_fft, window = framing.n_fft, framing.window.double().cpu()
        turns = torch.arange(n_fft // 2 + 1)[:, None] * torch.arange(n_fft) % n_fft
        angles = turns.double() * (2 * math.pi / n_fft)
        before = (n_fft - len(window)) // 2
        window = nn.functional.pad(window, (before, n_fft - len(window) - before))
        kernels = torch.cat([angles.cos() * window, -angles.sin() * window])
        self.register_buffer("kernels", kernels.float()[:, None])
        self.hop_samples = framing.hop_samples
        self.margin = n_fft // 2

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x[:, None], (self.margin, self.margin))
        parts = nn.functional.conv1d(padded, self.kernels, stride=self.hop_samples)
        return torch.stack(parts.chunk(2, dim=1), dim=-1).transpose(1, 2)


class _Purifier(nn.Module):
    def __init__(self, purifier: ExportablePurifier) -> None:
        super().__init__()
        self.net = purifier.net
        self.bounds = purifier.bounds

    def forward(self, x: Tensor) -> Tensor:
        # with lengths of its own the network would take the number of items for a constant
        lengths = torch.full((x.shape[0],), x.shape[2], device=x.device)
        return self.bounds.clip(x + self.net(x[:, None], lengths)[:, 0])


def _graph(
    module: nn.Module,
    example: Tensor,
    axes: Mapping[int, str],
    names: tuple[str, str],
    said: Mapping[str, str],
) -> bytes:
    """Return an ONNX model of a module of one tensor, with the named axes of any size."""
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError as err:
            raise MissingDependencyError(f"export to ONNX needs {package}", extra="onnx") from err
    any_size = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    with _quietly():
        program = torch.export.export(
            module.eval(), (example,), dynamic_shapes=(any_size,), strict=False
        )
        exported: Any = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=[names[0]],
            output_names=[names[1]],
            opset_version=_OPSET,
            verbose=False,
        )
    proto = exported.model_proto
    for value in proto.graph.input:
        for axis, name in axes.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for key, text in said.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text
    data: bytes = proto.SerializeToString()
    return data


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch's progress of an export from the output; errors are raised all the same."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
