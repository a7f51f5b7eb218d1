"""nip-audio: keep speaker recognition trustworthy.

>>> from nip_audio import load_pretrained, read_audio

Importing the package loads nothing; each name below is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nip_audio.api import (
        attack,
        calibrate,
        detect,
        embed,
        enroll,
        load_model,
        purify,
        screen,
        verify,
    )
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.audio.io import Audio, ReadSettings, read_audio, write_audio
    from nip_audio.core.adapter import Batch
    from nip_audio.core.model import CosineHead, InstrumentedModel
    from nip_audio.models.cards import list_pretrained
    from nip_audio.models.enrolment import Enrolment, embed_audio, enrol
    from nip_audio.models.plda import Plda, PldaHead
    from nip_audio.models.plda_training import fit_plda
    from nip_audio.models.pretrained import PretrainedModel, load_pretrained
    from nip_audio.purifiers.nip_guided import GuidedNip
    from nip_audio.reporting.run import ScreenedRun
    from nip_audio.screening.calibration import Calibration
    from nip_audio.screening.pipeline import Screener
    from nip_audio.screening.records import ScreenRecord

__version__: str

__all__ = [
    "Audio",
    "Batch",
    "Calibration",
    "CosineHead",
    "Enrolment",
    "GuidedNip",
    "InstrumentedModel",
    "Plda",
    "PldaHead",
    "PretrainedModel",
    "ReadSettings",
    "ScreenRecord",
    "ScreenedRun",
    "Screener",
    "WaveformAdapter",
    "__version__",
    "attack",
    "calibrate",
    "detect",
    "embed",
    "embed_audio",
    "enrol",
    "enroll",
    "fit_plda",
    "list_pretrained",
    "load_model",
    "load_pretrained",
    "purify",
    "read_audio",
    "screen",
    "verify",
    "write_audio",
]

# the imports above once more, for when a name is used: tests/test_start.py compares the two
_HOMES = {
    "Audio": "audio.io",
    "Batch": "core.adapter",
    "Calibration": "screening.calibration",
    "CosineHead": "core.model",
    "Enrolment": "models.enrolment",
    "GuidedNip": "purifiers.nip_guided",
    "InstrumentedModel": "core.model",
    "Plda": "models.plda",
    "PldaHead": "models.plda",
    "PretrainedModel": "models.pretrained",
    "ReadSettings": "audio.io",
    "ScreenRecord": "screening.records",
    "ScreenedRun": "reporting.run",
    "Screener": "screening.pipeline",
    "WaveformAdapter": "audio.adapter",
    "attack": "api",
    "calibrate": "api",
    "detect": "api",
    "embed": "api",
    "embed_audio": "models.enrolment",
    "enrol": "models.enrolment",
    "enroll": "api",
    "fit_plda": "models.plda_training",
    "list_pretrained": "models.cards",
    "load_model": "api",
    "load_pretrained": "models.pretrained",
    "purify": "api",
    "read_audio": "audio.io",
    "screen": "api",
    "verify": "api",
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
