"""Make examples/enrolment: recordings of synthetic voices, some of them attacked.

    python examples/make_enrolment.py        (needs espeak-ng)

Each speaker is one espeak-ng voice. The folder is then tampered with as a real one might be;
WHAT_WAS_DONE below lists every change. The attacks are the project's own, on the shipped model.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from nip_audio import WaveformAdapter, enrol, load_pretrained, write_audio
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.audio.manifest import walk_audio
from nip_audio.screening.calibration import Calibration
from nip_audio.workflows.attack import attack_file
from nip_audio.workflows.files import AttackGoal

FOLDER = Path(__file__).resolve().parent / "enrolment"
RATE_HZ = 16000

VOICES = {
    "alba": ("en-gb-scotland+f3", 62, 150),
    "bruno": ("en-us+m3", 30, 140),
    "clara": ("en-us+Annie", 55, 165),
    "dexter": ("en-gb+max", 38, 155),
    "edith": ("en-029+f5", 48, 145),
}
SENTENCES = (
    "Please leave the blue folder on my desk before you go home.",
    "My voice is my password, and I would like to hear the balance of my account.",
    "Nobody in the village remembered who had planted the old apple trees.",
    "Seven quick questions are enough to find out whether the machine is listening.",
)
WHAT_WAS_DONE = (
    ("file", "verdict", "what_was_done"),
    ("alba/alba-3.flac", "adversarial", "attacked by PGD, eps 0.005: no longer accepted as alba"),
    ("clara/clara-2.flac", "adversarial", "attacked by PGD, eps 0.005: accepted as bruno"),
    ("dexter/dexter-4.flac", "duplicate", "not dexter's: a copy of edith-4"),
    ("edith/edith-4.flac", "duplicate", "edith's own, which also lies in dexter's folder"),
)
STRONG = GradientAttack("pgd", eps=0.005, steps=20)


def speak(voice: str, pitch: int, speed: int, text: str) -> torch.Tensor:
    """Return speech as 16 kHz samples, at a low level and with faint room noise."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    samples = soxr.resample(samples, rate, RATE_HZ, quality="VHQ")
    samples *= 0.06 / np.sqrt(np.mean(samples**2))
    noise = np.random.default_rng(len(text) + pitch).standard_normal(samples.size) * 0.0005
    return torch.from_numpy((samples + noise).clip(-1, 1).astype(np.float32))


def main() -> None:
    """Write the folder again from scratch."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, voice in VOICES.items():
        (FOLDER / name).mkdir(parents=True)
        for number, text in enumerate(SENTENCES, start=1):
            write_audio(FOLDER / name / f"{name}-{number}.flac", speak(*voice, text), RATE_HZ)
    (FOLDER / "dexter/dexter-4.flac").unlink()
    write_audio(FOLDER / "dexter/dexter-4.flac", speak(*VOICES["edith"], SENTENCES[-1]), RATE_HZ)

    pretrained = load_pretrained("xvector-libri251")
    path = pretrained.card.calibration_path
    if path is None:
        raise SystemExit("the model has no calibration; install the package with its models")
    calibration = Calibration.load(path, model_id=pretrained.model_id)
    voices = enrol(pretrained, walk_audio(FOLDER), WaveformAdapter())
    for relative, speaker, goal in (
        ("alba/alba-3.flac", "alba", "reject"),
        ("clara/clara-2.flac", "bruno", "accept"),
    ):
        aim = AttackGoal(calibration.verification_threshold or 0.0, goal, voices, speaker)
        with tempfile.TemporaryDirectory() as scratch:
            attacked = Path(scratch) / "attacked.flac"
            result = attack_file(
                pretrained, FOLDER / relative, attacked, STRONG, aim, WaveformAdapter()
            )
            shutil.copyfile(attacked, FOLDER / relative)
        print(
            f"{relative}: {result.aim}; {result.score_before:.3f} → {result.score_after:.3f}, "
            f"fools the model: {result.fools}, SNR {result.snr_db:.0f} dB"
        )
    key = "".join("\t".join(row) + "\n" for row in WHAT_WAS_DONE)
    (FOLDER.parent / "what_was_done.tsv").write_text(key, encoding="utf-8")


if __name__ == "__main__":
    main()
