"""Read weights that ``torch.save`` wrote, without running code."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.errors import ModelCardError

__all__ = ["Ignored", "fit_weights", "read_checkpoint", "state_of"]

_NOT_PLAIN = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]
"""What torch raises at anything but tensors and plain values."""

_READ_ERRORS = (
    _NOT_PLAIN,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch raises at damaged files."""


class Ignored:
    """Stands for an object of a checkpoint that is not needed, and does nothing."""

    def __init__(self, *args: object) -> None:
        """Forget the arguments."""


def read_checkpoint(data: bytes, path: Path, *, ignored: Sequence[str] = ()) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain values only.

    Args:
        data: Content of the file.
        path: Path of the file, for errors.
        ignored: Full names of classes whose objects are replaced by ``Ignored``; none is imported.

    Raises:
        ModelCardError: If it holds anything else.
    """
    stand_ins: list[Any] = [(Ignored, name) for name in ignored]
    try:
        with torch.serialization.safe_globals(stand_ins):
            # weights_only admits tensors and plain values: no code of the file runs
            return torch.load(  # noqa: TID251
                io.BytesIO(data), map_location="cpu", weights_only=True
            )
    except _READ_ERRORS as err:
        reason = str(err).strip().splitlines()[-1] if str(err).strip() else type(err).__name__
        raise ModelCardError(
            f"{path} is no file of weights alone ({reason}); expected what torch.save writes of a "
            "state dict"
        ) from err


def state_of(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a checkpoint is, or holds as ``state_dict``.

    Raises:
        ModelCardError: If there is none.
    """
    if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get("state_dict"), Mapping):
        checkpoint = checkpoint["state_dict"]
    if (
        not isinstance(checkpoint, Mapping)
        or not checkpoint
        or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in checkpoint.items())
    ):
        raise ModelCardError(f"{path} holds no state dict, expected tensors by name; restore it")
    return dict(checkpoint)


def fit_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a module; all names and shapes must fit.

    Raises:
        ModelCardError: If they do not, or a value is not finite.
    """
    own = module.state_dict()
    for name, tensor in state.items():
        # of the same shape only: a file of few bytes may hold a tensor that repeats them endlessly
        fits = name in own and own[name].shape == tensor.shape
        if fits and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelCardError(
                f"{path}: {name} has values that are not finite, expected finite weights; restore "
                "the file"
            )
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as err:
        lines = [line.strip() for line in str(err).splitlines()[1:3]]
        raise ModelCardError(
            f"{path} does not fit the architecture that is described beside it "
            f"({' '.join(lines)[:300]}); use the files of one model"
        ) from err
