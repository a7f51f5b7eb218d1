"""Measure what the enrolment gate finds and mistakes, for docs/results/gate.md.

    python -m studies.gate.measure LibriSpeech split.csv --work WORK --results RESULTS.json

Clean clips are of the test role of test-clean, whose speakers are strangers to the model; each
fault is put into other clips of it. --good and --faulty say how many (500 and 50). The role has
fewer recordings than that, so that further clips are crops of them. What is measured of each clip
is kept in WORK, and a second call continues. The folders of the speakers are clips of the train
role.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch

from nip_audio import PretrainedModel, load_pretrained
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.models.enrolment import embed_clips
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.journal import to_line
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.recordings import Recordings
from studies._lib.command import command, run, tell, write_results
from studies.gate.clips import MEMBER, SEED, Clip, chapter_of, plan
from studies.gate.faults import RATE_HZ, Array
from studies.gate.summary import summarise

MODEL = "xvector-libri251"


def measure(
    data: Path, split: Path, work: Path, *, good: int, faulty: int
) -> tuple[list[dict[str, Any]], Calibration]:
    """Measure all clips; return what was measured, and the calibration that judges it."""
    pretrained = load_pretrained(MODEL)
    calibration = Calibration.of(pretrained)
    kind = Recordings(WaveformAdapter.at(RATE_HZ))
    measurer = FileMeasurer(pretrained, calibration.detector.probe, kind, SEED, speech=True)
    lines = work.read_text(encoding="utf-8").splitlines() if work.exists() else []
    done = {row["key"]: row for row in map(json.loads, lines)}
    clips = list(plan(split, data, good=good, faulty=faulty))
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.open("a", encoding="utf-8") as file:
        for clip in clips:
            if clip.key in done:
                continue
            done[clip.key] = _row(clip, measurer, pretrained, calibration.verification_threshold)
            file.write(json.dumps(done[clip.key]) + "\n")
            file.flush()
            tell(f"{len(done)} of {len(clips)}: {clip.key}")
    return [done[clip.key] for clip in clips], calibration


def _row(
    clip: Clip, measurer: FileMeasurer, pretrained: PretrainedModel, threshold: float | None
) -> dict[str, Any]:
    samples = clip.make(pretrained, threshold)
    row: dict[str, Any] = {
        "key": clip.key,
        "kind": clip.kind,
        "speaker": clip.span.speaker,
        "recording": clip.span.path,
        "chapter": chapter_of(clip.span.path),
        "other": None if clip.other is None else clip.other.speaker,
        "seconds": clip.seconds,
        "made": samples is not None,
    }
    if samples is None:
        return row
    if clip.kind == MEMBER:
        return row | {"embedding": _embedding(pretrained, samples)}
    return row | {"line": _measured(measurer, samples, clip.span.speaker)}


def _embedding(pretrained: PretrainedModel, samples: Array) -> list[float]:
    with torch.no_grad():
        found = embed_clips(pretrained, [torch.from_numpy(np.ascontiguousarray(samples))])[0]
    numbers: list[float] = found.double().tolist()
    return numbers


def _measured(measurer: FileMeasurer, samples: Array, speaker: str) -> str:
    """Write a clip as 16-bit WAV, and read and measure it as a screening does."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        soundfile.write(path, samples, RATE_HZ, "PCM_16")
        return to_line(measurer(Recording("clip.wav", path, speaker))).decode()


def main() -> None:
    """Run the study as the command line says."""
    parser = command(__doc__, "data", "split", needed=("work", "results"))
    parser.add_argument("--good", type=int, default=500)
    parser.add_argument("--faulty", type=int, default=50)
    options = parser.parse_args()
    rows, calibration = measure(
        options.data, options.split, options.work, good=options.good, faulty=options.faulty
    )
    sexes = read_sexes(options.data / "SPEAKERS.TXT")
    found = summarise(rows, calibration, sexes)
    write_results(options.results, {"model": MODEL, **found})


def read_sexes(path: Path) -> dict[str, str]:
    """Return the sex of each speaker of LibriSpeech's table."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [line.split("|") for line in lines if not line.startswith(";")]
    return {one[0].strip(): one[1].strip() for one in cells}


if __name__ == "__main__":
    run(main)
