"""Old path of ``nip_audio.speechbrain``, which recipes and scripts may name."""

from nip_audio.speechbrain import *  # noqa: F403
from nip_audio.speechbrain import __all__ as __all__
