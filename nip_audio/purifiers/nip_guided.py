"""Guided NIP: the inverse perturbation, predicted by a small network in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.fingerprint import weights_sha256
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.training_attacks import FAMILIES

__all__ = ["GuidedNip"]

_KIND = "guided purifier"


class GuidedNip(Purifier):
    """x_def = clip(x̂ + n + g(x̂ + n)), g a network trained once for one model.

    NIP's aim, to bring the influential neurons back to their benign values, amortised: instead of
    searching a pool of inverse perturbations for each input, a network that was trained with its
    loss at these neurons predicts one (``train_guided``). It needs no label, no clean original and
    no gradient. n is white noise, where the purifier was trained with some; there may be noise in
    the raw input, too, for an attacker who knows it all (denoised smoothing: Salman et al.,
    NeurIPS 2020).

    Deviation: NIP, Eq. 5–8, pick one of the gradients of benign inputs, which without the label is
    no better than noise; a relative of the guided denoiser of Liao et al. (CVPR 2018).

    Args:
        net: g, in evaluation mode.
        bounds: Range of the model's input.
        noise: Standard deviation of n, in units of the model's input; 0 is none.
        snr_db: Ratio of raw input to the noise that is put into it first; None is no noise.
        raw_bounds: Range of raw input; needed for noise in it.
        seen: ``Audio.content_sha256`` of everything it was trained on.
        training: What it was trained with, as plain JSON values.

    Raises:
        InputError: If the noise makes no sense.
    """

    level: Level = "input"  # type: ignore[misc]
    differentiable = True
    before: GaussianNoise | None = None

    def __init__(
        self,
        net: InverseNet,
        *,
        bounds: Bounds,
        noise: float = 0.0,
        snr_db: float | None = None,
        raw_bounds: Bounds | None = None,
        seen: Iterable[str] = (),
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """See the class."""
        if not 0 <= noise <= 0.5:
            raise InputError(f"noise is {noise}, expected 0 to 0.5 in units of the model's input")
        self.net = net
        self.bounds = bounds
        if snr_db is not None and raw_bounds is None:
            raise InputError(f"snr_db is {snr_db} without raw_bounds, expected both or neither")
        self.noise = noise
        if snr_db is not None and raw_bounds is not None:
            self.before = GaussianNoise(snr_db=snr_db, bounds=raw_bounds)
        self.random = noise > 0 or snr_db is not None  # type: ignore[misc]
        self.training = dict(training or {})
        self._seen = frozenset(seen)

    @property
    def name(self) -> str:
        """``guided``, with the noise and how it was trained where that matters."""
        parts = ["guided"]
        unknown = [f for f in FAMILIES if f not in self.training.get("families", FAMILIES)]
        if self.training.get("adaptive_share"):
            parts.append("adaptive")
        elif unknown:
            parts.append(f"{', '.join(unknown)} left out")
        if self.noise:
            parts.append(f"noise {self.noise:g}")
        if self.before is not None:
            parts.append(self.before.name)
        return " + ".join(parts)

    @property
    def seen(self) -> frozenset[str]:
        """What it was trained on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the training and a fingerprint of the weights."""
        return {
            "name": "guided",
            "noise": self.noise,
            "snr_db": None if self.before is None else self.before.snr_db,
            "training": self.training,
            "weights": weights_sha256(self.net)[:16],
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add the predicted inverse perturbation, and before it the noise."""
        x = batch.masked()
        if self.noise:
            drawn = torch.randn(x.shape, generator=generator).to(x)
            x = self.bounds.clip(batch.with_x(x + self.noise * drawn).masked())
        return batch.with_x(self.bounds.clip(x + self._change(x, batch.lengths)))

    def _change(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        image = x if x.dim() == 4 else x[:, None]
        change: Tensor = self.net(image.to(self._dtype), lengths)
        return change.reshape(x.shape).to(x.dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.net.parameters()).dtype

    def save(self, path: Path, *, model_id: str, force: bool = False) -> None:
        """Write atomically, the convolutions' weights as 16-bit floats.

        Args:
            path: The file.
            model_id: What it was trained for, and is bound to.
            force: Overwrite.

        Raises:
            OutputError: As ``save_state``.
        """
        tensors = {
            name: t.half() if t.dim() > 1 else t for name, t in self.net.state_dict().items()
        }
        meta = {
            "channels": self.net.channels,
            "width": self.net.width,
            "bounds": [self.bounds.low, self.bounds.high],
            "noise": self.noise,
            "snr_db": None if self.before is None else self.before.snr_db,
            "raw_bounds": None
            if self.before is None
            else [self.before.bounds.low, self.before.bounds.high],
            "seen": sorted(self.seen),
            "training": self.training,
        }
        save_state(path, State(_KIND, model_id, tensors, meta), force=force)

    @classmethod
    def load(cls, path: Path | str, *, model_id: str | None = None) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: The file.
            model_id: The model it will be used with; None skips the comparison.

        Raises:
            StateError: If it is no guided purifier, or of another model.
            HashMismatchError: If the file was changed.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        raw_bounds = state.meta.get("raw_bounds")
        net = InverseNet(state.meta["channels"], width=state.meta["width"])
        net.load_state_dict(state.tensors)  # copied into 32 bits
        return cls(
            net.eval().requires_grad_(False),
            bounds=Bounds(*state.meta["bounds"]),
            noise=state.meta["noise"],
            snr_db=state.meta.get("snr_db"),
            raw_bounds=None if raw_bounds is None else Bounds(*raw_bounds),
            seen=state.meta["seen"],
            training=state.meta["training"],
        )
