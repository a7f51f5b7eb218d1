"""Old path of ``nip_audio.speechbrain.encoder_classifier``: the shipped models' YAMLs name it."""

from nip_audio.speechbrain.encoder_classifier import *  # noqa: F403
from nip_audio.speechbrain.encoder_classifier import __all__ as __all__
