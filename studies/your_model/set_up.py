"""Adopt a model of others, calibrate it and fit a purifier to it, and time each command.

    python -m studies.your_model.set_up SOURCE MODEL --data-folder LibriSpeech --times TIMES.json

The commands are those of docs/howto/your-own-model.md, on the 251 speakers of train-clean-100: the
purifier is fitted to their training spans, noises and calibration to their spans for calibration.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

from nip_audio.audio.corpus import read_split
from nip_audio.errors import InputError
from studies._lib.command import add_result, command, run, tell

SOME_UNUSABLE = 4  # exit code where some spans are too short to be used


def write_manifest(path: Path, split: Path, role: str) -> None:
    """Write the spans of a role as a manifest."""
    spans = [
        span
        for span in read_split(split)
        if span.role == role and span.path.startswith("train-clean-100")
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "id", "start_s", "end_s"])
        for span in spans:
            name = f"{Path(span.path).stem}-{role}"
            place = f"$data_root/{span.path}"
            writer.writerow([place, span.speaker, name, span.start_s, span.end_s])


def main() -> None:
    """Run the three commands."""
    parser = command(__doc__, needed=("data-folder", "times"))
    parser.add_argument("source")
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--crop-s", type=float, default=2.0, help="such as one window of the model")
    options = parser.parse_args()
    data, model = options.data_folder, options.model
    model.mkdir(parents=True, exist_ok=True)
    manifests = {role: model / f"{role}.csv" for role in ("train", "calibrate")}
    for role, path in manifests.items():
        write_manifest(path, data / "split.csv", role)
    fitted = ["--data-root", str(data), "--model", str(model), "--force"]
    clean = ["--data", str(data / "train-clean-100")]
    commands = {
        "adopt": [str(options.source), *clean, "--out", str(model), "--force"],
        "calibrate": [str(manifests["calibrate"]), *fitted, "--out", str(model / "calibration")],
        "fit-purifier": [
            *[str(manifests["train"]), *fitted, "--out", str(model / "purifier")],
            *["--set", f"steps={options.steps}", "--set", f"crop_s={options.crop_s:g}"],
        ],
    }
    for name, arguments in commands.items():
        started, before = time.monotonic(), os.times()
        tell(f"nip-audio {name} {' '.join(arguments)}")
        done = subprocess.run([sys.executable, "-m", "nip_audio", name, *arguments], check=False)
        if done.returncode not in (0, SOME_UNUSABLE):
            raise InputError(f"{name} ended with {done.returncode}; see what it printed")
        after, seconds = os.times(), time.monotonic() - started
        spent = after.children_user + after.children_system
        spent -= before.children_user + before.children_system
        found = {"seconds": seconds, "processor_seconds": spent}
        add_result(options.times, [model.name, name], found)
    add_result(options.times, [model.name, "processors"], os.cpu_count())


if __name__ == "__main__":
    run(main)
