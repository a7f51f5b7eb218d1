"""Use models that have no directory of this toolkit: just trained, or SpeechBrain's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nip_audio.core.fingerprint import weights_sha256
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.taps import find_layers
from nip_audio.models.cards import CARD_VERSION, ModelCard
from nip_audio.models.pretrained import PretrainedModel

__all__ = ["unpublished"]


def unpublished(
    model: InstrumentedModel,
    *,
    name: str,
    default_taps: Sequence[str],
    sample_rate_hz: int = 16000,
) -> PretrainedModel:
    """Wrap a model in memory as a ``PretrainedModel`` for guards, calibrations and searches.

    Its identity is the hash of its weights and of the printed form of its modules. Several
    processes cannot measure it, since they would have to load it from a directory.

    Args:
        model: Model of this toolkit, or from ``instrument``.
        name: Name of the model in records.
        default_taps: Layers of the network that detectors measure, early ones first.
        sample_rate_hz: Sample rate of the model's waveforms.

    Raises:
        LayerNotFoundError: If a layer is not in the network.
    """
    network: nn.Module = getattr(model.network, "embedding_model", model.network)
    find_layers(network, tuple(default_taps))
    card = {
        "format_version": CARD_VERSION,
        "name": name,
        "sample_rate_hz": sample_rate_hz,
        "output_kind": model.output_kind,
        "scale": model.scale,
        "labels": list(model.labels),
        "default_taps": list(default_taps),
        "files": {"weights": weights_sha256(model)},
        "calibration": None,
        "training": {},
        "metrics": {},
    }
    return PretrainedModel(ModelCard(Path(name), card), model.eval())
