"""Models without a directory of this toolkit's: just trained, or SpeechBrain's own."""

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
    """Return a model in memory as what guards, calibrations and searches work on.

    Its identity is the hash of its weights and of what its modules print as. It cannot be measured
    by several processes, as these would have to load it from somewhere.

    Args:
        model: Of this toolkit, or from ``instrument``.
        name: For records.
        default_taps: Layers of its network that detectors look at; early ones first.
        sample_rate_hz: That it works at.

    Raises:
        LayerNotFoundError: If a layer is none of its network's.
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
