"""Turn a trained classifier module into the head of an instrumented model."""

from __future__ import annotations

from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel, OutputKind
from nip_audio.errors import InputError

__all__ = ["head_of", "model_of"]


def head_of(classifier: nn.Module) -> tuple[nn.Module, OutputKind]:
    """Return a head (B, D) → (B, C) that scores like the classifier, and its output kind.

    A linear layer returns logits. SpeechBrain's ECAPA ``Classifier`` returns cosines, although
    ``classify_batch`` calls them log posteriors.

    Args:
        classifier: ``torch.nn.Linear``, or SpeechBrain's ``Classifier`` without hidden layers.

    Raises:
        InputError: If the classifier is any other module.
    """
    if isinstance(classifier, nn.Linear):
        return classifier, "logits"
    if isinstance(classifier, Classifier) and len(classifier.blocks) == 0:
        return CosineHead(classifier.weight), "cosine"
    raise InputError(
        f"the classifier is a {type(classifier).__name__}, expected torch.nn.Linear or "
        "SpeechBrain's ECAPA Classifier without hidden layers"
    )


def model_of(
    front_end: nn.Module, network: nn.Module, classifier: nn.Module, *, scale: float
) -> InstrumentedModel:
    """Build an instrumented model from the modules that a recipe trains.

    Args:
        front_end: Module that turns waveforms into features.
        network: Module that embeds features.
        classifier: Classifier of the embeddings; see ``head_of``.
        scale: Factor from cosines to logits; 1 for a linear classifier.

    Raises:
        InputError: If the classifier has an unknown type.
    """
    head, output_kind = head_of(classifier)
    return InstrumentedModel(
        network,
        front_end=front_end,
        head=head,
        output_kind=output_kind,
        bounds=Bounds(-1.0, 1.0),
        scale=scale,
    )
