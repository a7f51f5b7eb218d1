"""Measure what the enrolment gate finds and mistakes, for docs/results/gate.md.

    python -m studies.gate.measure LibriSpeech split.csv --work WORK --results RESULTS.json

Clean clips are of the test role of test-clean, whose speakers are strangers to the model; each
fault is put into other clips of it. --good and --faulty say how many (100 and 20; 500 and 50 need
more clips than this split has in the test role, so that clips are used for several faults). What is
measured of each clip is kept in WORK, and a second call continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from nip_audio import PretrainedModel, load_pretrained
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import Seconds, read_audio
from nip_audio.audio.manifest import Recording
from nip_audio.audio.speech import speech_finder
from nip_audio.core.metrics import auroc
from nip_audio.core.strict_json import build_dataclass
from nip_audio.errors import AudioError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.enrolment.files import failures_of
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.measured import FileFacts, SpeechEvidence
from nip_audio.screening.recordings import Recordings
from studies._lib.command import command, run, tell, write_results
from studies._lib.shares import share_of
from studies.gate.faults import FAULTS, RATE_HZ

MODEL = "xvector-libri251"
LEAST_S, MOST_S = 4.0, 6.0
SEED = 0
GOOD = "nothing"

Array = NDArray[np.float32]


def measure(
    data: Path, split: Path, work: Path, *, good: int, faulty: int
) -> tuple[list[dict[str, Any]], Calibration]:
    """Measure all clips; return what was found of each, and the calibration that judges them."""
    pretrained = load_pretrained(MODEL)
    calibration = Calibration.of(pretrained)
    rows = {row["key"]: row for row in _kept(work)}
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.open("a", encoding="utf-8") as file:
        for key, fault, speaker, samples in _clips(_spans(split), data, good, faulty, set(rows)):
            row = {"key": key, "fault": fault, "speaker": speaker}
            rows[key] = row | _measured(pretrained, samples)
            file.write(json.dumps(rows[key]) + "\n")
            file.flush()
            tell(f"{len(rows)}: {key}")
    return [row | _judged(row, calibration) for row in rows.values()], calibration


def _kept(work: Path) -> list[dict[str, Any]]:
    lines = work.read_text(encoding="utf-8").splitlines() if work.exists() else []
    return [json.loads(line) for line in lines]


def _spans(split: Path) -> list[Span]:
    """Return the clips of the test role that are long enough, shuffled."""
    spans = [
        span
        for span in read_split(split)
        if span.role == "test"
        and span.path.startswith("test-clean/")
        and span.end_s - span.start_s >= LEAST_S
    ]
    order = np.random.default_rng(SEED).permutation(len(spans))
    return [spans[i] for i in order]


def _clips(
    spans: Sequence[Span], data: Path, good: int, faulty: int, done: set[str]
) -> Iterator[tuple[str, str, str, Array]]:
    """Yield what is to be measured: key, fault, speaker and samples."""
    for number in range(good):
        span = spans[number % len(spans)]
        if (key := f"{GOOD} {number}") not in done:
            yield key, GOOD, span.speaker, _read(span, data)
    place = good
    for fault, made in FAULTS.items():
        for number in range(faulty):
            key, span = f"{fault} {number}", spans[place % len(spans)]
            place += 1
            if key in done:
                continue
            others = [one for one in spans if one.speaker != span.speaker]
            draw = np.random.default_rng((SEED, place))
            other = others[int(draw.integers(len(others)))]
            samples = made.change(_read(span, data), _read(other, data), draw)
            yield key, fault, span.speaker, samples


def _read(span: Span, data: Path) -> Array:
    part = Seconds(span.start_s, min(span.end_s, span.start_s + MOST_S))
    samples: Array = read_audio(data / span.path, span=part).samples.numpy()
    return samples


def _measured(pretrained: PretrainedModel, samples: Array) -> dict[str, Any]:
    """Write a clip as 16-bit WAV, read it as a screening does, and measure it."""
    kind = Recordings(WaveformAdapter.at(RATE_HZ))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        soundfile.write(path, samples, RATE_HZ, "PCM_16")
        try:
            item = kind.reader.read(Recording("clip.wav", path))
        except AudioError as err:
            return {"error": err.code}
    speech = kind.measure_speech(pretrained, item)
    return {"facts": asdict(kind.facts(item)), "speech": asdict(speech)}


def _judged(row: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    """Return the limits that a clip does not keep, or the code of its error."""
    if "error" in row:
        return {"unmet": [row["error"]]}
    facts = build_dataclass(FileFacts, row["facts"])
    speech = build_dataclass(SpeechEvidence, row["speech"])
    limits, threshold = GateLimits.of(None).recording, calibration.verification_threshold
    return {"unmet": [f.limit for f in failures_of(speech, facts, limits, threshold)]}


def _values(rows: Sequence[dict[str, Any]], fault: str, name: str) -> list[Any]:
    """Return what was measured of the clips with a fault; None where it could not be."""
    return [row["speech"][name] for row in rows if row["fault"] == fault and "speech" in row]


def summarise(rows: Sequence[dict[str, Any]], calibration: Calibration) -> dict[str, Any]:
    """Return recall of each fault and false alarms of each limit, with intervals."""
    good = [row for row in rows if row["fault"] == GOOD]
    owners = [row["speaker"] for row in good]
    limits = sorted({fault.limit for fault in FAULTS.values()})
    faults = []
    for name, fault in FAULTS.items():
        put = [row for row in rows if row["fault"] == name]
        whose = [row["speaker"] for row in put]
        found = [fault.limit in row["unmet"] for row in put]
        faults.append(
            {
                "fault": name,
                "limit": fault.limit,
                "clips": len(put),
                "found": share_of(found, whose, seed=SEED),
                "any": share_of([bool(row["unmet"]) for row in put], whose, seed=SEED),
            }
        )
    clean, two = (_values(rows, name, "part_cosine") for name in (GOOD, next(iter(FAULTS))))
    snr = _values(rows, "white noise at 5 dB", "snr_db")
    return {
        "model": MODEL,
        "finder": speech_finder(),
        "seconds": {"least": LEAST_S, "most": MOST_S},
        "seed": SEED,
        "good": len(good),
        "speakers": len(set(owners)),
        "verification_threshold": calibration.verification_threshold,
        "limits": GateLimits.of(None).to_json(),
        "faults": faults,
        "mistaken": [
            {
                "limit": limit,
                "clips": len(good),
                "share": share_of([limit in row["unmet"] for row in good], owners, seed=SEED),
            }
            for limit in limits
        ],
        "mistaken_any": share_of([bool(row["unmet"]) for row in good], owners, seed=SEED),
        "voices": {
            "auroc": auroc(-_known(two), -_known(clean)),
            "clean_not_evaluated": clean.count(None),
            "two_not_evaluated": two.count(None),
        },
        "snr": {
            "median_db": float(np.median(_known(snr))),
            "clean_not_evaluated": _values(rows, GOOD, "snr_db").count(None),
            "noisy_not_evaluated": snr.count(None),
        },
    }


def _known(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([value for value in values if value is not None])


def main() -> None:
    """Run the study as the command line says."""
    parser = command(__doc__, "data", "split", needed=("work", "results"))
    parser.add_argument("--good", type=int, default=100)
    parser.add_argument("--faulty", type=int, default=20)
    options = parser.parse_args()
    rows, calibration = measure(
        options.data, options.split, options.work, good=options.good, faulty=options.faulty
    )
    write_results(options.results, summarise(rows, calibration))


if __name__ == "__main__":
    run(main)
