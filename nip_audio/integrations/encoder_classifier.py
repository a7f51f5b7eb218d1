"""Old path of ``nip_audio.speechbrain.encoder_classifier``: the shipped models' YAMLs name it."""

from nip_audio.speechbrain.encoder_classifier import (
    Embedding,
    Features,
    NoNormalization,
    SafetensorsPretrainer,
    Scores,
    as_encoder_classifier,
    load_labels,
    load_safetensors,
    parts_for_speechbrain,
    speechbrain_section,
)

__all__ = [
    "Embedding",
    "Features",
    "NoNormalization",
    "SafetensorsPretrainer",
    "Scores",
    "as_encoder_classifier",
    "load_labels",
    "load_safetensors",
    "parts_for_speechbrain",
    "speechbrain_section",
]
