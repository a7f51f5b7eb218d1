"""Read gate.toml: the limits that recordings and speakers must keep, each with its unit.

``gate.toml`` beside this file has the defaults and says what each key means.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nip_audio.core.files import UnfitFileError, read_regular
from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError

__all__ = ["GateLimits", "RecordingLimits", "SpeakerLimits", "default_gate_text", "read_gate"]

_MAX_BYTES = 1 << 20

_UNITS = {
    "s": ("seconds", 0.0, math.inf),
    "db": ("decibels", -math.inf, math.inf),
    "dbfs": ("decibels to full scale", -math.inf, 0.0),
    "hz": ("hertz", 0.0, math.inf),
    "share": ("a share", 0.0, 1.0),
    "cosine": ("a cosine", -1.0, 1.0),
    "cohesion": ("a cosine", -1.0, 1.0),
    "margin": ("a difference of cosines", 0.0, 1.0),
    "doubling": ("a difference of cosines for twice the speech", 0.0, 1.0),
    "voice": ("a probability", 0.0, 1.0),
    "recordings": ("a count", 1, math.inf),
}
"""Unit of a key by its last word, with the smallest and the largest value."""

_MARGIN_AT_S = 5.0

_OTHER_UNITS = ("ms", "min", "khz", "percent", "lufs", "bits")


@dataclass(frozen=True)
class RecordingLimits:
    """Limits of a recording; gate.toml says what each means."""

    least_speech_s: float
    least_snr_db: float
    least_level_dbfs: float
    most_clipped_share: float
    least_bandwidth_hz: float
    most_silence_s: float
    voice_margin: float
    voice_gain_per_doubling: float
    least_part_cosine: float | None = None

    def part_cosine(self, verification_threshold: float | None, *, speech_s: float) -> float | None:
        """Return the smallest cosine between two parts of one voice; None if it is not known.

        Args:
            verification_threshold: Cosine from which two recordings count as one voice.
            speech_s: Seconds of speech in both parts, more than 0: the less, the more embeddings
                of one voice differ.
        """
        if self.least_part_cosine is not None or verification_threshold is None:
            return self.least_part_cosine
        gain = self.voice_gain_per_doubling * math.log2(speech_s / _MARGIN_AT_S)
        return verification_threshold - max(self.voice_margin - gain, 0.0)


@dataclass(frozen=True)
class SpeakerLimits:
    """Limits of a speaker; gate.toml says what each means."""

    least_recordings: int
    least_speech_s: float
    most_same_voice: float
    least_cohesion: float | None = None

    def cohesion(self, verification_threshold: float | None) -> float | None:
        """Return the smallest cohesion of one voice; None if it is not known."""
        return verification_threshold if self.least_cohesion is None else self.least_cohesion


@dataclass(frozen=True)
class GateLimits:
    """Limits of the enrolment gate.

    Attributes:
        recording: Limits of a recording.
        speaker: Limits of a speaker.
    """

    recording: RecordingLimits
    speaker: SpeakerLimits

    @staticmethod
    def of(given: GateLimits | Path | None) -> GateLimits:
        """Return limits: those given, of a file, or the defaults.

        Raises:
            InputError: If the file cannot be used.
        """
        if isinstance(given, GateLimits):
            return given
        return _defaults() if given is None else read_gate(given)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


_SECTIONS: Mapping[str, type[Any]] = {"recording": RecordingLimits, "speaker": SpeakerLimits}


def default_gate_text() -> str:
    """Return gate.toml with the defaults, as text with comments."""
    return resources.files(__package__).joinpath("gate.toml").read_text("utf-8")


def read_gate(path: Path, *, outside: Path | None = None) -> GateLimits:
    """Read a file of limits; keys that it leaves out keep their defaults.

    Args:
        path: File to read.
        outside: Folder that is screened, in which the file must not lie: whoever may add
            recordings there could lower the limits.

    Raises:
        InputError: If it cannot be read, lies in that folder, a key is unknown or has another
            unit, or a value has another type or is out of range.
    """
    if outside is not None and outside.resolve() in path.resolve().parents:
        raise InputError(
            f"{path} lies in the folder that is screened, where whoever adds recordings could "
            "lower the limits; move it elsewhere"
        )
    try:
        text = read_regular(path, most=_MAX_BYTES).decode()
    except (FileNotFoundError, UnfitFileError) as err:
        raise InputError(
            f"{path} is no file of at most {_MAX_BYTES} bytes; check the path, or write one: "
            "nip-audio gate --show > gate.toml"
        ) from err
    except (OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read ({err}); correct it") from err
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise InputError(f"{path} cannot be read as TOML ({err}); correct it") from err
    return _checked(given, str(path), _defaults().to_json())


@cache
def _defaults() -> GateLimits:
    empty: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    return _checked(tomllib.loads(default_gate_text()), "gate.toml", empty)


def _checked(
    given: Mapping[str, Any], where: str, defaults: Mapping[str, Mapping[str, Any]]
) -> GateLimits:
    made = {}
    for name in given:
        if name not in _SECTIONS:
            hint = suggest_names(name, _SECTIONS)
            raise InputError(f"{where} has [{name}], expected [recording] and [speaker]; {hint}")
    for name, kind in _SECTIONS.items():
        section = given.get(name, {})
        if not isinstance(section, dict):
            raise InputError(
                f"{where}: {name} is {section!r}, expected a section; write [{name}] above its keys"
            )
        hints = get_type_hints(kind)
        values = dict(defaults[name])
        for key, value in section.items():
            if key not in hints:
                raise InputError(f"{where}: [{name}] has no key {key}; {_near(key, hints)}")
            values[key] = _value(f"{where}: {key}", key, value, hints[key])
        made[name] = kind(**values)
    return GateLimits(**made)


def _near(key: str, known: Mapping[str, Any]) -> str:
    """Suggest a key; the same with another unit is most likely what is meant."""
    stem, _, unit = key.rpartition("_")
    meant = [one for one in known if one.rpartition("_")[0] in (stem, key)]
    if meant and (unit in _OTHER_UNITS or unit in _UNITS or key in stem):
        return f"its unit is {_UNITS[_unit(meant[0])][0]}: write {meant[0]}"
    if meant:
        return f"the unit is part of the name: write {meant[0]}, in {_UNITS[_unit(meant[0])][0]}"
    return suggest_names(key, known)


def _unit(key: str) -> str:
    return key.rpartition("_")[2]


def _value(where: str, key: str, value: object, hint: Any) -> float | int:
    words, low, high = _UNITS[_unit(key)]
    whole = hint is int or int in get_args(hint)
    number = type(value) is int or (type(value) is float and not whole)
    if not number:
        expected = "a whole number" if whole else "a number"
        raise InputError(
            f"{where} is {value!r}, expected {expected} ({words}), without quotes or a unit; "
            f"write, e.g., {key} = {_example(key)}"
        )
    if not low <= float(value) <= high or not math.isfinite(float(value)):  # type: ignore[arg-type]
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of {low:g} or more"
        bounds = "that is finite" if low == -math.inf and high == math.inf else bounds
        bounds = f"of at most {high:g}" if low == -math.inf and high < math.inf else bounds
        raise InputError(
            f"{where} is {value}, expected {words} {bounds}; write, e.g., {key} = {_example(key)}"
        )
    return value if whole else float(value)  # type: ignore[return-value, arg-type]


def _example(key: str) -> str:
    """Return a value of a key: its default, or else a cosine."""
    for section in _SECTIONS:
        part = tomllib.loads(default_gate_text())[section]
        if key in part:
            return str(part[key])
    return "0.5"
