"""CAS: weigh channels by what they speak for the class at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError

__all__ = ["ChannelSuppression"]


class ChannelSuppression(nn.Module):
    """Channel-wise activation suppressing (CAS; Bai et al., ICLR 2021, arXiv 2103.08307, Sec. 3).

    A dense classifier M looks at each channel's mean over time, and channel k is multiplied by
    M[c, k], its weight for class c: in training the true one, else the one that M itself names.
    The training adds the cross-entropy of M's scores to the loss
    (``nip_audio.training.defence_training``).

    The choice of a class has no gradient; given the choice, the module is differentiable.

    Args:
        channels: K.
        classes: C.

    Raises:
        InputError: If there are fewer than two classes.

    Example:
        >>> import torch
        >>> tuple(ChannelSuppression(8, 3)(torch.rand(2, 8, 5)).shape)
        (2, 8, 5)
    """

    def __init__(self, channels: int, classes: int) -> None:
        """See the class."""
        super().__init__()
        if classes < 2:
            raise InputError(
                f"CAS for {classes} classes, expected two or more; pass n_classes, as many as the "
                "classifier has"
            )
        self.classifier = nn.Linear(channels, classes)
        self._labels: Tensor | None = None

    @contextmanager
    def told(self, labels: Tensor) -> Iterator[None]:
        """Take (B,) classes as given while the context is open; for training alone."""
        self._labels = labels
        try:
            yield
        finally:
            self._labels = None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Weigh the channels: (B, K, T) → (B, K, T).

        Args:
            x: Activations.
            lengths: (B,) valid positions; None means all T.
        """
        scores = self.classifier(masked_mean(x, lengths))
        chosen = scores.argmax(dim=1) if self._labels is None else self._labels
        weighed: Tensor = x * self.classifier.weight[chosen][:, :, None]
        return weighed
