"""List what the verdicts of a run depend on, for anyone who has to repeat or defend them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from nip_audio import __version__
from nip_audio.core.noise import Noise
from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.judge import noise_words
from nip_audio.screening.kind import Words
from nip_audio.screening.results import SUMMARY_NAME

__all__ = ["provenance_html"]


def provenance_html(run: ScreenedRun, examiner: Examiner | None) -> str:
    """Return the items of an HTML definition list: each setting and its value."""
    return "".join(
        f"<dt>{html_text(name)}</dt><dd>{html_text(value)}</dd>"
        for name, value in _facts(run, examiner)
    )


def _facts(run: ScreenedRun, examiner: Examiner | None) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "Source", str(run.source)
    judged = datetime.fromtimestamp((run.folder / SUMMARY_NAME).stat().st_mtime, UTC)
    yield "Judged at", f"{judged:%Y-%m-%d %H:%M} UTC"
    yield "Model", str(summary["model"])
    yield "Model identity (SHA-256)", str(summary["model_id"])
    yield "Calibration (SHA-256)", str(summary["calibration"])
    yield "Calibrated on", str(summary.get("calibration_sources") or "not recorded")
    rate = summary.get("false_discovery_rate")
    words = run.kind.words
    yield (
        "False-positive rate",
        f"{summary['false_positive_rate']:g} on clean {words.clean}",
    )
    yield "False-discovery rate", "not used" if rate is None else f"{rate:g} of the flagged files"
    yield (
        "Expected by chance",
        f"{summary['expected_by_chance']:g} files called adversarial if all were clean",
    )
    if (gate := summary.get("gate")) is not None:
        yield "Enrolment gate", _limits(gate)
    yield "Noise seed", str(summary["seed"])
    yield "Detector", _detector(summary, words)
    yield (
        "How files are read",
        ", ".join(f"{key} {value}" for key, value in summary["read"].items()),
    )
    yield "Measured with", f"nip-audio {summary['nip_audio']}"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "soundfile"))
    yield (
        "Report made with",
        f"nip-audio {__version__}, Python {platform.python_version()}, {libraries}",
    )
    yield "Calibration available to this report", _at_hand(examiner)
    if examiner is not None:
        purifier = examiner.purifier
        what = "the model has none" if purifier is None else _settings(purifier.settings())
        yield "Purifier", what


def _detector(summary: Mapping[str, Any], words: Words) -> str:
    nccr = summary["nccr"]
    noises = ", ".join(noise_words(Noise(**noise), words) for noise in nccr["noises"])
    if "window_s" in summary:
        return (
            f"response of the purifier {summary['purifier'][:16]}… to windows of at most "
            f"{summary['window_s']:g} s, and changes of layers {', '.join(nccr['layers'])}, with "
            f"copies under {noises}; fitted on harmless changes and attacks"
        )
    return (
        f"NCCR (neuron coverage change rate) of layers {', '.join(nccr['layers'])} under {noises}; "
        f"draws of each noise: {nccr['draws']}"
    )


def _at_hand(examiner: Examiner | None) -> str:
    if examiner is None:
        return "not needed, because no file was drawn"
    if examiner.judge is None:
        return "no, so the drawings lack the detector's evidence"
    return "yes"


def _settings(settings: dict[str, Any]) -> str:
    """Describe a purifier by its settings, without those of its training."""
    return ", ".join(f"{k} {v}" for k, v in settings.items() if not isinstance(v, dict))


def _limits(gate: Mapping[str, Any]) -> str:
    """Return the limits of the enrolment gate in words; None is one that the calibration sets."""
    parts = [
        f"{part}: {', '.join(f'{key} {_limit(value)}' for key, value in gate[part].items())}"
        for part in ("recording", "speaker")
    ]
    told = "strict: what misses one is unfit" if gate["strict"] else "what misses one is a note"
    return "; ".join([*parts, told])


def _limit(value: float | None) -> str:
    return "by the threshold of voices" if value is None else f"{value:g}"
