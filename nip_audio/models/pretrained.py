"""Load pretrained models from folders without running code from them.

A folder holds ``model_card.json``, ``hyperparams.yaml`` and safetensors weights. The card has the
SHA-256 of every other file, which is checked first. No pickle is read, and the YAML may create
instances of a short list of classes only, so an untrusted folder cannot run code.

The YAML may end in a section for SpeechBrain (``nip_audio.integrations.encoder_classifier``), which
is removed here and not checked. SpeechBrain's own ``from_hparams`` runs whatever a YAML names, so a
folder that loads here is not proven safe for ``from_hparams``. Use ``as_encoder_classifier`` on a
model loaded here, or pass only trusted folders to SpeechBrain.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.error import YAMLError as RuamelYamlError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.near import suggest_names
from nip_audio.core.strict_json import load_json
from nip_audio.errors import HashMismatchError, InputError, ModelCardError, UnsafeYamlError
from nip_audio.models.heads import head_of

__all__ = [
    "Modality",
    "ModelCard",
    "PretrainedModel",
    "list_pretrained",
    "load_pretrained",
    "model_id_of",
]

Modality = Literal["audio", "image"]
"""Raw input of a model."""

CARD_NAME = "model_card.json"
CARD_VERSION = 1
HYPERPARAMS_NAME = "hyperparams.yaml"
SEARCH_VARIABLE = "NIP_AUDIO_PRETRAINED"
COMPANIONS = ("calibration", "plda", "purifier")
"""Fitted files that come with a model: bound to its identity, but not part of it."""

_ALLOWED_CLASSES = frozenset(
    {
        "nip_audio.audio.features.LogMel",
        "nip_audio.image.models.cifar_resnet.CifarResNet",
        "nip_audio.image.models.lenet.LeNet1",
        "nip_audio.image.models.lenet.LeNet4",
        "nip_audio.image.models.lenet.LeNet5",
        "nip_audio.image.models.small_vgg.SmallVgg",
        "nip_audio.image.models.torchvision_models.TorchvisionNet",
        "nip_audio.models.audionet.AudioNet",
        "nip_audio.models.deep_speaker.DeepSpeaker",
        "nip_audio.models.resnet34.ResNet34",
        "nip_audio.models.xvector.Xvector",
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        "torch.nn.Linear",
    }
)
# top-level keys that SpeechBrain reads and this module cuts out, unbuilt and unchecked
_FOR_SPEECHBRAIN = frozenset({"audio_normalizer", "label_encoder", "modules", "pretrainer"})
_CLASS_TAGS = frozenset(f"!new:{name}" for name in _ALLOWED_CLASSES)
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")
)
# HyperPyYAML gives text a meaning of its own: "(…)" is parsed once more, by a loader that runs
# code, and a reference may compute. Names and numbers are all that a model description needs.
_PLAIN_TEXT = re.compile(r"[\w .+~-]*", re.ASCII)
_REFERENCE = re.compile(r"<\w+>", re.ASCII)
_MAX_YAML_BYTES, _MAX_YAML_BRACKETS = 1 << 16, 200
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
_OF_MODALITY: Mapping[str, Mapping[str, type]] = {
    "audio": {"sample_rate_hz": int},
    "image": {"image_shape": list},
}
"""Fields about the raw input that a card must have, by modality."""


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
        if self.modality != "audio":
            raise ModelCardError(
                f"{self.name} takes images, expected an audio model here; nip-audio models "
                "lists the "
                "models"
            )
        return int(self.data["sample_rate_hz"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the model's images.

        Raises:
            ModelCardError: If the model takes audio.
        """
        if self.modality != "image":
            raise ModelCardError(
                f"{self.name} takes audio, expected an image model here; nip-audio models "
                "lists the "
                "models"
            )
        channels, rows, columns = (int(n) for n in self.data["image_shape"])
        return channels, rows, columns

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes: the speakers, or what the images show."""
        return tuple(self.data["labels"])

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
        return _verified(self.directory / name, self.data["files"][name])


@dataclass(frozen=True)
class PretrainedModel:
    """A loaded model with its card."""

    card: ModelCard
    model: InstrumentedModel

    @property
    def model_id(self) -> str:
        """Identity of the model; see ``ModelCard.model_id``."""
        return self.card.model_id


def model_id_of(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over the names and hashes of a model's files."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def load_pretrained(model: str | Path) -> PretrainedModel:
    """Load a pretrained model by name or from a folder, without network access.

    Args:
        model: Folder with a model card, or a name to search for in ``$NIP_AUDIO_PRETRAINED``,
            ``./pretrained`` and the models that come with the package.

    Returns:
        The model in evaluation mode, with frozen parameters.

    Raises:
        ModelCardError: If there is no such model, or its card is malformed.
        HashMismatchError: If a file differs from the card; no file has been parsed then.
        UnsafeYamlError: If the YAML contains anything but the description of a model.
    """
    card = read_card(_find(model))
    contents = {name: card.read(name) for name in card.data["files"]}
    for kind in COMPANIONS:
        entry = card.data.get(kind)
        if entry is not None:
            _verified(card.directory / entry["file"], entry["sha256"])
    parts = _load_parts(contents.pop(HYPERPARAMS_NAME), card.directory / HYPERPARAMS_NAME)
    for part in {"embedding_model", "classifier"} & parts.keys():
        if f"{part}.safetensors" not in contents:
            raise ModelCardError(
                f"{card.directory}: {part} has no weights; the card must list {part}.safetensors"
            )
    for name, data in contents.items():
        stem = name.removesuffix(".safetensors")
        if stem not in parts or not isinstance(parts[stem], nn.Module):
            raise ModelCardError(
                f"{card.directory}: {name} has no module {stem!r} in {HYPERPARAMS_NAME}"
            )
        load_weights(parts[stem], data, card.directory / name)
    needed = ("compute_features", "embedding_model")
    for part in needed if card.modality == "audio" else needed[1:]:
        if not isinstance(parts.get(part), nn.Module):
            raise ModelCardError(f"{card.directory / HYPERPARAMS_NAME} lacks a module {part!r}")
    try:
        instrumented = _assemble(card, parts)
    except InputError as err:
        raise ModelCardError(f"{card.directory}: card and modules do not fit ({err})") from err
    return PretrainedModel(card, instrumented.eval().requires_grad_(False))


def _assemble(card: ModelCard, parts: Mapping[str, Any]) -> InstrumentedModel:
    output_kind, head, classes = card.data["output_kind"], None, 0
    if parts.get("classifier") is not None:
        head, returned = head_of(parts["classifier"])
        classes = len(parts["classifier"].weight)
        if output_kind != returned:
            raise InputError(
                f"output kind is {output_kind!r} in the card, the classifier returns {returned!r}"
            )
    if len(card.labels) != classes:
        raise InputError(
            f"the card has {len(card.labels)} labels, the classifier {classes} classes"
        )
    return InstrumentedModel(
        parts["embedding_model"],
        front_end=parts.get("compute_features"),
        head=head,
        output_kind=output_kind,
        labels=card.labels,
        bounds=Bounds(-1.0 if card.modality == "audio" else 0.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
        scale=float(card.data["scale"]),
    )


def list_pretrained() -> list[ModelCard]:
    """Return the cards of all models that can be loaded by name, in the order of their names."""
    cards: dict[str, ModelCard] = {}
    for folder in _search_folders():
        for path in sorted(folder.glob(f"*/{CARD_NAME}")):
            cards.setdefault(path.parent.name, read_card(path.parent))
    return [cards[name] for name in sorted(cards)]


def read_card(directory: Path) -> ModelCard:
    """Read and check a model card.

    Raises:
        ModelCardError: If the card is missing or malformed.
    """
    path = directory / CARD_NAME
    try:
        data = load_json(path.read_bytes())
    except OSError as err:
        raise ModelCardError(f"{path} cannot be read ({err.strerror}); check --model") from err
    except ValueError as err:
        raise ModelCardError(f"{path} is not valid JSON ({err}); restore the file") from err
    modality = data.get("modality", "audio") if isinstance(data, dict) else "audio"
    if not isinstance(modality, str) or modality not in _OF_MODALITY:
        raise ModelCardError(
            f"{path} is of modality {modality!r}, expected {' or '.join(_OF_MODALITY)}; update "
            "nip-audio"
        )
    fields = {**_CARD_FIELDS, **_OF_MODALITY[modality]}
    missing = [f for f in fields if not isinstance(data, dict) or f not in data]
    if missing:
        raise ModelCardError(f"{path} lacks {', '.join(missing)}; restore the file")
    if data["format_version"] != CARD_VERSION:
        raise ModelCardError(
            f"{path} has format {data['format_version']}, expected {CARD_VERSION}; update nip-audio"
        )
    companions = {kind: data[kind] for kind in COMPANIONS if data.get(kind) is not None}
    wrong = [f for f, kind in fields.items() if not isinstance(data[f], kind)]
    if modality == "image" and not _is_shape(data["image_shape"]):
        wrong.append("image_shape")
    wrong += [
        kind
        for kind, entry in companions.items()
        if not isinstance(entry, dict)
        or not all(isinstance(entry.get(key), str) for key in ("file", "sha256"))
    ]
    if not wrong:
        wrong += [f for f in ("labels", "default_taps") if not _all_text(data[f])]
        wrong += [] if _all_text(data["files"].values()) else ["files"]
        rate = data.get("sample_rate_hz", 16000)  # image models have none
        wrong += [] if 1000 <= rate <= 384_000 else ["sample_rate_hz"]
    if wrong:
        raise ModelCardError(
            f"{path} has wrong {', '.join(dict.fromkeys(wrong))}; restore the file"
        )
    names = [*data["files"], *(entry["file"] for entry in companions.values())]
    if HYPERPARAMS_NAME not in data["files"] or not all(map(_FILE_NAME.fullmatch, names)):
        raise ModelCardError(
            f"{path} must list {HYPERPARAMS_NAME} and plain file names, got {names}"
        )
    return ModelCard(directory, data)


def _is_shape(values: object) -> bool:
    whole = isinstance(values, list) and all(type(v) is int and v > 0 for v in values)
    return whole and isinstance(values, list) and len(values) == 3 and values[0] in (1, 3)


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _search_folders() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    folders = [Path("pretrained"), package.parent / "pretrained", package / "_pretrained"]
    if os.environ.get(SEARCH_VARIABLE):
        folders.insert(0, Path(os.environ[SEARCH_VARIABLE]))
    return folders


def _find(model: str | Path) -> Path:
    if (Path(model) / CARD_NAME).is_file():
        return Path(model)
    for folder in _search_folders():
        if isinstance(model, str) and (folder / model / CARD_NAME).is_file():
            return folder / model
    known = sorted({p.parent.name for f in _search_folders() for p in f.glob(f"*/{CARD_NAME}")})
    raise ModelCardError(
        f"no model {str(model)!r}: neither a folder with a {CARD_NAME} nor a known name; "
        f"{suggest_names(str(model), known)}"
    )


def _verified(path: Path, expected: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as err:
        raise ModelCardError(f"{path} cannot be read ({err.strerror}); restore the model") from err
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise HashMismatchError(
            f"{path} has SHA-256 {found[:12]}…, its card says {expected[:12]}…; the file was "
            "changed or damaged: restore it, and do not use it"
        )
    return data


class _Loader(yaml.SafeLoader):
    """Loader class on which HyperPyYAML registers its tags, to leave PyYAML's own unchanged."""


def _load_parts(data: bytes, path: Path) -> dict[str, Any]:
    """Build the modules that a YAML file describes, after checking it."""
    try:
        parts: dict[str, Any] = load_hyperpyyaml(_checked_yaml(data, path), loader=_Loader)
    except (
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        RecursionError,
        RuamelYamlError,
        yaml.YAMLError,
    ) as err:
        raise ModelCardError(f"{path} does not describe a model ({err})") from err
    return parts


def _checked_yaml(data: bytes, path: Path) -> str:
    """Check that a YAML file has only plain values, references and allowed classes.

    The result is the checked nodes written as new YAML, not the original text: HyperPyYAML uses
    another YAML parser, which may read the same text differently.
    """
    if len(data) > _MAX_YAML_BYTES or data.count(b"[") + data.count(b"{") > _MAX_YAML_BRACKETS:
        raise UnsafeYamlError(
            f"{path} has {len(data)} bytes, expected at most {_MAX_YAML_BYTES} with at most "
            f"{_MAX_YAML_BRACKETS} brackets: parsing more could take hours"
        )
    root = yaml.compose(data, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ModelCardError(f"{path} is not a YAML mapping; restore the file")
    root.value = [(key, value) for key, value in root.value if not _for_speechbrain(key)]
    for node in _nodes(root, path):
        tag = node.tag
        if tag != "!ref" and tag not in _PLAIN_TAGS and tag not in _CLASS_TAGS:
            raise UnsafeYamlError(
                f"{path} uses {tag!r}; a model description may only use !ref and !new: of "
                f"{', '.join(sorted(_ALLOWED_CLASSES))}"
            )
        allowed = _REFERENCE if tag == "!ref" else _PLAIN_TEXT
        if isinstance(node, yaml.ScalarNode) and not allowed.fullmatch(node.value):
            raise UnsafeYamlError(
                f"{path} has the value {node.value!r}; a model description may only hold names, "
                "numbers and !ref <name>"
            )
    text: str = yaml.serialize(root, Dumper=yaml.SafeDumper)
    return text


def _for_speechbrain(key: yaml.Node) -> bool:
    plain = isinstance(key, yaml.ScalarNode) and key.tag in _PLAIN_TAGS
    return plain and key.value in _FOR_SPEECHBRAIN


def _nodes(root: yaml.Node, path: Path) -> list[yaml.Node]:
    found: list[yaml.Node] = []
    waiting: list[yaml.Node] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            # an anchor may hold itself, or a few lines may stand for billions of nodes
            raise UnsafeYamlError(f"{path} repeats a node by an anchor; use !ref")
        seen.add(id(node))
        found.append(node)
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return found


def load_weights(module: nn.Module, data: bytes, path: Path) -> None:
    """Load the weights of a safetensors file into a module.

    Raises:
        ModelCardError: If ``data`` is not a safetensors file or does not fit the module.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
        module.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as err:
        raise ModelCardError(f"{path} does not fit {HYPERPARAMS_NAME} ({err})") from err
