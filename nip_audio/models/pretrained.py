"""Load pretrained models from folders without running code from them.

A folder holds ``model_card.json``, ``hyperparams.yaml`` and safetensors weights. The card has the
SHA-256 of every other file, which is checked first. No pickle is read, and the YAML may create
instances of a short list of classes only, so an untrusted folder cannot run code.

The YAML may end in a section for SpeechBrain (``nip_audio.speechbrain.encoder_classifier``), which
is removed here and not checked. SpeechBrain's own ``from_hparams`` runs whatever a YAML names, so a
folder that loads here is not proven safe for ``from_hparams``. Use ``as_encoder_classifier`` on a
model loaded here, or pass only trusted folders to SpeechBrain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, ModelCardError
from nip_audio.models.adopted import adopt, load_adopted
from nip_audio.models.cards import (
    COMPANIONS,
    HYPERPARAMS_NAME,
    ModelCard,
    directory_of,
    find_pretrained,
    list_pretrained,
    read_card,
    read_verified,
)
from nip_audio.models.heads import head_of
from nip_audio.models.modalities import modality_of
from nip_audio.models.safe_yaml import Vocabulary, build
from nip_audio.models.sources.base import MOST_VALUES, SourceSpec, load_source, parse_spec

__all__ = [
    "ModelCard",
    "PretrainedModel",
    "list_pretrained",
    "load_pretrained",
    "load_spec",
]

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
        "nip_audio.models.ecapa.EcapaTdnn",
        "nip_audio.models.resnet34.ResNet34",
        "nip_audio.models.xvector.Xvector",
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        "torch.nn.Linear",
    }
)
_VOCABULARY = Vocabulary(
    classes=_ALLOWED_CLASSES,
    # top-level keys that SpeechBrain reads, which are left out here, unbuilt and unchecked
    left_out=frozenset({"audio_normalizer", "label_encoder", "modules", "pretrainer"}),
    most_values=MOST_VALUES,
)


@dataclass(frozen=True)
class PretrainedModel:
    """A loaded model with its card.

    Attributes:
        card: What is known of the model.
        model: The model in evaluation mode, with frozen parameters.
        origin: What ``load_pretrained`` was given, absolute, so that another process can load the
            same; empty for a model in memory.
    """

    card: ModelCard
    model: InstrumentedModel
    origin: str = ""

    @property
    def model_id(self) -> str:
        """Identity of the model; see ``ModelCard.model_id``."""
        return self.card.model_id


def load_pretrained(model: str | Path) -> PretrainedModel:
    """Load a model by name, from a folder, or from another source.

    Args:
        model: Name of a model that comes with the package or lies in ``$NIP_AUDIO_PRETRAINED``;
            folder with a model card, such as ``./my-model``; or a source, such as a directory of
            SpeechBrain, ``speechbrain/spkrec-ecapa-voxceleb`` or ``onnx:model.onnx``
            (``nip_audio.models.sources``). A text without a slash is a name: the working directory
            is not searched for it. Only a hub's name needs the network, and only once.

    Returns:
        The model in evaluation mode, with frozen parameters.

    Raises:
        ModelCardError: If there is no such model, or its card is malformed.
        HashMismatchError: If a file differs from the card, or the card of a model that comes with
            the package from what was shipped; no file has been parsed then.
        UnsafeYamlError: If the YAML contains anything but the description of a model.
    """
    directory = directory_of(model)
    if directory is None:
        spec = parse_spec(model)
        return load_pretrained(find_pretrained(model)) if spec is None else load_spec(spec)
    card = read_card(directory)
    card.require_shipped()
    contents = {} if card.source else {name: card.read(name) for name in card.data["files"]}
    for kind in COMPANIONS:
        entry = card.data.get(kind)
        if entry is not None:
            read_verified(card.directory / entry["file"], entry["sha256"])
    loaded = load_adopted(card) if card.source else _load_parts(card, contents)
    frozen = loaded.eval().requires_grad_(False)
    return PretrainedModel(card, frozen, str(card.directory.absolute()))


def load_spec(spec: SourceSpec) -> PretrainedModel:
    """Load a model from its source, without a card; its layers are found by running it.

    ``nip-audio adopt`` writes a card, which also holds what was measured.

    Raises:
        ModelCardError: If it cannot be read, or is no speaker model.
        UnsafeYamlError: If its description holds anything but the description of a model.
    """
    # whoever names a function of their own trusts it; files and directories may be a stranger's
    adopted = adopt(load_source(spec, trust=spec.kind == "python"), spec)
    return PretrainedModel(
        ModelCard(Path(adopted.card["name"]), adopted.card), adopted.model, str(spec)
    )


def _load_parts(card: ModelCard, contents: dict[str, bytes]) -> InstrumentedModel:
    """Build the model of a directory of this toolkit from the contents of its files."""
    described = contents.pop(HYPERPARAMS_NAME)
    # what was released is known to be no larger than it should; measuring would load a compiler
    vocabulary = replace(_VOCABULARY, most_values=None) if card.shipped else _VOCABULARY
    parts = build(described, card.directory / HYPERPARAMS_NAME, vocabulary)
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
    for part in modality_of(card).parts:
        if not isinstance(parts.get(part), nn.Module):
            raise ModelCardError(f"{card.directory / HYPERPARAMS_NAME} lacks a module {part!r}")
    try:
        return _assemble(card, parts)
    except InputError as err:
        raise ModelCardError(f"{card.directory}: card and modules do not fit ({err})") from err


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
        bounds=modality_of(card).bounds,
        input_bounds=Bounds(0.0, 1.0),
        scale=float(card.data["scale"]),
    )


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
