"""Read SpeechBrain's speaker models, from a directory or the hub, without running their code.

Of ``hyperparams.yaml`` only the features, their normalisation, the network and the classifier are
built, out of SpeechBrain's own classes; whatever else the file says is left out unread. Checkpoints
are read as weights alone. A directory that needs more is refused, unless the user trusts it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.error import YAMLError as RuamelYamlError
from torch import nn
from yaml import YAMLError

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, ModelCardError, UnsafeYamlError
from nip_audio.models.safe_yaml import Vocabulary, build
from nip_audio.models.sources.base import (
    LARGEST_FILE,
    MOST_VALUES,
    SourceModel,
    SourceSpec,
    file_hash,
    read_plain,
)
from nip_audio.models.sources.foreign import FOREIGN_ERRORS
from nip_audio.models.sources.hub import hub_directory, local_directory, split_hub_id
from nip_audio.models.sources.plain_weights import fit_weights, read_checkpoint, state_of
from nip_audio.models.sources.speechbrain_modules import instrument

__all__ = ["VOCABULARY", "load"]

_HYPERPARAMS = "hyperparams.yaml"
_LABELS = ("label_encoder.txt", "label_encoder.ckpt")
_FILES = (
    _HYPERPARAMS,
    "embedding_model.ckpt",
    "classifier.ckpt",
    *_LABELS,
    "mean_var_norm.ckpt",
    "README.md",
)
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
    most_values=MOST_VALUES,
)
"""What a SpeechBrain directory may use without being trusted."""

_STATISTICS = ("glob_mean", "glob_std")
_LABEL = re.compile(r"(?P<label>['\"].{0,1000}['\"]|\d+) => (?P<index>\d{1,9})")
_LARGEST_TEXT = 64 << 20
_MOST_FFT, _MOST_FRAMES = 16384, 1000  # per transform, and per second
_MOST_BANDS = 10_000
_RATES_HZ = (4000, 192_000)


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
    folder, revision = _folder(spec)
    directory = folder.directory
    described = folder.read(_HYPERPARAMS, largest=_LARGEST_TEXT)
    parts, trusted = _build(described, directory / _HYPERPARAMS, trust=trust, spec=spec)
    for name in _MODULES[:3]:
        if not isinstance(parts.get(name), nn.Module):
            raise ModelCardError(
                f"{directory / _HYPERPARAMS} has no module {name!r}, expected a speaker model with "
                f"{', '.join(_MODULES[:3])}; other kinds of models cannot be used"
            )
    _require_sizes(parts["compute_features"], directory / _HYPERPARAMS)
    network, classifier = parts["embedding_model"], parts.get("classifier")
    _fill(network, folder, "embedding_model.ckpt")
    notes = []
    _settle_normalization(parts["mean_var_norm"], folder)
    labels: list[str] = []
    mods = {name: parts[name] for name in _MODULES[:3]}
    if isinstance(classifier, nn.Module):
        labels = _labels(folder)
        if labels and (directory / "classifier.ckpt").exists():
            _fill(classifier, folder, "classifier.ckpt")
            mods["classifier"] = classifier
        else:
            notes.append("It has no classifier with labels here, so it verifies and does not name.")
            labels = []
    if trusted:
        notes.append("The code of the classes that its YAML names is no part of its identity.")
    if revision:
        notes.append(f"Revision {revision} of the hub.")
    model = _instrumented(mods, labels, directory)
    return SourceModel(
        model,
        name=_name(spec.location, directory),
        sample_rate_hz=int(parts["compute_features"].compute_STFT.sample_rate),
        files=folder.hashes,
        architecture=f"{type(network).__name__} of SpeechBrain",
        licence=_licence(folder),
        notes=tuple(notes),
        ran_code=trusted,
    )


def _instrumented(
    mods: Mapping[str, nn.Module], labels: Sequence[str], directory: Path
) -> InstrumentedModel:
    """Join the modules, and try them on a second of noise."""
    encoder = SimpleNamespace(ind2lab=dict(enumerate(labels)))
    interface = SimpleNamespace(mods=mods, hparams=SimpleNamespace(label_encoder=encoder))
    features = mods["compute_features"]
    try:
        model = instrument(interface, singly=True).eval().requires_grad_(False)
        if model.input_bounds.high != 1.0:
            raise ModelCardError(
                f"{directory} has the features {type(features).__name__} with other than plain "
                "decibels, expected Fbank without deltas and context; load it in Python and pass "
                "nip_audio a function of waveforms: python:PACKAGE.MODULE:FACTORY"
            )
        generator = torch.Generator().manual_seed(0)
        rate = int(features.compute_STFT.sample_rate)  # type: ignore[union-attr,arg-type]
        with torch.no_grad():
            tried = model(Batch(0.05 * torch.randn(1, rate, generator=generator).clamp(-3, 3)))
    except (InputError, *FOREIGN_ERRORS) as err:
        reason = str(err).strip().splitlines()[0][:300] if str(err).strip() else type(err).__name__
        raise ModelCardError(
            f"{directory}: its modules do not fit together ({reason}); use the files of one model, "
            "or remove classifier.ckpt to verify only"
        ) from err
    if labels and tried.shape[1] != len(labels):
        raise ModelCardError(
            f"{directory} has a classifier of {tried.shape[1]} speakers and {len(labels)} labels, "
            "expected as many; use the files of one model, or remove classifier.ckpt to verify only"
        )
    return model


def _require_sizes(features: nn.Module, path: Path) -> None:
    """Refuse features that would need more memory than any speech needs."""
    analysis: Any = getattr(features, "compute_STFT", None)
    if analysis is None:
        return  # refused later: these are no filter banks
    rate, step = analysis.sample_rate, max(analysis.hop_length, 1e-9)
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise ModelCardError(
            f"{path} has a sample rate of {rate:g} Hz, expected {_RATES_HZ[0]} to {_RATES_HZ[1]}; "
            "restore the file"
        )
    if analysis.n_fft > _MOST_FFT or rate / step > _MOST_FRAMES:
        raise ModelCardError(
            f"{path} has features of {rate / step:.0f} frames a second by a transform of "
            f"{analysis.n_fft:g} samples, expected at most {_MOST_FRAMES} and {_MOST_FFT}; restore "
            "the file"
        )


@dataclass(frozen=True)
class _Folder:
    """Directory of a model, and what was read of it.

    Attributes:
        spec: Source, which may hold the hashes of a card.
        directory: Directory of the files.
        root: Folder that its links may lead to; None is the directory itself.
        hashes: SHA-256 of each file that was read.
    """

    spec: SourceSpec
    directory: Path
    root: Path | None = None
    hashes: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, *, largest: int = LARGEST_FILE) -> bytes:
        """Read a file of the model; compare it to the card before anybody parses it."""
        data = read_plain(self.directory, name, root=self.root, largest=largest)
        self.hashes[name] = file_hash(self.spec.verified(name, data))
        return data


def _folder(spec: SourceSpec) -> tuple[_Folder, str | None]:
    """Return the directory of a source, and the revision of the hub."""
    directory = local_directory(spec.location, owner="speechbrain/")
    if directory is not None:
        return _Folder(spec, directory), None
    if not spec.location.startswith("speechbrain/"):
        raise ModelCardError(
            f"{spec.location} is no directory, expected one with {_HYPERPARAMS}; check `model`"
        )
    found, commit, root = hub_directory(*split_hub_id(spec.location), files=_FILES)
    return _Folder(spec, found, root), commit


def _build(
    data: bytes, path: Path, *, trust: bool, spec: SourceSpec
) -> tuple[Mapping[str, Any], bool]:
    """Build the modules; tell whether that took trust."""
    try:
        return build(data, path, VOCABULARY), False
    except UnsafeYamlError as err:
        if not trust:
            raise UnsafeYamlError(
                f"{err}. Everything else could run any code of its author; if you know who made it "
                "and that nobody changed it, say so once: nip-audio adopt --trust-model "
                f"'{spec}' --out DIRECTORY"
            ) from err
    try:
        parts = dict(load_hyperpyyaml(data.decode()))
        return {**parts, **dict(parts.get("modules") or {})}, True
    except (ImportError, OSError, RuamelYamlError, YAMLError, *FOREIGN_ERRORS) as err:
        raise ModelCardError(
            f"{path} cannot be built ({type(err).__name__}: {err}); set PYTHONPATH to the folder "
            "of the classes that it names, or correct it"
        ) from err


def _fill(module: nn.Module, folder: _Folder, name: str) -> None:
    data, path = folder.read(name), folder.directory / name
    fit_weights(module, state_of(read_checkpoint(data, path), path), path)


def _settle_normalization(module: nn.Module, folder: _Folder) -> None:
    """Give a normalisation over all recordings its statistics; others have none."""
    if getattr(module, "norm_type", "sentence") != "global":
        return
    name = "mean_var_norm.ckpt"
    path = folder.directory / name
    state = read_checkpoint(folder.read(name), path)
    found = [state.get(key) if isinstance(state, Mapping) else None for key in _STATISTICS]
    tensors = [value for value in found if torch.is_tensor(value)]
    if len(tensors) != 2 or not all(
        value.dim() == 1 and value.numel() in range(1, _MOST_BANDS) and bool(value.isfinite().all())
        for value in tensors
    ):
        raise ModelCardError(
            f"{path} holds no statistics of features, expected the vectors "
            f"{' and '.join(_STATISTICS)} of finite values; restore the file"
        )
    statistics: Any = module
    statistics._load_statistics_dict({"count": 1, **state})


def _labels(folder: _Folder) -> list[str]:
    """Read the labels of the classifier, as ``CategoricalEncoder`` writes them; [] without them."""
    found_names = (name for name in _LABELS if (folder.directory / name).exists())
    name = next(found_names, None)
    if name is None:
        return []
    path = folder.directory / name
    data = folder.read(name, largest=_LARGEST_TEXT)
    listed = data.decode("utf-8", "replace").split("====", 1)[0]  # what follows are settings
    found = [_LABEL.fullmatch(line.strip()) for line in listed.strip().split("\n")]
    labels: dict[int, str] = {}
    try:
        labels = {int(m["index"]): str(ast.literal_eval(m["label"])) for m in found if m}
    except (ValueError, SyntaxError):
        found = []
    if not labels or None in found or set(labels) != set(range(len(found))):
        raise ModelCardError(
            f"{path} has no labels numbered from 0, expected lines such as 'speaker' => 0; restore "
            "it, or remove it to verify only"
        )
    return [labels[i] for i in range(len(labels))]


def _licence(folder: _Folder) -> str | None:
    """Return the licence that a hub's README gives in its first lines."""
    directory, root = folder.directory, folder.root
    if not (directory / "README.md").exists():
        return None
    text = read_plain(directory, "README.md", root=root, largest=_LARGEST_TEXT).decode(
        "utf-8", "replace"
    )
    found = re.search(r"^license: *\"?([\w.+-]+)", text[:2000], flags=re.MULTILINE)
    return found[1] if found else None


def _name(location: str, directory: Path) -> str:
    if Path(location).is_dir():
        return directory.resolve().name
    return location.removeprefix("speechbrain/").partition("@")[0]
