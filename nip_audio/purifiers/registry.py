"""Registry of all defences by name, with their settings and constructors."""

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
from nip_audio.purifiers.bicubic import Bicubic
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.codec import Codec
from nip_audio.purifiers.down_sampling import DownSampling
from nip_audio.purifiers.feature_distillation import FeatureDistillation
from nip_audio.purifiers.jpeg import Jpeg
from nip_audio.purifiers.median_filter import MedianFilter
from nip_audio.purifiers.nip_activation import ActivationNip
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.quantization import Quantization
from nip_audio.purifiers.random_crop import RandomCrop
from nip_audio.purifiers.spatial_smoothing import SpatialSmoothing
from nip_audio.purifiers.variance_minimisation import TotalVarianceMinimisation

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

_MODEL_PARAMETERS = ("bounds", "model", "model_id")


@dataclass(frozen=True)
class DefenceEntry:
    """Description of a defence, from which it can be constructed for a model.

    Attributes:
        title: Name of the defence in the literature.
        level: Where the defence works: on raw input, on model input, or on layers of the network.
        make: Class of the defence, or the function that loads it from a file. Its parameters are
            the settings of the defence, except for ``bounds``, ``model`` and ``model_id``, which
            are taken from the model.
        fixed: Values of parameters that are fixed for this defence.
    """

    title: str
    level: Level | Literal["layers"]
    make: Callable[..., Defence]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that a user can choose."""
        return tuple(n for n in self._parameters if n not in (*self.fixed, *_MODEL_PARAMETERS))

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the settings that a user must choose, since they have no default."""
        defaults = {n: p.default for n, p in self._parameters.items()}
        return tuple(n for n in self.settings if defaults[n] is inspect.Parameter.empty)

    def model_parameters(self, model: InstrumentedModel, model_id: str | None) -> dict[str, Any]:
        """Return the parameters that the model gives: bounds, identity and, if known, the rate."""
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
    "jpeg": DefenceEntry("JPEG", "input", Jpeg),
    "patch-dictionary": DefenceEntry("patch dictionary", "input", PatchDictionary.load),
    "bicubic": DefenceEntry("bicubic", "input", Bicubic),
    "feature-distillation": DefenceEntry("FD", "input", FeatureDistillation),
    "anti-adversary": DefenceEntry("anti-adversary layer", "input", AntiAdversary),
}
"""Defences that change the input, and can therefore produce a purified recording."""

LAYER_DEFENCES: Mapping[str, DefenceEntry] = {
    "nip-n": DefenceEntry("NIP_n", "layers", ActivationNip.load),
    "sap": DefenceEntry("SAP", "layers", ActivationPruning),
    "class-neurons": DefenceEntry("class neurons", "layers", ClassNeurons.load),
}
"""Defences inside a network: they give a defended model, but no purified recording."""

DEFENCES: Mapping[str, DefenceEntry] = {**PURIFIERS, **LAYER_DEFENCES}
"""All defences by name."""


def purifier_entry(name: str) -> DefenceEntry:
    """Look up a purifier by name.

    Raises:
        InputError: If the name is unknown; the message lists similar names.
    """
    return _entry(name, PURIFIERS, "purifier")


def defence_entry(name: str) -> DefenceEntry:
    """Look up a defence by name: a purifier, or a defence inside the network.

    Raises:
        InputError: If the name is unknown; the message lists similar names.
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
    """Construct a purifier by name; arguments and errors are those of ``make_defence``."""
    purifier_entry(name)
    made = make_defence(name, model=model, model_id=model_id, settings=settings)
    return cast(Purifier, made)  # every entry of PURIFIERS constructs a Purifier


def make_defence(
    name: str,
    *,
    model: InstrumentedModel,
    model_id: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Defence:
    """Construct a defence by name; settings that are missing or None take their defaults.

    Args:
        name: Name of the defence, one of ``DEFENCES``.
        model: Model to defend; the defence uses its bounds, and its sample rate if its front end
            has one.
        model_id: Identity of the model, which a fitted defence must match; None skips the
            comparison.
        settings: Settings by name, e.g. ``{"bits": 6}``.

    Raises:
        InputError: If the name or a setting is unknown, or a setting is missing or out of range.
        StateError: If the file of a fitted defence cannot be read, or belongs to another model.
    """
    entry = defence_entry(name)
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    unknown = sorted(given.keys() - set(entry.settings))
    if unknown:
        raise InputError(
            f"{name} has no setting {', '.join(unknown)}, expected only "
            f"{', '.join(entry.settings) or 'none'}; remove it"
        )
    missing = [key for key in entry.required if key not in given]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}; pass it as a setting")
    known = entry.model_parameters(model, model_id)
    rate = known.get("sample_rate_hz")
    if rate is not None and given.get("sample_rate_hz", rate) != rate:
        raise InputError(
            f"sample rate is {given['sample_rate_hz']} Hz, this model expects {rate} Hz; omit "
            "sample_rate_hz"
        )
    return entry.make(**{**known, **entry.fixed, **given})
