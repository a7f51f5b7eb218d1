"""Runs to report on, without screening anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from nip_audio.audio.io import ReadSettings
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.details import RecordingDetails, names_of
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.judge import judge_speaker
from nip_audio.screening.recordings import Recordings
from nip_audio.screening.records import Finding, ScreenRecord, verdict_of
from nip_audio.screening.results import publishing
from nip_audio.screening.summary import Tally

HOSTILE = (
    "<img src=x onerror=hacked=1>.wav",
    "</script><script>hacked=1</script>.wav",
    "<!--<script>.wav",
    "\"double\" 'single' & more.wav",
    "bidi \u202egpj.wav",
    "line\nbreak \x07\x1b[31m.wav",
    "bytes \udcff.wav",
    "=HYPERLINK(1).wav",
    "@sum.wav",
    "javascript:hacked=1.wav",
    "{{script}}{{files}}.wav",
    "m" * 300 + ".wav",
    "имя 名前.wav",
)
THRESHOLD = 1.5

WriteRun = Callable[..., ScreenedRun]


def _record_of(name: str, speaker: str | None, distance: float, **more: object) -> ScreenRecord:
    far = distance > THRESHOLD
    attacked = (Finding.of("adversarial", f"distance {distance:.2f} > 1.50"),) if far else ()
    values = {
        "findings": attacked,
        "distance": distance,
        "distance_threshold": THRESHOLD,
        "p_value": round(float(np.exp(-distance)), 6),
        "q_value": 0.5,
        "domain_distance": 3.0,
        "domain_threshold": 30.0,
        "consistency": 0.8,
        "consistency_threshold": 0.5,
        "duration_s": 4.0,
        "sample_rate_hz": 16000,
        "channels": 1,
        "encoding": "WAV/PCM_16",
        "bandwidth_hz": 8000.0,
        "changes": ("resampled",),
        "sha256": "0" * 64,
    }
    values |= more
    details = {n: values.pop(n) for n in names_of(RecordingDetails) if n in values}
    values["details"] = RecordingDetails(**details)
    return ScreenRecord(name, speaker, verdict_of(values["findings"]), **values)


def _many_records(count: int) -> Iterable[ScreenRecord]:
    """Ten files a speaker; every hundredth is flagged."""
    rng = np.random.default_rng(0)
    for i in range(count):
        distance = 1.0 + 0.3 * rng.random() + (i % 100 == 99) * (1 + i / count)
        yield _record_of(f"s{i // 10:05d}/take {i:05d}.wav", f"s{i // 10:05d}", distance)


@pytest.fixture(scope="session")
def record_of() -> Callable[..., ScreenRecord]:
    """Make a record; further fields by name. It is flagged if its distance is above 1.5."""
    return _record_of


@pytest.fixture(scope="session")
def many_records() -> Callable[[int], Iterable[ScreenRecord]]:
    return _many_records


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_records() -> list[ScreenRecord]:
    """Every hostile name as speaker and file, all flagged, the last one most."""
    return [_record_of(f"{name}/{name}", name, 2.0 + i) for i, name in enumerate(HOSTILE)]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write records as a screening would have, and open that run."""

    def write(
        records: Iterable[ScreenRecord],
        *,
        source: Path | None = None,
        calibration: str = "c" * 64,
        model_id: str = "m" * 64,
        gate: EnrolmentGate | None = None,
    ) -> ScreenedRun:
        folder = tmp_path / "run"
        folder.mkdir()
        tally = Tally(0.01, Recordings.words)
        noise = {"family": "gaussian", "level": "raw", "scale": 0.002, "patch": 4}
        identity = {
            "nip_audio": "0.1.0",
            "model": "xvector-libri251",
            "model_id": model_id,
            "nccr": {"layers": ["embedding"], "noises": [noise], "draws": 1},
            "seed": 0,
            "read": asdict(ReadSettings()),
            "calibration": calibration,
            "calibration_sources": "<i>clean</i>",
            "false_positive_rate": 0.01,
            "false_discovery_rate": None,
            "gate": None if gate is None else gate.to_json(),
        }
        where = {"source": str(source or tmp_path / "enrolment")}
        (folder / "run.json").write_text(json.dumps(where))
        with publishing(folder) as publication:
            for speaker, group in groupby(records, key=lambda r: r.speaker):
                part = list(group)
                about = None if speaker is None else judge_speaker(part, Recordings.words)
                publication.write(part, about)
                tally.add(part, about)
            publication.finish(identity | tally.summary().to_json())
        return ScreenedRun.open(folder)

    return write
