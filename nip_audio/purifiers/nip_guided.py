"""Guided NIP: the inverse perturbation, predicted by a small network in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier
from nip_audio.purifiers.inverse_net import InverseNet

__all__ = ["GuidedNip"]

_KIND = "guided purifier"


class GuidedNip(Purifier):
    """x_def = clip(x̂ + n + g(x̂ + n)), g a network trained once for one model.

    NIP's aim, to bring the influential neurons back to their benign values, amortised: instead of
    searching a pool of inverse perturbations for each input, a network that was trained with its
    loss at these neurons predicts one (``train_guided``). It needs no label, no clean original and
    no gradient. n is white noise, where the purifier was trained with some.

    Deviation: NIP, Eq. 5–8, pick one of the gradients of benign inputs, which without the label is
    no better than noise; a relative of the guided denoiser of Liao et al. (CVPR 2018).

    Args:
        net: g, in evaluation mode.
        bounds: Range of the model's input.
        noise: Standard deviation of n, in units of the model's input; 0 is none.
        seen: ``Audio.content_sha256`` of everything it was trained on.
        training: What it was trained with, as plain JSON values.

    Raises:
        InputError: If the noise makes no sense.
    """

    level: Level = "input"  # type: ignore[misc]
    differentiable = True

    def __init__(
        self,
        net: InverseNet,
        *,
        bounds: Bounds,
        noise: float = 0.0,
        seen: Iterable[str] = (),
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """See the class."""
        if not 0 <= noise <= 0.5:
            raise InputError(f"noise is {noise}, expected 0 to 0.5 in units of the model's input")
        self.net = net
        self.bounds = bounds
        self.noise = noise
        self.random = noise > 0  # type: ignore[misc]
        self.training = dict(training or {})
        self._seen = frozenset(seen)

    @property
    def name(self) -> str:
        """``guided``, with the noise and how it was trained where that matters."""
        parts = ["guided"]
        if self.training.get("adaptive_share"):
            parts.append("adaptive")
        if self.noise:
            parts.append(f"noise {self.noise:g}")
        return " + ".join(parts)

    @property
    def seen(self) -> frozenset[str]:
        """What it was trained on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the training and a fingerprint of the weights."""
        total = float(sum(p.detach().double().abs().sum() for p in self.net.parameters()))
        return {
            "name": "guided",
            "noise": self.noise,
            "training": self.training,
            "weights": round(total, 6),
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
        net = InverseNet(state.meta["channels"], width=state.meta["width"])
        net.load_state_dict(state.tensors)  # copied into 32 bits
        return cls(
            net.eval().requires_grad_(False),
            bounds=Bounds(*state.meta["bounds"]),
            noise=state.meta["noise"],
            seen=state.meta["seen"],
            training=state.meta["training"],
        )
