"""Read SpeechBrain's speaker models, from a directory or the hub, without running their code.

Of ``hyperparams.yaml`` only the features, their normalisation, the network and the classifier are
built, out of SpeechBrain's own classes; whatever else the file says is left out unread. Checkpoints
are read as weights alone. A directory that needs more is refused, unless the user trusts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from torch import nn

from nip_audio.errors import InputError, ModelCardError, UnsafeYamlError
from nip_audio.models.safe_yaml import Vocabulary, build
from nip_audio.models.sources.base import SourceModel, SourceSpec, file_hash, read_plain
from nip_audio.models.sources.hub import hub_directory, split_hub_id
from nip_audio.models.sources.plain_weights import fit_weights, read_checkpoint, state_of
from nip_audio.models.sources.speechbrain_modules import instrument

__all__ = ["VOCABULARY", "load"]

_HYPERPARAMS = "hyperparams.yaml"
_LABELS = "label_encoder.txt"
_MODULES = ("compute_features", "mean_var_norm", "embedding_model", "classifier")
_LOBES = "speechbrain.lobes.models"
_ACTIVATIONS = ("ELU", "GELU", "LeakyReLU", "Mish", "PReLU", "ReLU", "SELU", "SiLU", "Tanh")

VOCABULARY = Vocabulary(
    classes=frozenset(
        {
            f"{_LOBES}.ECAPA_TDNN.Classifier",
            f"{_LOBES}.ECAPA_TDNN.ECAPA_TDNN",
            f"{_LOBES}.ResNet.Classifier",
            f"{_LOBES}.ResNet.ResNet",
            f"{_LOBES}.Xvector.Classifier",
            f"{_LOBES}.Xvector.Xvector",
            "speechbrain.lobes.features.Fbank",
            "speechbrain.nnet.linear.Linear",
            "speechbrain.processing.features.InputNormalization",
            "torch.nn.Linear",
        }
    ),
    functions=frozenset(f"torch.nn.{name}" for name in _ACTIVATIONS),
    wanted=frozenset({*_MODULES, "sample_rate"}),
)
"""What a SpeechBrain directory may use without being trusted."""

_LABEL = re.compile(r"^'(?P<label>[^'\\]*)' => (?P<index>\d+)$")


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:
    """Load a directory of SpeechBrain's layout, or a model of the hub.

    Args:
        spec: ``speechbrain:DIRECTORY`` or ``speechbrain/NAME@REVISION``, without options.
        trust: Whether its YAML may run code.

    Raises:
        ModelCardError: If a file is missing, damaged or of another model.
        UnsafeYamlError: If the YAML needs more than SpeechBrain's speaker models.
    """
    spec.take({})
    directory, root, revision = _directory(spec.location)
    described = spec.verified(_HYPERPARAMS, read_plain(directory, _HYPERPARAMS, root=root))
    files = {_HYPERPARAMS: described}
    parts = _build(described, directory / _HYPERPARAMS, trust=trust, spec=spec)
    for name in _MODULES[:3]:
        if not isinstance(parts.get(name), nn.Module):
            raise ModelCardError(
                f"{directory / _HYPERPARAMS} has no module {name!r}, expected a speaker model with "
                f"{', '.join(_MODULES[:3])}; other kinds of models cannot be used"
            )
    network, classifier = parts["embedding_model"], parts.get("classifier")
    files["embedding_model.ckpt"] = read_plain(directory, "embedding_model.ckpt", root=root)
    _fill(network, files["embedding_model.ckpt"], directory / "embedding_model.ckpt")
    notes = []
    _settle_normalization(parts["mean_var_norm"], directory, root, files)
    labels = None
    if isinstance(classifier, nn.Module):
        labels = _labels(directory, root, files)
        if labels is None or not (directory / "classifier.ckpt").exists():
            notes.append("It has no classifier with labels here, so it verifies and does not name.")
            classifier = labels = None
        else:
            files["classifier.ckpt"] = read_plain(directory, "classifier.ckpt", root=root)
            _fill(classifier, files["classifier.ckpt"], directory / "classifier.ckpt")
    mods = {name: parts[name] for name in _MODULES[:3]}
    if classifier is not None:
        mods["classifier"] = classifier
    interface = SimpleNamespace(
        mods=mods,
        hparams=SimpleNamespace(
            label_encoder=SimpleNamespace(ind2lab=dict(enumerate(labels or ())))
        ),
    )
    try:
        model = instrument(interface)
    except InputError as err:
        raise ModelCardError(f"{directory}: its modules do not fit together ({err})") from err
    if model.input_bounds.high != 1.0:
        raise ModelCardError(
            f"{directory} has the features {type(parts['compute_features']).__name__} with other "
            "than plain decibels, expected Fbank without deltas and context; load it in Python and "
            "pass nip_audio a function of waveforms: python:PACKAGE.MODULE:FACTORY"
        )
    rate = int(getattr(model.front_end, "sample_rate_hz", 16000))
    hashes = {name: file_hash(data) for name, data in files.items()}
    kind = type(network).__name__
    return SourceModel(
        model.eval().requires_grad_(False),
        name=_name(spec.location, directory),
        sample_rate_hz=rate,
        files=hashes,
        architecture=f"{kind} of SpeechBrain",
        licence=_licence(directory, root),
        notes=(*notes, *([f"Revision {revision} of the hub."] if revision else [])),
    )


def _directory(location: str) -> tuple[Path, Path | None, str | None]:
    """Return the directory, the folder that its links may lead to, and the revision of the hub."""
    directory = Path(location)
    if directory.is_dir() or not location.startswith("speechbrain/"):
        if not directory.is_dir():
            raise ModelCardError(
                f"{location} is no directory, expected one with {_HYPERPARAMS}; check --model"
            )
        return directory, None, None
    found, commit, root = hub_directory(*split_hub_id(location))
    return found, root, commit


def _build(data: bytes, path: Path, *, trust: bool, spec: SourceSpec) -> Mapping[str, Any]:
    if not trust:
        try:
            return build(data, path, VOCABULARY)
        except UnsafeYamlError as err:
            raise UnsafeYamlError(
                f"{err}. Everything else could run any code of its author; if you know who made it "
                "and that nobody changed it, say so once: nip-audio adopt --trust-model "
                f"'{spec}' --out DIRECTORY"
            ) from err
    parts: Mapping[str, Any] = load_hyperpyyaml(data.decode())
    modules = dict(parts.get("modules", {}))
    return {**parts, **modules}


def _fill(module: nn.Module, data: bytes, path: Path) -> None:
    fit_weights(module, state_of(read_checkpoint(data, path), path), path)


def _settle_normalization(
    module: nn.Module, directory: Path, root: Path | None, files: dict[str, bytes]
) -> None:
    """Give a normalisation over all recordings its statistics; others have none."""
    if getattr(module, "norm_type", "sentence") != "global":
        return
    name = "mean_var_norm.ckpt"
    files[name] = read_plain(directory, name, root=root)
    state = read_checkpoint(files[name], directory / name)
    try:
        statistics: Any = module
        statistics._load_statistics_dict(state)
    except (KeyError, TypeError) as err:
        raise ModelCardError(
            f"{directory / name} holds no statistics ({err}), expected count, glob_mean and "
            "glob_std; restore it"
        ) from err


def _labels(directory: Path, root: Path | None, files: dict[str, bytes]) -> list[str] | None:
    """Read the labels of the classifier; None without them."""
    names = [name for name in (_LABELS, "label_encoder.ckpt") if (directory / name).exists()]
    if not names:
        return None
    files[names[0]] = data = read_plain(directory, names[0], root=root)
    listed = data.decode("utf-8", "replace").split("\n====", 1)[0]  # what follows are settings
    found = [_LABEL.match(line) for line in listed.splitlines()]
    labels = {int(m["index"]): m["label"] for m in found if m}
    if not labels or set(labels) != set(range(len(labels))):
        raise ModelCardError(
            f"{directory / names[0]} has no labels numbered from 0, expected lines such as "
            "'speaker' => 0; restore it, or remove it to verify only"
        )
    return [labels[i] for i in range(len(labels))]


def _licence(directory: Path, root: Path | None) -> str | None:
    """Return the licence that a hub's README gives in its first lines."""
    if not (directory / "README.md").exists():
        return None
    text = read_plain(directory, "README.md", root=root).decode("utf-8", "replace")
    found = re.search(r"^license: *\"?([\w.+-]+)", text[:2000], flags=re.MULTILINE)
    return found[1] if found else None


def _name(location: str, directory: Path) -> str:
    if Path(location).is_dir():
        return directory.resolve().name
    return location.removeprefix("speechbrain/").partition("@")[0]
