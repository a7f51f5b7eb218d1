"""nip-audio: keep speaker recognition trustworthy.

>>> from nip_audio import load_pretrained, read_audio

Importing the package loads nothing; each name below is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.audio.io import Audio, ReadSettings, read_audio, write_audio
    from nip_audio.core.adapter import Batch
    from nip_audio.core.model import CosineHead, InstrumentedModel
    from nip_audio.models.cards import list_pretrained
    from nip_audio.models.enrolment import Enrolment, embed_audio, enrol
    from nip_audio.models.plda import Plda, PldaHead
    from nip_audio.models.plda_training import fit_plda
    from nip_audio.models.pretrained import PretrainedModel, load_pretrained

__version__: str

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

# the imports above once more, for when a name is used: tests/test_start.py compares the two
_HOMES = {
    "Audio": "audio.io",
    "Batch": "core.adapter",
    "CosineHead": "core.model",
    "Enrolment": "models.enrolment",
    "InstrumentedModel": "core.model",
    "Plda": "models.plda",
    "PldaHead": "models.plda",
    "PretrainedModel": "models.pretrained",
    "ReadSettings": "audio.io",
    "WaveformAdapter": "audio.adapter",
    "embed_audio": "models.enrolment",
    "enrol": "models.enrolment",
    "fit_plda": "models.plda_training",
    "list_pretrained": "models.cards",
    "load_pretrained": "models.pretrained",
    "read_audio": "audio.io",
    "write_audio": "audio.io",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("nip-audio")
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
