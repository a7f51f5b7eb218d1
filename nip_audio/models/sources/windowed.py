"""Speaker encoders that embed windows of fixed length with an LSTM and average the results.

GE2E (generalised end-to-end) encoders are built this way: Resemblyzer's, and VoiceFilter's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import librosa
import torch
from torch import Tensor, nn

from nip_audio.audio.front_ends import MelBands
from nip_audio.core.adapter import length_mask, masked_mean
from nip_audio.errors import MissingDependencyError, ModelCardError
from nip_audio.models._masking import require_bands, require_frames
from nip_audio.models.sources.base import SourceSpec

__all__ = ["LstmLayer", "WindowedLstm", "mel_bands", "package_folder", "take_weights"]

SAMPLE_RATE_HZ = 16000
BANDS = 40
HOP_SAMPLES = 160

Bands = TypeVar("Bands", bound=MelBands)


class LstmLayer(nn.Module):
    """One layer of an LSTM over windows: (B, C, T, W) → (B, C', T, W), each window on its own.

    Args:
        channels: Channels C of the input.
        hidden: Channels C' of the output.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, T, W)."""
        batch, _, frames, windows = x.shape
        rows = x.permute(0, 3, 2, 1).flatten(0, 1)  # a window is an item of the LSTM
        out: Tensor = self.lstm(rows)[0]
        return out.reshape(batch, windows, frames, -1).permute(0, 3, 2, 1)


class WindowedLstm(nn.Module, ABC):
    """LSTM encoder of windows: (B, F, T) in [0, 1] → (B, D) of unit length.

    Features are cut into windows. The last state of each window goes through a linear layer, is
    normalised, and the mean over windows is normalised again. Layers that can be tapped are
    ``lstm.N`` (B, C, frames of a window, W), ``linear`` and ``activation`` (B, D, W), and
    ``output`` (B, D). The windows W are the last axis, since their number follows from the length
    of the item.

    A window whose embedding is zero, as silence may give, counts as zero and not as NaN.

    Args:
        hidden: Channels of each LSTM layer.
        layers: Number of LSTM layers.
        size: Size D of the embedding.
        window_frames: Frames of a window.
        step_frames: Frames from one window to the next.
        activation: What follows on the linear layer.
        fewest_frames: Smallest number of frames of an item.
    """

    def __init__(
        self,
        *,
        hidden: int,
        layers: int,
        size: int,
        window_frames: int,
        step_frames: int,
        activation: nn.Module,
        fewest_frames: int = 1,
    ) -> None:
        super().__init__()
        self.window_frames = window_frames
        self.step_frames = step_frames
        self.fewest_frames = fewest_frames
        self.lstm = nn.ModuleList(
            LstmLayer(hidden if depth else BANDS, hidden) for depth in range(layers)
        )
        self.linear = nn.Conv1d(hidden, size, 1)  # of kernel 1: a linear layer at each window
        self.activation = activation
        self.output = nn.Identity()

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Map model input (B, F, T) in [0, 1] to what the weights were trained on.

        Zero in the result is what fills up a window that an item leaves incomplete.
        """

    @abstractmethod
    def window_count(self, frames: Tensor) -> Tensor:
        """Return the number of windows of (B,) numbers of frames."""

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid windows of a layer's output, (B,), given the valid frames."""
        return self.window_count(lengths)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, F, T) levels of bands in [0, 1].
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, D) embeddings of unit length.

        Raises:
            InputError: If the number of bands is another, or an item is too short.
        """
        require_bands(x, BANDS)
        require_frames(x, lengths, self.fewest_frames)
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[2], device=x.device)
        counts = self.window_count(lengths)
        y = self._windows(self.features(x) * length_mask(lengths, x.shape[2])[:, None, :], counts)
        for layer in self.lstm:
            y = layer(y)
        each = nn.functional.normalize(self.activation(self.linear(y[:, :, -1, :])), dim=1)
        embedding: Tensor = self.output(nn.functional.normalize(masked_mean(each, counts), dim=1))
        return embedding

    def _windows(self, features: Tensor, counts: Tensor) -> Tensor:
        """Cut (B, F, T) into windows (B, F, frames of a window, W), filled up with zeros."""
        end = (int(counts.max()) - 1) * self.step_frames + self.window_frames
        filled = nn.functional.pad(features, (0, max(end - features.shape[2], 0)))[:, :, :end]
        return filled.unfold(2, self.window_frames, self.step_frames).transpose(2, 3)


def mel_bands(kind: type[Bands], *, n_fft: int, **settings: Any) -> Bands:
    """Build a front end with the mel bands that librosa has by default.

    Args:
        kind: Class of the front end.
        n_fft: Size of the Fourier transform.
        settings: Further arguments of the class.
    """
    filters = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=n_fft, n_mels=BANDS)
    centres = librosa.mel_frequencies(BANDS + 2, fmax=SAMPLE_RATE_HZ / 2)[1:-1]
    return kind(
        torch.from_numpy(filters),
        torch.from_numpy(centres),
        sample_rate_hz=SAMPLE_RATE_HZ,
        n_fft=n_fft,
        hop_samples=HOP_SAMPLES,
        **settings,
    )


def take_weights(network: WindowedLstm, weights: dict[str, Tensor], file: Path) -> None:
    """Copy weights into a network.

    Args:
        network: Network to fill.
        weights: Tensor of each of its parameters.
        file: File that they were read from, for the message.

    Raises:
        ModelCardError: If a parameter is missing, has another shape or is not finite.
    """
    for name, parameter in network.named_parameters():
        found = weights.get(name)
        if not isinstance(found, Tensor) or found.shape != parameter.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else "nothing"
            raise ModelCardError(
                f"{file} holds {got} for the parameter {name!r}, expected "
                f"{tuple(parameter.shape)}; install the package again"
            )
        if not bool(found.isfinite().all()):
            raise ModelCardError(
                f"{file} holds NaN or infinity in {name!r}, expected finite numbers; install the "
                "package again"
            )
    network.load_state_dict({name: weights[name] for name, _ in network.named_parameters()})


def package_folder(spec: SourceSpec, package: str, *, install: str, extra: str | None) -> Path:
    """Find the folder of an installed package without importing it.

    Args:
        spec: Source, which may have neither location nor options.
        package: Name by which the package is imported.
        install: What needs to be installed, in words.
        extra: Extra of nip-audio that brings it, if one does.

    Raises:
        ModelCardError: If the source has a location or an option.
        MissingDependencyError: If the package is not installed.
    """
    spec.take({})
    if spec.location:
        raise ModelCardError(
            f"{spec} names a location, expected none: the weights are those of the installed "
            f"package; write {spec.kind!r}"
        )
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(f"the model {spec.kind!r} needs {install}", extra=extra)
    return Path(next(iter(found.submodule_search_locations)))
