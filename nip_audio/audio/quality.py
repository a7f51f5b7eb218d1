"""What a listener would notice of a change: signal-to-noise ratio and intelligibility.

PESQ is left out on purpose: its packages compile C code on installation, and ITU-T P.862 is
licensed. STOI takes its place; it asks whether speech is still understood, not whether it sounds
good, so inaudible noise and a slight hiss both leave it near 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from typing import Any

from torch import Tensor

from nip_audio.errors import InputError, MissingDependencyError

__all__ = ["MAX_SNR_DB", "TooLittleSpeechError", "snr_db", "stoi", "stoi_available"]

MAX_SNR_DB = 200.0
"""Stands for no change at all, which has no ratio; float32 cannot hold a change this small."""

MIN_DURATION_S = 0.4
"""STOI compares stretches of 30 frames, 12.8 ms apart."""


class TooLittleSpeechError(InputError):
    """A clip has too little speech for its intelligibility to be measured."""


def snr_db(clean: Tensor, changed: Tensor) -> float:
    """Return the ratio of the energies of a clip and of its change, in decibels.

    Args:
        clean: (N,).
        changed: (N,).

    Returns:
        At most ``MAX_SNR_DB``.

    Raises:
        InputError: If the two are no clips of one length, not finite, or ``clean`` is silent.

    Example:
        >>> import torch
        >>> round(snr_db(torch.ones(4), torch.full((4,), 1.5)), 2)
        6.02
    """
    clean, changed = _pair(clean, changed)
    noise = float((changed - clean).norm())
    if noise == 0:
        return MAX_SNR_DB
    return min(20 * math.log10(float(clean.norm()) / noise), MAX_SNR_DB)


def stoi(clean: Tensor, changed: Tensor, *, sample_rate_hz: int) -> float:
    """Return the short-time objective intelligibility of a changed clip (Taal et al., 2011).

    Args:
        clean: (N,) speech; padding does not belong to it.
        changed: (N,) in step with it: a delay counts as a change.
        sample_rate_hz: Sample rate of both waveforms, which are compared at 10 kHz.

    Returns:
        A mean correlation: 1 is as clear as ``clean``, about 0 (or a little less) is lost.

    Raises:
        InputError: If the two are no clips of one length, not finite, or ``clean`` is silent.
        TooLittleSpeechError: If ``clean`` holds too little speech to tell.
        MissingDependencyError: Without the package pystoi.
    """
    clean, changed = _pair(clean, changed)
    measure = _pystoi().stoi
    too_short = (
        f"got {len(clean) / sample_rate_hz:.2f} s, expected more than {MIN_DURATION_S:g} s of "
        "speech without pauses for STOI; take a longer clip"
    )
    if len(clean) < MIN_DURATION_S * sample_rate_hz:
        raise TooLittleSpeechError(too_short)
    with warnings.catch_warnings():
        # pystoi would warn and return 1e-5, as if nothing were understood
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(measure(clean.cpu().numpy(), changed.cpu().numpy(), sample_rate_hz))
        except RuntimeWarning as err:
            raise TooLittleSpeechError(too_short) from err


def stoi_available() -> bool:
    """Tell whether pystoi is installed; where it is not, tables say so."""
    return importlib.util.find_spec("pystoi") is not None


def _pystoi() -> Any:
    try:
        return importlib.import_module("pystoi")
    except ImportError as err:
        raise MissingDependencyError("STOI needs pystoi", extra="quality") from err


def _pair(clean: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    if clean.ndim != 1 or clean.shape != changed.shape:
        raise InputError(
            f"got clips of shapes {tuple(clean.shape)} and {tuple(changed.shape)}, expected (N,) "
            "twice; compare one clip at a time, cut to one length"
        )
    clean, changed = clean.detach().double(), changed.detach().double()
    if not (clean.isfinite().all() and changed.isfinite().all()):
        raise InputError(
            "got samples that are NaN or infinite, expected finite ones; drop the clip"
        )
    if not clean.any():
        raise InputError("the clean clip is silent, expected speech: silence has no ratio to noise")
    return clean, changed
