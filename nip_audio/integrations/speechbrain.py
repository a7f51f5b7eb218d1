"""Old path of ``nip_audio.speechbrain``, which recipes and scripts may name."""

from nip_audio.speechbrain import (
    BackdoorSearch,
    EmbeddingCache,
    Guard,
    GuardedEncoderClassifier,
    GuardedSpeakerRecognition,
    GuidedPurifier,
    ScreenedData,
    ScreenedTraining,
    babble_like,
    load_trusted,
    unpublished,
    verify_batch,
    write_card,
)

__all__ = [
    "BackdoorSearch",
    "EmbeddingCache",
    "Guard",
    "GuardedEncoderClassifier",
    "GuardedSpeakerRecognition",
    "GuidedPurifier",
    "ScreenedData",
    "ScreenedTraining",
    "babble_like",
    "load_trusted",
    "unpublished",
    "verify_batch",
    "write_card",
]
