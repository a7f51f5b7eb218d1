"""nip-audio: keep speaker recognition trustworthy.

>>> from nip_audio import load_pretrained, read_audio
"""

from importlib.metadata import version

__version__ = version("nip-audio")

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, ReadSettings, read_audio, write_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.models.enrolment import Enrolment, embed_audio, enrol
from nip_audio.models.plda import Plda, PldaHead
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.pretrained import PretrainedModel, list_pretrained, load_pretrained

__all__ = [
    "Audio",
    "Batch",
    "CosineHead",
    "Enrolment",
    "InstrumentedModel",
    "Plda",
    "PldaHead",
    "PretrainedModel",
    "ReadSettings",
    "WaveformAdapter",
    "__version__",
    "embed_audio",
    "enrol",
    "fit_plda",
    "list_pretrained",
    "load_pretrained",
    "read_audio",
    "write_audio",
]
