"""nip-audio: keep speaker recognition trustworthy.

The verbs ``screen``, ``detect``, ``purify``, ``attack``, ``calibrate``, ``embed``, ``enroll``,
``fit_threshold`` and ``verify`` take paths and a model. Importing the package loads nothing: each
name is loaded when it is first used, and ``__init__.pyi`` says from where.

>>> from nip_audio import load_model, read_audio
"""

import sys

if sys.argv[:1] == ["-m"]:  # of python -m nip_audio, before anything is imported beside the data
    from nip_audio._safe_path import leave_working_directory

    leave_working_directory()

from typing import Any

from nip_audio._lazy import attach

_load, __dir__, __all__ = attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nip-audio")
    return _load(name)
