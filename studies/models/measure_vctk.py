r"""Fine-tune the shipped ResNet-34 on the little of VCTK that is at hand, and measure it.

    python -m studies.models.measure_vctk sentences --data_folder DATA --work_folder results/vctk \
        --utterances 'VCTK-16k/*/*.flac' --results studies/results/vctk.json

Two closed sets, each trained several times by the recipe's own ``train.py``, so that everything is
tested once by a network that was not trained on it. The head is the dense one of the paper's
configuration, on the network of the shipped size. ``sentences`` takes the speakers with ten
sentences or more and leaves two sentences of each out of a training. ``one_sentence`` takes all
speakers and one sentence that all of them read (``--sentence``), and leaves a quarter of its time
out. A speaker's sentence that is there twice is taken from the glob that is named first.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import soundfile
import torch

from nip_audio import ReadSettings, load_pretrained
from nip_audio.audio.corpus import Span, recording_of
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import WHITE_NOISES, Crop, correct_crops, read_crops
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.training.publishing import publish
from studies._lib.command import add_result, command, run, tell
from studies._lib.pages import ROOT
from studies._lib.shares import share_of

SEED = 1234
START = "resnet34-libri30"
EPOCHS, BATCHES = 4, 15
SPEEDS = (100, 90, 110)  # as in the compact recipe: a class for each speaker at each
LEAST_SENTENCES = 10
LEFT_OUT = 2  # sentences of a speaker
QUARTERS = 4
SETTINGS = ReadSettings(min_duration_s=0.2)
_SENTENCE = re.compile(r"^[ps]\d+_(\d+)")

Utterances = Mapping[str, Mapping[str, Path]]
"""Files by speaker and number of the sentence."""


@dataclass
class Tested:
    """Clips of one group, and which of them were classified correctly under each condition."""

    speakers: list[str] = field(default_factory=list)
    right: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, model: PretrainedModel, crops: Sequence[Crop]) -> None:
        """Test a model on clips that it was not trained on."""
        self.speakers += [crop.speaker for crop in crops]
        for name, level in WHITE_NOISES.items():
            generator = torch.Generator().manual_seed(SEED)
            found = correct_crops(model, crops, level, generator=generator)
            self.right[name] += (found == 1).tolist()

    def result(self) -> dict[str, Any]:
        """Counts, and accuracy with its interval under each condition."""
        return {
            "clips": len(self.speakers),
            "speakers": len(set(self.speakers)),
            "right": {name: sum(right) for name, right in self.right.items()},
            **{
                name: share_of(right, self.speakers, seed=SEED).to_json()
                for name, right in self.right.items()
            },
        }


def find(root: Path, patterns: Sequence[str]) -> Utterances:
    """Find utterances below a folder; of a sentence that is there twice the first is taken."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if number := _SENTENCE.match(path.name):
                found[path.parent.name].setdefault(number[1], path)
    if not found:
        raise InputError(
            f"no file in {root} matches {', '.join(patterns)} with a name such as p225_003.flac; "
            "check --data_folder and --utterances"
        )
    return found


def by_sentence(root: Path, utterances: Utterances) -> list[list[Span]]:
    """Deal the sentences: each is tested in one of the splits and, in others, trained on."""
    splits = []
    for first in range(0, LEAST_SENTENCES, LEFT_OUT):
        spans = []
        for speaker, files in utterances.items():
            for n, number in enumerate(sorted(files)[:LEAST_SENTENCES]):
                role = {0: "test", 1: "test", 2: "calibrate"}.get((n - first) % LEAST_SENTENCES)
                path = files[number].relative_to(root).as_posix()
                spans.append(Span(path, speaker, role or "train", 0.0, float("inf")))
        splits.append(spans)
    return splits


def by_time(root: Path, files: Mapping[str, Path]) -> list[list[Span]]:
    """Deal the quarters of one sentence of each speaker: each is tested in one of the splits."""
    splits = []
    for tested in range(QUARTERS):
        spans = []
        for speaker, file in files.items():
            length = soundfile.info(file).duration / QUARTERS
            for n in range(QUARTERS):
                role = {0: "test", 1: "calibrate"}.get((n - tested) % QUARTERS, "train")
                path = file.relative_to(root).as_posix()
                spans.append(Span(path, speaker, role, n * length, (n + 1) * length))
        splits.append(spans)
    return splits


def fine_tune(
    root: Path, spans: Sequence[Span], work: Path, precision: str
) -> tuple[PretrainedModel, float]:
    """Train with the recipe, publish and load; return the model and the seconds of training."""
    work.mkdir(parents=True)
    with (work / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(spans[0])))
        writer.writeheader()
        writer.writerows(map(asdict, spans))
    speakers = len({span.speaker for span in spans})
    given = {
        "data_folder": root.absolute(),
        "split_file": (work / "split.csv").absolute(),
        "output_folder": (work / "run").absolute(),
        "init_from": START,
        "width": 16,
        "embedding_dim": 128,
        "speeds": list(SPEEDS),
        "n_speakers": speakers,
        "n_classes": speakers * len(SPEEDS),
        "number_of_epochs": EPOCHS,
        "batches_per_epoch": BATCHES,
        "lr": 0.001,
        "precision": precision,
    }
    options = [f"--{name}={value}" for name, value in given.items()]
    recipe = ROOT / "recipes/VCTK/ResNet34"
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "train.py", "hparams/resnet34_paper.yaml", *options],
        cwd=recipe,
        check=True,
    )
    seconds = time.monotonic() - begun
    words = {"command": "measure_vctk.py", "data": "a split of VCTK", "limits": "a study"}
    publish(work / "run", work / "model", **words)
    return load_pretrained(work / "model"), seconds


def crops_of(root: Path, spans: Sequence[Span], role: str) -> list[Crop]:
    """Read the spans of a role."""
    return read_crops([recording_of(root, s) for s in spans if s.role == role], SETTINGS)


def measure(
    root: Path,
    splits: Sequence[Sequence[Span]],
    others: Sequence[Span],
    *,
    work: Path,
    precision: str,
) -> dict[str, Any]:
    """Train once for each split, and test what was left out, and other sentences in turn."""
    held_out, other, seconds = Tested(), Tested(), []
    for n, spans in enumerate(splits):
        tell(f"training {n + 1} of {len(splits)}")
        model, took = fine_tune(root, spans, work / str(n), precision)
        seconds.append(took)
        held_out.add(model, crops_of(root, spans, "test"))
        if others:
            other.add(model, crops_of(root, others[n :: len(splits)], "test"))
    trained = crops_of(root, splits[0], "train")
    samples = sum(len(crop.samples) for crop in trained)
    return {
        "start": {"model": START, "model_id": load_pretrained(START).model_id},
        "trainings": len(splits),
        "steps": EPOCHS * BATCHES,
        "precision": precision,
        "slowest_training_s": max(seconds),
        "trained_s_a_speaker": samples
        / SETTINGS.sample_rate_hz
        / len({c.speaker for c in trained}),
        "held_out": held_out.result(),
        **({"other_sentences": other.result()} if others else {}),
    }


def main() -> None:
    """Train and test one closed set, and add it to the results."""
    parser = command(__doc__, needed=("data_folder", "work_folder", "results"))
    parser.add_argument("set", choices=("sentences", "one_sentence"))
    parser.add_argument("--utterances", nargs="+", required=True, help="globs, see vctk_prepare.py")
    parser.add_argument("--sentence", default="023", help="that all speakers of one_sentence read")
    parser.add_argument("--precision", default="fp32", help="of the training: fp32 or bf16")
    options = parser.parse_args()
    root, number = options.data_folder, options.sentence
    work = options.work_folder / options.set
    if work.exists():
        raise InputError(f"{work} exists, expected a new folder; remove it or give another")
    utterances = find(root, options.utterances)
    long = {s: files for s, files in utterances.items() if len(files) >= LEAST_SENTENCES}
    if options.set == "sentences":
        splits, others = by_sentence(root, long), []
    else:
        splits = by_time(root, {s: f[number] for s, f in utterances.items() if number in f})
        others = [
            Span(path.relative_to(root).as_posix(), speaker, "test", 0.0, float("inf"))
            for speaker, files in long.items()
            for n, path in sorted(files.items())
            if n != number
        ]
    found = measure(root, splits, others, work=work, precision=options.precision)
    add_result(options.results, (options.set,), found)


if __name__ == "__main__":
    run(main)
