"""Channel-wise activation suppressing (CAS): weight channels by their relevance to the class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError

__all__ = ["ChannelSuppression"]


class ChannelSuppression(nn.Module):
    """Channel-wise activation suppressing (CAS; Bai et al., ICLR 2021, arXiv 2103.08307, Sec. 3).

    A linear classifier M reads each channel's mean over time, and channel k is multiplied by
    M[c, k], its weight for class c. In training, c is the true class; otherwise it is the class
    that M predicts. Training adds the cross-entropy of M's scores to the loss
    (``nip_audio.training.defence_training``).

    The choice of the class has no gradient; for a fixed class the module is differentiable.

    Args:
        channels: Number K of channels.
        classes: Number C of classes.

    Raises:
        InputError: If there are fewer than two classes.

    Example:
        >>> import torch
        >>> tuple(ChannelSuppression(8, 3)(torch.rand(2, 8, 5)).shape)
        (2, 8, 5)
    """

    def __init__(self, channels: int, classes: int) -> None:
        """Build the classifier."""
        super().__init__()
        if classes < 2:
            raise InputError(
                f"CAS has {classes} classes, expected at least two; pass n_classes, the number of "
                "training classes"
            )
        self.classifier = nn.Linear(channels, classes)
        self._labels: Tensor | None = None

    @contextmanager
    def given_labels(self, labels: Tensor) -> Iterator[None]:
        """Use the given true classes (B,) while the context is open, for training."""
        self._labels = labels
        try:
            yield
        finally:
            self._labels = None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Multiply each channel by its weight for the class.

        Args:
            x: (B, K, T) activations.
            lengths: (B,) valid positions; None means all T.

        Returns:
            (B, K, T) weighted activations.
        """
        scores = self.classifier(masked_mean(x, lengths))
        chosen = scores.argmax(dim=1) if self._labels is None else self._labels
        weighted: Tensor = x * self.classifier.weight[chosen][:, :, None]
        return weighted
