"""Make the calibrations that the shipped audio models come with.

    python -m studies.detection.ship PRETRAINED --data-folder LibriSpeech --work WORK [--model NAME]

A model that names its own speakers is calibrated on their clips of the calibrate role. The x-vector
embeds anybody: it is calibrated on those of the 251 speakers of train-clean-100, and what is known
of the voices of one speaker in several recordings comes from the 30 speakers of test-clean, since
each of the 251 has one recording. Measured lessons are kept in the work folder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nip_audio import load_pretrained
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.corpus import read_split
from nip_audio.audio.io import Seconds
from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibrating import calibrate, calibrate_with_attacks
from nip_audio.training.publishing import complete
from studies._lib.command import command, run, tell

MODELS = ("xvector-libri251", "resnet34-libri30", "deep-speaker-libri30", "audionet-libri251")
MANY, FEW = "train-clean-100", "test-clean"
SEED = 0


def recordings(root: Path, corpus: str) -> list[Recording]:
    """Return the clips of the calibrate role of a corpus."""
    return [
        Recording(
            f"{Path(span.path).stem}-calibrate",
            root / span.path,
            span.speaker,
            span=Seconds(span.start_s, span.end_s),
        )
        for span in read_split(root / "split.csv")
        if span.role == "calibrate" and span.path.startswith(corpus)
    ]


def main() -> None:
    """Calibrate one model, or all."""
    parser = command(__doc__, "pretrained", needed=("data-folder", "work"))
    parser.add_argument("--model", choices=MODELS, help="default: all")
    options = parser.parse_args()
    for name in MODELS if options.model is None else (options.model,):
        pretrained = load_pretrained(options.pretrained / name)
        reader = WaveformAdapter.at(pretrained.card.sample_rate_hz)
        path = pretrained.card.purifier_path
        if path is None:
            raise InputError(f"{name} has no purifier, expected one; fit it first")
        purifier = GuidedNip.load(path, model_id=pretrained.model_id)
        own = MANY if name.endswith("251") else FEW
        done = calibrate_with_attacks(
            pretrained,
            recordings(options.data_folder, own),
            reader,
            purifier,
            seed=SEED,
            sources=f"LibriSpeech, calibrate role of {own}",
            kept=options.work / name,
            lesson_done=tell,
        )
        calibration = done.calibration
        if pretrained.model.output_kind != "logits":
            voices = calibrate(pretrained, recordings(options.data_folder, FEW), reader)
            calibration = replace(
                calibration,
                consistencies=voices.consistencies,
                verification_threshold=voices.verification_threshold,
                seen=tuple(sorted({*calibration.seen, *voices.seen})),
                sources=f"{calibration.sources}; voices: calibrate role of {FEW}",
            )
        out = options.pretrained / name / "calibration.safetensors"
        calibration.save(out, force=True)
        complete(out.parent)
        for what, shares in (("found", done.found), ("mistaken", done.mistaken)):
            for lesson, at in shares.items():
                tell(f"{name}, {what}: {lesson}: {at}")


if __name__ == "__main__":
    run(main)
