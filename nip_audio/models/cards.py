"""Model cards: what is known of a model without loading it; reading one needs no torch.

A pretrained directory holds ``model_card.json`` beside the files that the card lists with their
SHA-256. ``nip_audio.models.pretrained`` loads what a card describes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nip_audio.core.files import LARGEST_JSON, LARGEST_WEIGHTS, read_regular
from nip_audio.core.near import suggest_names
from nip_audio.core.strict_json import load_json
from nip_audio.errors import HashMismatchError, ModelCardError
from nip_audio.models.shipped import SHIPPED_CARDS

__all__ = [
    "DEFAULT_MODELS",
    "Modality",
    "ModelCard",
    "card_sha256",
    "directory_of",
    "find_named",
    "find_pretrained",
    "is_path",
    "list_pretrained",
    "model_id_of",
    "pretrained_directories",
    "read_card",
    "read_verified",
]

Modality = Literal["audio", "image"]
"""Raw input of a model."""

CARD_NAME = "model_card.json"
CARD_VERSION = 1
HYPERPARAMS_NAME = "hyperparams.yaml"
SEARCH_VARIABLE = "NIP_AUDIO_PRETRAINED"
COMPANIONS = ("calibration", "plda", "purifier")
"""Fitted files that come with a model: bound to its identity, but not part of it."""

_LONGEST_SIDE = 4096  # of an image, in pixels
_LARGEST_SCALE, _LARGEST_NOISE = 1e4, 10.0
_LARGEST_PATCH = 1024

_FILE_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
_CARD_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "format_version": int,
    "name": str,
    "output_kind": str,
    "scale": (int, float),
    "labels": list,
    "default_taps": list,
    "files": dict,
    "calibration": (dict, type(None)),
    "training": object,
    "metrics": object,
}


def _is_rate(value: object) -> bool:
    return type(value) is int and 1000 <= value <= 384_000


def _is_shape(values: object) -> bool:
    whole = isinstance(values, list) and all(
        type(v) is int and 0 < v <= _LONGEST_SIDE for v in values
    )
    return whole and isinstance(values, list) and len(values) == 3 and values[0] in (1, 3)


@dataclass(frozen=True)
class _Input:
    """Field of a card that describes the raw input of a model, and how it reads."""

    field: str
    noun: str
    valid: Callable[[object], bool]
    describe: Callable[[Any], str]


_INPUTS: Mapping[str, _Input] = {
    "audio": _Input("sample_rate_hz", "audio", _is_rate, lambda hz: f"{hz / 1000:g} kHz"),
    "image": _Input("image_shape", "images", _is_shape, lambda shape: "×".join(map(str, shape))),
}
"""By modality, the one field about the raw input that a card must have."""


DEFAULT_MODELS: Mapping[str, str] = {"audio": "xvector-libri251", "image": "lenet5-mnist"}
"""Name of the model that is used when none is given, by modality."""


@dataclass(frozen=True)
class ModelCard:
    """Model card: the description of a pretrained model.

    Attributes:
        directory: Folder of the model.
        data: Content of the card, as JSON values.
    """

    directory: Path
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.data["name"])

    @property
    def modality(self) -> Modality:
        """Raw input of the model: audio or images."""
        modality: Modality = self.data.get("modality", "audio")
        return modality

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the model's audio.

        Raises:
            ModelCardError: If the model takes images.
        """
        return int(self._input("sample_rate_hz", "an audio"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the model's images.

        Raises:
            ModelCardError: If the model takes audio.
        """
        channels, rows, columns = (int(n) for n in self._input("image_shape", "an image"))
        return channels, rows, columns

    @property
    def input_text(self) -> str:
        """Sample rate of the model's audio, or shape of its images, in words."""
        known = _INPUTS[self.modality]
        return known.describe(self.data[known.field])

    def _input(self, field: str, what: str) -> Any:
        known = _INPUTS[self.modality]
        if known.field != field:
            raise ModelCardError(
                f"{self.name} takes {known.noun}, expected {what} model here; nip-audio models "
                "lists the models"
            )
        return self.data[field]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes: the speakers, or what the images show."""
        return tuple(self.data["labels"])

    @property
    def source(self) -> str | None:
        """Where the model comes from, if it is not in this directory; see ``models.sources``."""
        source: str | None = self.data.get("source")
        return source

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of the training files, as far as the card lists them."""
        return frozenset(self.data["training"].get("seen", ()))

    @property
    def default_taps(self) -> tuple[str, ...]:
        """Names of the layers that detectors measure by default."""
        return tuple(self.data["default_taps"])

    @property
    def model_id(self) -> str:
        """Identity of the model: one hash over the hashes of its weights and hyperparameters."""
        return model_id_of(self.data["files"])

    @property
    def calibration_path(self) -> Path | None:
        """Calibration that comes with the model; None if there is none."""
        return self._companion("calibration")

    @property
    def plda_path(self) -> Path | None:
        """PLDA back end that comes with the model; None if there is none."""
        return self._companion("plda")

    @property
    def purifier_path(self) -> Path | None:
        """Guided purifier that comes with the model; None if there is none."""
        return self._companion("purifier")

    def _companion(self, kind: str) -> Path | None:
        entry = self.data.get(kind)
        return None if entry is None else self.directory / entry["file"]

    def read(self, name: str) -> bytes:
        """Return the content of one of the model's files.

        Raises:
            ModelCardError: If the card does not list the file, or it cannot be read.
            HashMismatchError: If it differs from the card.
        """
        if name not in self.data["files"]:
            raise ModelCardError(f"{self.directory / CARD_NAME} does not list {name}; restore it")
        return read_verified(self.directory / name, self.data["files"][name])

    def verify(self) -> None:
        """Check that every file, what was fitted to the model included, is as the card says.

        Files of a model that comes from elsewhere are checked whenever it is loaded.

        Raises:
            ModelCardError: If one cannot be read.
            HashMismatchError: If one differs.
        """
        for name in () if self.source else self.data["files"]:
            self.read(name)
        for kind in COMPANIONS:
            entry = self.data.get(kind)
            if entry is not None:
                read_verified(self.directory / entry["file"], entry["sha256"])
        self.require_shipped()

    @property
    def shipped(self) -> bool:
        """Whether this is one of the package's own models, in the package."""
        name = self.directory.name
        here = self.directory.resolve()
        return name in SHIPPED_CARDS and here == (_shipped_folder() / name).resolve()

    def require_shipped(self) -> None:
        """Refuse a card in the place of one of the package's own models that is not its card.

        The card has the hashes of weights, calibration and purifier, so all of them are as shipped.

        Raises:
            HashMismatchError: If it is another card.
        """
        if not self.shipped:
            return
        found, expected = card_sha256(self.data), SHIPPED_CARDS[self.directory.name]
        if found != expected:
            raise HashMismatchError(
                f"{self.directory / CARD_NAME} has the hash {found[:12]}…, that of the model that "
                f"nip-audio ships is {expected[:12]}…; it was changed or damaged: install "
                "nip-audio again, and do not use it"
            )


def card_sha256(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's content, however it is laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def model_id_of(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over file names and their hashes."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def pretrained_directories() -> dict[str, Path]:
    """Return the directories of all models that can be loaded by name, sorted by name."""
    found: dict[str, Path] = {}
    for folder in _search_folders():
        for path in folder.glob(f"*/{CARD_NAME}"):
            found.setdefault(path.parent.name, path.parent)
    return dict(sorted(found.items()))


def list_pretrained() -> list[ModelCard]:
    """Return the cards of all models that can be loaded by name, sorted by name."""
    return [read_card(directory) for directory in pretrained_directories().values()]


def read_card(directory: Path) -> ModelCard:
    """Read and check a model card.

    Raises:
        ModelCardError: If the card is missing or malformed.
    """
    path = directory / CARD_NAME
    try:
        data = load_json(read_regular(path, most=LARGEST_JSON))
    except OSError as err:
        raise ModelCardError(f"{path} cannot be read ({err.strerror}); check `model`") from err
    except ValueError as err:
        raise ModelCardError(f"{path} is not valid JSON ({err}); restore the file") from err
    modality = data.get("modality", "audio") if isinstance(data, dict) else "audio"
    if not isinstance(modality, str) or modality not in _INPUTS:
        raise ModelCardError(
            f"{path} is of modality {modality!r}, expected {' or '.join(_INPUTS)}; update nip-audio"
        )
    known = _INPUTS[modality]
    fields = {**_CARD_FIELDS, known.field: object}
    missing = [f for f in fields if not isinstance(data, dict) or f not in data]
    if missing:
        raise ModelCardError(f"{path} lacks {', '.join(missing)}; restore the file")
    if data["format_version"] != CARD_VERSION:
        raise ModelCardError(
            f"{path} has format {data['format_version']}, expected {CARD_VERSION}; update nip-audio"
        )
    companions = {kind: data[kind] for kind in COMPANIONS if data.get(kind) is not None}
    wrong = [f for f, kind in fields.items() if not isinstance(data[f], kind)]
    if not known.valid(data[known.field]):
        wrong.append(known.field)
    wrong += [
        kind
        for kind, entry in companions.items()
        if not isinstance(entry, dict)
        or not all(isinstance(entry.get(key), str) for key in ("file", "sha256"))
    ]
    wrong += _wrong_values(data)
    if not wrong:
        wrong += [f for f in ("labels", "default_taps") if not _all_text(data[f])]
        wrong += [] if _all_text(data["files"].values()) else ["files"]
    if wrong:
        raise ModelCardError(
            f"{path} has wrong {', '.join(dict.fromkeys(wrong))}; restore the file"
        )
    own = [] if isinstance(data.get("source"), str) else data["files"]
    names = [*own, *(entry["file"] for entry in companions.values())]
    described = HYPERPARAMS_NAME in data["files"] or isinstance(data.get("source"), str)
    if not described or not all(map(_FILE_NAME.fullmatch, names)):
        raise ModelCardError(
            f"{path} must list {HYPERPARAMS_NAME} and plain file names, got {names}"
        )
    return ModelCard(directory, data)


def _wrong_values(data: Mapping[str, Any]) -> list[str]:
    """Return the fields with wrong values, also of those that only cards of other models have."""
    scale = data["scale"]
    axes, noises = data.get("tap_axes") or {}, data.get("noises") or []
    right = {
        "scale": isinstance(scale, int | float) and 0 < scale <= _LARGEST_SCALE,
        "source": isinstance(data.get("source"), str | None),
        "modality": not data.get("source") or data.get("modality", "audio") == "audio",
        "channels": data.get("channels", 1) in (1, 2),
        "trusted": isinstance(data.get("trusted", False), bool),
        "tap_axes": isinstance(axes, dict)
        and all(type(axis) is int and 1 <= axis <= 8 for axis in axes.values()),
        "noises": isinstance(noises, list) and all(map(_is_noise, noises)),
    }
    return [name for name, fits in right.items() if not fits]


def _is_noise(value: object) -> bool:
    texts = isinstance(value, dict) and _all_text(value.get(key) for key in ("family", "level"))
    return (
        isinstance(value, dict)
        and texts
        and value.keys() <= {"family", "level", "scale", "patch"}
        and type(value.get("scale")) in (int, float)
        and 0 <= value["scale"] <= _LARGEST_NOISE
        and type(value.get("patch", 4)) is int
        and 1 <= value.get("patch", 4) <= _LARGEST_PATCH
    )


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _shipped_folder() -> Path:
    """Return the folder of the models that come with the package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_pretrained"
    return installed if installed.is_dir() else package.parent / "pretrained"


def _search_folders() -> list[Path]:
    """Return the folders of models that have names; the package's own models come first.

    Raises:
        ModelCardError: If the folder of the environment is relative.
    """
    folders = [_shipped_folder()]
    if own := os.environ.get(SEARCH_VARIABLE):
        if not Path(own).is_absolute():
            raise ModelCardError(
                f"{SEARCH_VARIABLE} is {own!r}, expected an absolute path, because a relative one "
                "is another folder wherever a command runs; set it to the whole path"
            )
        folders.append(Path(own))
    return folders


def is_path(model: str | os.PathLike[str]) -> bool:
    """Tell whether a model is given as a place, such as ``./my-model``; a single word is a name.

    A folder of strangers' files may hold a folder with the name of any model, so that names are
    never looked up in the working directory.
    """
    separators = {os.sep, os.altsep or os.sep}
    return (
        not isinstance(model, str)
        or model in (os.curdir, os.pardir)
        or any(separator in model for separator in separators)
    )


def directory_of(model: str | Path) -> Path | None:
    """Return the directory of a model with a card, given by its name or as a directory.

    None stands for no such model.

    Raises:
        ModelCardError: If ``$NIP_AUDIO_PRETRAINED`` is relative.
    """
    if is_path(model):
        return Path(model) if (Path(model) / CARD_NAME).is_file() else None
    places = (folder / model for folder in _search_folders())
    return next((place for place in places if (place / CARD_NAME).is_file()), None)


def find_named(name: str) -> Path:
    """Return the directory of the model that a run or another file names.

    Raises:
        ModelCardError: If there is none of this name, or it is a path, which may lead anywhere.
    """
    if is_path(name):
        raise ModelCardError(
            f"the model is {name!r}, expected a name without a path here; pass `model` with it, if "
            "that is the model"
        )
    return find_pretrained(name)


def find_pretrained(model: str | Path) -> Path:
    """Return the directory of a model with a card, given by its name or as a directory.

    Raises:
        ModelCardError: If there is no such model.
    """
    if (found := directory_of(model)) is not None:
        return found
    known = pretrained_directories()
    if not is_path(model) and Path(model).is_dir():
        raise ModelCardError(
            f"no model has the name {str(model)!r}, and folders of the working directory are not "
            f"searched for names; for the folder write .{os.sep}{model}"
        )
    raise ModelCardError(
        f"no model {str(model)!r}: neither a folder with a {CARD_NAME} or a hyperparams.yaml of "
        "SpeechBrain, nor a known name, nor a source such as speechbrain/NAME or onnx:FILE; "
        f"{suggest_names(str(model), known)}"
    )


def read_verified(path: Path, expected: str) -> bytes:
    """Return the content of a file whose SHA-256 is known.

    Raises:
        ModelCardError: If it cannot be read.
        HashMismatchError: If it has another hash.
    """
    try:
        data = read_regular(path, most=LARGEST_WEIGHTS)
    except OSError as err:
        raise ModelCardError(f"{path} cannot be read ({err.strerror}); restore the model") from err
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise HashMismatchError(
            f"{path} has SHA-256 {found[:12]}…, its card says {expected[:12]}…; the file was "
            "changed or damaged: restore it, and do not use it"
        )
    return data
