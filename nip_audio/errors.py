"""Typed errors. Every text says what was got, what was expected and what to do about it."""

from __future__ import annotations

__all__ = [
    "AttackError",
    "AudioError",
    "CalibrationError",
    "EnrolmentError",
    "FileError",
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
]


class NipAudioError(Exception):
    """Base of every error the toolkit raises on purpose."""


class InputError(NipAudioError, ValueError):
    """An argument has the wrong shape, range, type or unit."""


class FileError(NipAudioError):
    """A file cannot be used as what it should be.

    Attributes:
        code: Stable machine-readable kind, e.g. ``"empty"`` or ``"too_short"``.
        found: What the file turned out to be.
        remedy: What the user can do.
    """

    def __init__(self, path: object, *, code: str, found: str, remedy: str) -> None:
        """Build the text ``<path>: <found>; <remedy>``."""
        super().__init__(f"{path}: {found}; {remedy}")
        self.code = code
        self.found = found
        self.remedy = remedy


class AudioError(FileError):
    """A file cannot be used as audio."""


class ImageError(FileError):
    """A file cannot be used as a picture."""


class LayerNotFoundError(NipAudioError, KeyError):
    """A layer name does not exist in the model."""

    def __str__(self) -> str:
        """Return the plain text; ``KeyError`` would show its repr."""
        return str(self.args[0])


class StateError(NipAudioError):
    """Something fitted cannot be saved, loaded or used with this model."""


class ModelCardError(StateError):
    """A pretrained directory or its card is missing, malformed or of another version."""


class HashMismatchError(StateError):
    """A file's SHA-256 differs from the one on record."""


class UnsafeYamlError(StateError):
    """A hyperparameter file asks for something a model description never needs."""


class CalibrationError(NipAudioError):
    """The clean audio given cannot calibrate a detector."""


class EnrolmentError(NipAudioError):
    """An enrolment is missing, belongs to another model or lacks the speaker."""


class AttackError(NipAudioError):
    """An attack is unknown, cannot apply, or broke its own promise."""


class OutputError(NipAudioError):
    """An output exists already or cannot be written."""


class RemoteError(NipAudioError):
    """A classifier on a URL cannot be asked, or does not answer as was agreed."""


class ResumeError(OutputError):
    """A run cannot be continued because something it depends on has changed."""


class MissingDependencyError(NipAudioError, ImportError):
    """An optional package is needed for this operation."""


class TemplateEmptyWarning(UserWarning):
    """A pool of inverse perturbations cannot tell its inputs apart; it works, but is not NIP."""
