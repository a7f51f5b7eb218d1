"""Guided NIP: a small network predicts the inverse perturbation in one forward pass.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.fingerprint import weights_sha256
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.training_attacks import FAMILIES

__all__ = ["GuidedNip"]

_LARGEST_SIZE = 1024  # of its network, as files may describe it
_KIND = "guided purifier"


class GuidedNip(Purifier):
    """Compute x_def = clip(x̂ + n + g(x̂ + n)), with a network g trained once for one model.

    The goal is that of NIP: to restore the influential neurons to their benign values. Instead of
    searching a pool of inverse perturbations for each input, a network that was trained with its
    loss at these neurons predicts one (see ``train_guided``). It needs no label, no clean original
    and no gradient. n is white noise, if the purifier was trained with it. Noise may be added to
    the raw input as well, against an attacker who knows the whole defence (denoised smoothing:
    Salman et al., NeurIPS 2020).

    Deviation: the published method (NIP, Eq. 5, Eq. 6, Eq. 7 and Eq. 8) selects one of the
    gradients of benign inputs, which without the label is no better than noise. This purifier is a
    relative of the guided denoiser of Liao et al. (CVPR 2018).

    Args:
        net: Network g, in evaluation mode.
        bounds: Range of the model's input.
        noise: Standard deviation of n, in units of the model's input; 0 adds none.
        snr_db: Signal-to-noise ratio of the noise added to raw input first; None adds none.
        raw_bounds: Range of raw input; required with ``snr_db``.
        seen: Content hashes (``Audio.content_sha256``) of everything it was trained on.
        training: Settings of the training, as plain JSON values.

    Raises:
        InputError: If ``noise`` is out of range, or ``snr_db`` is given without ``raw_bounds``.
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
        if not 0 <= noise <= 0.5:
            raise InputError(f"noise is {noise}, expected 0 to 0.5 in units of the model's input")
        self.net = net
        self.bounds = Bounds.of(bounds)
        if snr_db is not None and raw_bounds is None:
            raise InputError(
                f"snr_db is {snr_db} without raw_bounds, expected both or neither; pass raw_bounds"
            )
        self.noise = noise
        if snr_db is not None and raw_bounds is not None:
            self.before = GaussianNoise(snr_db=snr_db, bounds=raw_bounds)
        self.random = noise > 0 or snr_db is not None  # type: ignore[misc]
        self.training = dict(training or {})
        self._seen = frozenset(seen)

    @property
    def name(self) -> str:
        """``guided``, with the noise and the relevant settings of the training."""
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
        """Content hashes of everything the purifier was trained on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the settings of the training and a fingerprint of the weights."""
        return {
            "name": "guided",
            "noise": self.noise,
            "snr_db": None if self.before is None else self.before.snr_db,
            "training": self.training,
            "weights": weights_sha256(self.net)[:16],
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add the noise, if there is any, and the predicted inverse perturbation."""
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
        """Write the purifier atomically, with the weights of convolutions as 16-bit floats.

        Args:
            path: Path of the file.
            model_id: Identity of the model that the purifier was trained for and is bound to.
            force: Whether an existing file is overwritten.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        save_state(path, self.to_state(model_id), force=force)

    def to_state(self, model_id: str) -> State:
        """Return everything that ``save`` writes."""
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
        return State(_KIND, model_id, tensors, meta)

    @classmethod
    def load(cls, path: Path | str, *, model_id: str | None = None) -> Self:
        """Load a purifier that ``save`` wrote.

        Args:
            path: Path of the file.
            model_id: Identity of the model to defend; None skips the comparison.

        Raises:
            StateError: If the file holds no guided purifier, or one of another model.
            HashMismatchError: If the file was modified after it was saved.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        with reading_state(Path(path)):
            return cls.from_state(state)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a purifier from ``to_state``."""
        raw_bounds = state.meta.get("raw_bounds")
        sizes = state.meta["channels"], state.meta["width"]
        if not all(type(size) is int and 1 <= size <= _LARGEST_SIZE for size in sizes):
            raise ValueError(f"the sizes of its network are {sizes}, not 1 to {_LARGEST_SIZE}")
        net = InverseNet(state.meta["channels"], width=state.meta["width"])
        net.load_state_dict(state.tensors)  # this converts 16-bit weights to 32 bits
        return cls(
            net.eval().requires_grad_(False),
            bounds=Bounds(*state.meta["bounds"]),
            noise=state.meta["noise"],
            snr_db=state.meta.get("snr_db"),
            raw_bounds=None if raw_bounds is None else Bounds(*raw_bounds),
            seen=state.meta["seen"],
            training=state.meta["training"],
        )
