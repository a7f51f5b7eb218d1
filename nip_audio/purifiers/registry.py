"""Every defence by name: what it is, and how it is made for a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from nip_audio.core.model import InstrumentedModel
from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError
from nip_audio.purifiers.activation_pruning import ActivationPruning
from nip_audio.purifiers.anti_adversary import AntiAdversary
from nip_audio.purifiers.base import Defence, Level, Purifier
from nip_audio.purifiers.codec import Codec
from nip_audio.purifiers.down_sampling import DownSampling
from nip_audio.purifiers.feature_distillation import FeatureDistillation
from nip_audio.purifiers.jpeg import Jpeg
from nip_audio.purifiers.median_filter import MedianFilter
from nip_audio.purifiers.neuron_selecting import NeuronSelecting
from nip_audio.purifiers.nip_activation import ActivationNip
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization
from nip_audio.purifiers.random_crop import RandomCrop
from nip_audio.purifiers.sparse_coding import StratifiedSparseCoding
from nip_audio.purifiers.spatial_smoothing import SpatialSmoothing
from nip_audio.purifiers.super_resolution import SuperResolution
from nip_audio.purifiers.variance_minimisation import TotalVarianceMinimisation
from nip_audio.purifiers.variance_minimisation_art import ArtVarianceMinimisation

__all__ = [
    "DEFENCES",
    "LAYER_DEFENCES",
    "PURIFIERS",
    "DefenceEntry",
    "defence_entry",
    "make_defence",
    "make_purifier",
    "purifier_entry",
]

_OF_THE_MODEL = ("bounds", "model", "model_id")


@dataclass(frozen=True)
class DefenceEntry:
    """What is known of a defence before it is made.

    Attributes:
        title: As the literature writes it.
        level: Where it works: on raw input, on the model's own, or on layers inside the network.
        make: Its class, or what reads it from a file. Its parameters, which are passed by name,
            are the defence's settings, but for ``bounds``, ``model`` and ``model_id``, which the
            model gives.
        fixed: Settings that make the class this defence.
    """

    title: str
    level: Level | Literal["layers"]
    make: Callable[..., Defence]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that can be chosen."""
        return tuple(n for n in self._parameters if n not in (*self.fixed, *_OF_THE_MODEL))

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the settings that must be chosen: they have no default."""
        defaults = {n: p.default for n, p in self._parameters.items()}
        return tuple(n for n in self.settings if defaults[n] is inspect.Parameter.empty)

    def of_the_model(self, model: InstrumentedModel, model_id: str | None) -> dict[str, Any]:
        """Return what the model says: its bounds, and its sample rate if its front end knows it."""
        known: dict[str, Any] = {
            "bounds": model.bounds if self.level == "raw" else model.input_bounds,
            "model": model,
            "model_id": model_id,
        }
        rate = getattr(model.front_end, "sample_rate_hz", None)
        if rate is not None:
            known["sample_rate_hz"] = int(rate)
        return {name: value for name, value in known.items() if name in self._parameters}

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make).parameters


PURIFIERS: Mapping[str, DefenceEntry] = {
    "guided": DefenceEntry("guided NIP", "input", GuidedNip.load),
    "pool": DefenceEntry("NIP", "input", NipPool.load),
    "noise": DefenceEntry("Gaussian noise", "raw", GaussianNoise),
    "quantization": DefenceEntry("QTZ", "raw", Quantization, {"level": "raw"}),
    "down-sampling": DefenceEntry("DS", "raw", DownSampling),
    "random-crop": DefenceEntry("RC", "raw", RandomCrop),
    "median": DefenceEntry("median filter", "raw", MedianFilter),
    "mp3": DefenceEntry("MP3", "raw", Codec, {"codec": "mp3"}),
    "vorbis": DefenceEntry("Ogg Vorbis", "raw", Codec, {"codec": "vorbis"}),
    "opus": DefenceEntry("Ogg Opus", "raw", Codec, {"codec": "opus"}),
    "spatial-smoothing": DefenceEntry("SS", "input", SpatialSmoothing),
    "bit-depth": DefenceEntry("CBDR", "input", Quantization, {"level": "input"}),
    "tvm": DefenceEntry("TVM", "input", TotalVarianceMinimisation),
    "tvm-art": DefenceEntry("TVM (ART)", "input", ArtVarianceMinimisation),
    "jpeg": DefenceEntry("JPEG", "input", Jpeg),
    "stl": DefenceEntry("STL", "input", StratifiedSparseCoding.load),
    "super-resolution": DefenceEntry("SR", "input", SuperResolution),
    "feature-distillation": DefenceEntry("FD", "input", FeatureDistillation),
    "anti-adversary": DefenceEntry("anti-adversary layer", "input", AntiAdversary),
}
"""What changes inputs, and can so be handed the sound itself."""

LAYER_DEFENCES: Mapping[str, DefenceEntry] = {
    "nip-n": DefenceEntry("NIP_n", "layers", ActivationNip.load),
    "sap": DefenceEntry("SAP", "layers", ActivationPruning),
    "ns": DefenceEntry("NS", "layers", NeuronSelecting.load),
}
"""What works inside a network: there is a defended model, but no purified sound."""

DEFENCES: Mapping[str, DefenceEntry] = {**PURIFIERS, **LAYER_DEFENCES}


def purifier_entry(name: str) -> DefenceEntry:
    """Look a purifier up.

    Raises:
        InputError: For an unknown name, listing near ones.
    """
    return _entry(name, PURIFIERS, "purifier")


def defence_entry(name: str) -> DefenceEntry:
    """Look a defence up, a purifier or one inside the network.

    Raises:
        InputError: For an unknown name, listing near ones.
    """
    return _entry(name, DEFENCES, "defence")


def _entry(name: str, entries: Mapping[str, DefenceEntry], what: str) -> DefenceEntry:
    if name not in entries:
        raise InputError(f"no {what} {name!r}; {suggest_names(str(name), entries)}")
    return entries[name]


def make_purifier(
    name: str,
    *,
    model: InstrumentedModel,
    model_id: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Purifier:
    """Return a purifier by name; arguments and errors are those of ``make_defence``."""
    purifier_entry(name)
    made = make_defence(name, model=model, model_id=model_id, settings=settings)
    return cast(Purifier, made)  # what is in PURIFIERS makes nothing else


def make_defence(
    name: str,
    *,
    model: InstrumentedModel,
    model_id: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Defence:
    """Return a defence by name; settings that are not given, or None, are the defence's own.

    Args:
        name: One of ``DEFENCES``.
        model: What it is to defend. Its bounds are the defence's; so is its sample rate, where
            its front end knows it.
        model_id: Its identity, which what was fitted must have been fitted to; None does not
            compare.
        settings: By name, e.g. ``{"bits": 6}``.

    Raises:
        InputError: For an unknown name, listing near ones, a setting that the defence does not
            have, one that is missing, or a senseless one.
        StateError: If what was fitted cannot be read, or is another model's.
    """
    entry = defence_entry(name)
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    unknown = sorted(given.keys() - set(entry.settings))
    if unknown:
        raise InputError(
            f"{name} has no setting {', '.join(unknown)}, expected only "
            f"{', '.join(entry.settings) or 'none'}; leave it out"
        )
    missing = [key for key in entry.required if key not in given]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}; give it in its settings")
    known = entry.of_the_model(model, model_id)
    rate = known.get("sample_rate_hz")
    if rate is not None and given.get("sample_rate_hz", rate) != rate:
        raise InputError(
            f"sample rate is {given['sample_rate_hz']} Hz, this model expects {rate} Hz; leave "
            "sample_rate_hz out"
        )
    return entry.make(**{**known, **entry.fixed, **given})
