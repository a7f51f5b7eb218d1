"""Load the GE2E encoder of the package Resemblyzer (generalised end-to-end loss, Wan et al. 2018).

The package's weights are read; its code is neither imported nor run. The embedding equals
``VoiceEncoder.embed_utterance(normalize_volume(wav, -30, increase_only=True))``, and gradients
reach the waveform.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.audio.front_ends import BandRange, MelBands
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, embedder, file_hash, read_plain
from nip_audio.models.sources.plain_weights import read_checkpoint
from nip_audio.models.sources.windowed import (
    WindowedLstm,
    mel_bands,
    package_folder,
    take_weights,
)

__all__ = ["Ge2e", "Ge2eFrontEnd", "front_end", "load"]

_FILE = "pretrained.pt"
_WINDOW = 160
_STEP = 77  # frames: round(100 / 1.3), of 1.3 windows a second
_COVERED = 120  # frames: the last window counts if 75 % of it are speech
_TAIL = 2  # frames after the last one centred in the waveform that still see its end


class Ge2eFrontEnd(MelBands):
    """Power in mel bands, with the frames beyond the end that windows still see.

    Resemblyzer fills a waveform up with zeros to whole windows. Frames there hold the end of the
    waveform as long as the analysis window reaches back to it: two frames.
    """

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of frames of (B,) numbers of samples."""
        return super().frames(samples) + _TAIL

    def decibels(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """Return the power of the bands (B, F, T) in decibels."""
        return super().decibels(nn.functional.pad(wavs, (0, _TAIL * self.hop_samples)), lengths)


class Ge2e(WindowedLstm):
    """GE2E encoder on linear mel power; it sees windows of 1.6 s."""

    def __init__(self, band_range: BandRange) -> None:
        """Build the network for levels in a range of decibels."""
        super().__init__(
            hidden=256,
            layers=3,
            size=256,
            window_frames=_WINDOW,
            step_frames=_STEP,
            activation=nn.ReLU(),
            fewest_frames=1 + _TAIL,
        )
        self.band_range = band_range

    def features(self, x: Tensor) -> Tensor:
        """Return the power of levels in [0, 1]."""
        return 10 ** (self.band_range.to_decibels(x) / 10)

    def window_count(self, frames: Tensor) -> Tensor:
        """Return the number of windows of (B,) numbers of frames."""
        centred = frames - _TAIL
        reach = (centred - _WINDOW + _STEP).clamp_min(0)
        more = torch.div(reach, _STEP, rounding_mode="floor")
        # the last window starts at the frame more * _STEP
        uncovered = (more > 0) & (centred <= more * _STEP + _COVERED)
        return 1 + more - uncovered.to(more)


def front_end() -> Ge2eFrontEnd:
    """Build the encoder's front end."""
    return mel_bands(
        Ge2eFrontEnd,
        n_fft=400,
        window=torch.hann_window(400),
        centred=True,
        floor=1e-10,
        band_range=BandRange(-80.0, 30.0),
        level_dbfs=-30.0,
    )


def load(spec: SourceSpec, *, trust: bool) -> SourceModel:
    """Load the encoder from the installed package.

    Args:
        spec: Source, without location or options.
        trust: Not needed: no code is run.

    Raises:
        ModelCardError: If the weights cannot be read, or are others.
        MissingDependencyError: If the package is not installed.
    """
    folder = package_folder(
        spec,
        "resemblyzer",
        install="the package Resemblyzer (pip install --no-deps resemblyzer==0.1.4)",
        extra=None,
    )
    data = spec.verified(_FILE, read_plain(folder, _FILE))
    bands = front_end()
    network = Ge2e(bands.band_range)
    take_weights(network, _renamed(_state(data, str(folder / _FILE))), folder / _FILE)
    return SourceModel(
        embedder(network, bands),
        name="resemblyzer",
        sample_rate_hz=bands.sample_rate_hz,
        files={_FILE: file_hash(data)},
        architecture="GE2E: 3 LSTM layers of 256 on 40 mel bands, windows of 1.6 s",
        licence="Apache-2.0",
        notes=(
            "Long silences are not cut out, as the package does with webrtcvad before it embeds.",
        ),
    )


def _state(data: bytes, path: str) -> dict[str, Any]:
    """Read the weights of a checkpoint."""
    try:
        found = read_checkpoint(data, Path(path))
    except ModelCardError as err:
        raise ModelCardError(
            f"{path} is no checkpoint of Resemblyzer ({err}); expected tensors under "
            "'model_state': install the package again"
        ) from err
    state = found.get("model_state") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping):
        raise ModelCardError(
            f"{path} is no checkpoint of Resemblyzer, expected tensors under 'model_state'; "
            "install the package again"
        )
    return {str(name): value for name, value in state.items()}


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """Name parameters as ``WindowedLstm`` does: one LSTM a layer, and a convolution of kernel 1."""
    found = {}
    for name, value in state.items():
        part, _, layer = name.rpartition("_l")
        if name.startswith("lstm.") and layer.isdigit():
            found[f"lstm.{layer}.{part}_l0"] = value
        else:
            found[name] = value
    weight = found.get("linear.weight")
    if isinstance(weight, Tensor):
        found["linear.weight"] = weight[..., None]
    return found
