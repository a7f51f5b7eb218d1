"""Define the typed errors. Every message says what was found, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "AttackError",
    "AudioError",
    "CalibrationError",
    "EnrolmentError",
    "FileError",
    "GradientError",
    "HashMismatchError",
    "ImageError",
    "InputError",
    "LayerNotFoundError",
    "MissingDependencyError",
    "ModelCardError",
    "NipAudioError",
    "OutputError",
    "RemoteError",
    "ResumeError",
    "StateError",
    "TemplateEmptyWarning",
    "UnsafeYamlError",
    "WorkerError",
    "how_to_install",
    "lacks_memory",
]

_NO_MEMORY = (
    *("cannot allocate memory", "can't allocate memory", "out of memory", "bad_alloc"),
    "failed to map segment from shared object",
)
# messages of the dynamic linker with other causes: too many libraries, a folder without exec
_NOT_MEMORY = ("static tls block", "operation not permitted", "permission denied")


class NipAudioError(Exception):
    """Base class of all errors that the toolkit raises on purpose."""


class InputError(NipAudioError, ValueError):
    """An argument has the wrong shape, range, type or unit."""


class GradientError(InputError):
    """A gradient was asked of a model that gives none, such as a black box."""


class FileError(NipAudioError):
    """A file cannot be used.

    Attributes:
        code: Stable machine-readable code, such as ``"empty"`` or ``"too_short"``.
        found: What is wrong with the file, in words.
        remedy: What the user can do about it, in words.
    """

    def __init__(self, path: object, *, code: str, found: str, remedy: str) -> None:
        """Build the message ``<path>: <found>; <remedy>``."""
        super().__init__(f"{path}: {found}; {remedy}")
        self.code = code
        self.found = found
        self.remedy = remedy


class AudioError(FileError):
    """A file cannot be used as audio."""


class ImageError(FileError):
    """A file cannot be used as an image."""


class LayerNotFoundError(NipAudioError, KeyError):
    """A layer name does not exist in the model."""

    def __str__(self) -> str:
        """Return the plain message; ``KeyError`` would show its repr."""
        return str(self.args[0])


class StateError(NipAudioError):
    """A fitted state, such as a calibration, cannot be saved, loaded or used with this model."""


class ModelCardError(StateError):
    """A pretrained model's folder or card is missing, malformed or of another version."""


class HashMismatchError(StateError):
    """A file's SHA-256 differs from the recorded one."""


class UnsafeYamlError(StateError):
    """A hyperparameter file contains something that a model description never needs."""


class CalibrationError(NipAudioError):
    """A detector cannot be calibrated on the given clean files."""


class EnrolmentError(NipAudioError):
    """An enrolment is missing, belongs to another model or does not contain the speaker."""


class AttackError(NipAudioError):
    """An attack is unknown, cannot be applied, or returned something outside its contract."""


class OutputError(NipAudioError):
    """An output already exists or cannot be written."""


class RemoteError(NipAudioError):
    """A classifier on a URL cannot be queried, or its answer does not follow the protocol."""


class ResumeError(OutputError):
    """A run cannot be resumed because something that it depends on has changed."""


class WorkerError(NipAudioError):
    """A worker process cannot start."""


def how_to_install(extra: str) -> str:
    """Say how an extra of nip-audio is installed.

    From a copy of the source: a package of that name on an index would be somebody else's until
    this one is published.
    """
    return f"in a copy of nip-audio's source run: pip install '.[{extra}]'"


class MissingDependencyError(NipAudioError, ImportError):
    """An optional package is needed for this operation and is not installed."""

    def __init__(self, what: str, *, extra: str | None = None) -> None:
        """Build the text.

        Args:
            what: What needs which package, e.g. ``"STOI needs pystoi"``.
            extra: Extra of nip-audio that holds the package; None if none does.
        """
        remedy = "install it" if extra is None else how_to_install(extra)
        super().__init__(f"{what}, which is not installed; {remedy}")


class TemplateEmptyWarning(UserWarning):
    """A pool of inverse perturbations gives the same one to all inputs.

    The purifier still works, but it is not neuron-level inverse perturbation (NIP).
    """


def lacks_memory(err: BaseException) -> bool:
    """Tell whether an error, of whatever type and library, says that there is too little memory."""
    text = str(err).lower()
    said = any(w in text for w in _NO_MEMORY) and not any(w in text for w in _NOT_MEMORY)
    return said or isinstance(err, MemoryError)
