"""What a trained classifier module means as the head of an instrumented model."""

from __future__ import annotations

from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel, OutputKind
from nip_audio.errors import InputError

__all__ = ["head_of", "model_of"]


def head_of(classifier: nn.Module) -> tuple[nn.Module, OutputKind]:
    """Return a head (B, D) → (B, C) that scores as the classifier does, and what it returns.

    SpeechBrain's ECAPA ``Classifier`` returns cosines, though ``classify_batch`` calls them log
    posteriors; a linear layer returns logits.

    Raises:
        InputError: For any other module.
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
    """Put the modules that a recipe trains together: waveforms in, scores of its classes out.

    Raises:
        InputError: If the classifier is of an unknown kind.
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
