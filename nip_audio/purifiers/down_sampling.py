"""Down-sampling (DS): resample to a lower rate and back."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchaudio.functional import resample  # type: ignore[import-untyped]

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_whole
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["DownSampling"]

_MOST_PHASES = 1000  # two rates without a large common divisor need a filter bank of many GB
_ZERO_CROSSINGS = 16  # on either side of the filter; TorchAudio's 6 leave a wide transition band


class DownSampling(Purifier):
    """Resample to a lower rate and back, which removes all frequencies above half that rate.

    Used against attacks on speech by Yang et al. (2018), and as DS in the tables of the paper on
    neuron-level inverse perturbation (NIP).

    Args:
        rate_hz: Lower sample rate.
        sample_rate_hz: Sample rate of the waveforms.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If a rate is out of range, or the two have no large common divisor.
    """

    level: ClassVar[Level] = "raw"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __init__(self, *, rate_hz: int = 8000, sample_rate_hz: int = 16000, bounds: Bounds) -> None:
        check_whole("sample_rate_hz", sample_rate_hz, 1000, 384000, usual=16000)
        check_whole("rate_hz", rate_hz, 500, sample_rate_hz - 1, usual=sample_rate_hz // 2)
        if sample_rate_hz // math.gcd(rate_hz, sample_rate_hz) > _MOST_PHASES:
            raise InputError(
                f"rate_hz is {rate_hz}, expected a rate that has a large common divisor with "
                f"{sample_rate_hz}; use a multiple of 100, e.g. {sample_rate_hz // 2}"
            )
        self.rate_hz = rate_hz
        self.sample_rate_hz = sample_rate_hz
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the lower rate."""
        return f"down-sampling {self.rate_hz} Hz"

    def settings(self) -> dict[str, Any]:
        """Return both sample rates."""
        return {
            "name": "down-sampling",
            "rate_hz": self.rate_hz,
            "sample_rate_hz": self.sample_rate_hz,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Resample to the lower rate and back."""
        return each_item(batch, self._resampled)

    def _resampled(self, x: Tensor) -> Tensor:
        rates = self.sample_rate_hz, self.rate_hz
        low = resample(x, *rates, lowpass_filter_width=_ZERO_CROSSINGS)
        back = resample(low, *rates[::-1], lowpass_filter_width=_ZERO_CROSSINGS)
        return self.bounds.clip(back[..., : x.shape[-1]])
