"""Train a network with SpeechBrain on folders with wrong labels, screened before and not.

    python -m studies.gate.training LibriSpeech split2.csv --work FOLDER --results RESULTS.json

A share of the train role's recordings is given to another speaker, each to one drawn at random.
Screened, the training leaves out what `screen` calls inconsistent. Features and embeddings are kept
in FOLDER, and so is the accuracy of each training: a second call continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.epoch_loop import EpochCounter
from torch import Tensor

from nip_audio import load_pretrained
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import Seconds, read_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import bootstrap
from nip_audio.models.enrolment import embed_clips
from nip_audio.models.xvector import Xvector
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.measured import Measurement
from nip_audio.screening.recordings import Recordings
from nip_audio.screening.records import ScreenRecord
from nip_audio.speechbrain import ScreenedTraining
from nip_audio.speechbrain.data_stage import without
from studies._lib.command import command, run, tell, write_results
from studies._lib.shares import share_of

MODEL = "xvector-libri251"
SHARES, SEEDS = (0.0, 0.1, 0.3), (0, 1, 2)
_MOST_S, _LEAST_S = 6.0, 2.5
_FRAMES, _BATCH, _STEPS, _LR = 150, 32, 250, 3e-3
_CHANNELS, _SIZE = (48, 48, 48, 48, 128), 48

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """Recordings of one role.

    Attributes:
        names: Paths.
        speakers: Speaker of each.
        features: (F, T) features of each.
        embeddings: (n, D) embeddings of unit length, by which they are screened.
    """

    names: Sequence[str]
    speakers: Sequence[str]
    features: Sequence[Tensor]
    embeddings: Array


class SpeakerBrain(ScreenedTraining, sb.Brain):  # type: ignore[misc] # has no types
    """Speaker classification on crops of cached features."""

    def compute_forward(self, batch: Any, stage: Any) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.modules.classifier(self.modules.network(batch.features.data))
        return logits

    def compute_objectives(self, logits: Tensor, batch: Any, stage: Any) -> Tensor:
        """Return the loss."""
        return torch.nn.functional.cross_entropy(logits, batch.label.data)

    def make_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Make a schedule for the batches of the set that is left after screening."""
        loader = super().make_dataloader(*args, **kwargs)
        counter = self.hparams.epoch_counter
        counter.limit = -(-_STEPS // len(loader))
        self.steps = counter.limit * len(loader)
        return loader

    def on_fit_start(self) -> None:
        """Build the learning-rate schedule."""
        super().on_fit_start()
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, _LR, total_steps=self.steps
        )

    def on_fit_batch_end(self, *args: Any) -> None:
        """Advance the learning-rate schedule."""
        self.schedule.step()


def read_corpus(data: Path, spans: Sequence[Span], kept: Path) -> Corpus:
    """Return features and embeddings of recordings, from the file that an earlier call wrote."""
    if not kept.exists():
        pretrained = load_pretrained(MODEL)
        rows, features = [], []
        with torch.no_grad():
            for span in spans:
                part = Seconds(span.start_s, min(span.end_s, span.start_s + _MOST_S))
                samples = read_audio(data / span.path, span=part).samples
                rows.append(embed_clips(pretrained, [samples])[0].double())
                features.append(pretrained.model.to_input(Batch(samples[None])).x[0])
        kept.parent.mkdir(parents=True, exist_ok=True)
        numbered = {str(k): one.contiguous() for k, one in enumerate(features)}
        save_file({"embeddings": torch.stack(rows), **numbered}, kept)
    found = load_file(kept)
    return Corpus(
        [span.path for span in spans],
        [span.speaker for span in spans],
        [found[str(k)] for k in range(len(spans))],
        found["embeddings"].numpy(),
    )


def mislabel(speakers: Sequence[str], share: float, seed: int) -> list[str]:
    """Give a share of the recordings to another speaker each."""
    draw = np.random.default_rng(seed)
    given = list(speakers)
    for place in draw.permutation(len(given))[: round(share * len(given))]:
        others = sorted(set(speakers) - {speakers[place]})
        given[place] = others[int(draw.integers(len(others)))]
    return given


def inconsistent(corpus: Corpus, given: Sequence[str], calibration: Calibration) -> set[str]:
    """Return the recordings that a screening calls inconsistent in the folders of these names."""
    empty, found = np.zeros(0), set()
    for speaker in sorted(set(given)):
        places = [k for k, one in enumerate(given) if one == speaker]
        records = [
            ScreenRecord(corpus.names[k], speaker, "clean", details=RecordingDetails())
            for k in places
        ]
        measured = [Measurement(corpus.embeddings[k], empty, empty) for k in places]
        judged = Recordings.compare(records, measured, calibration)
        found |= {one.id for one in judged if one.findings}
    return found


def train(
    corpus: Corpus, given: Sequence[str], screening: Callable[[Any], Any] | None, seed: int
) -> SpeakerBrain:
    """Train on recordings under the names that they were given."""
    torch.manual_seed(seed)
    labels = sorted(set(corpus.speakers))
    draw = torch.Generator().manual_seed(seed)
    places = {name: k for k, name in enumerate(corpus.names)}
    dataset = DynamicItemDataset({name: {} for name in corpus.names})

    def crop(name: str) -> Tensor:
        features = corpus.features[places[name]]
        start = torch.randint(features.shape[-1] - _FRAMES + 1, (1,), generator=draw)
        return features[:, int(start) :][:, :_FRAMES]

    dataset.add_dynamic_item(crop, takes="id", provides="features")
    dataset.add_dynamic_item(
        lambda name: labels.index(given[places[name]]), takes="id", provides="label"
    )
    dataset.set_output_keys(["id", "features", "label"])
    mels = len(corpus.features[0])
    network = Xvector(mels, channels=_CHANNELS, embedding_dim=_SIZE)
    brain = SpeakerBrain(
        modules={"network": network, "classifier": torch.nn.Linear(_SIZE, len(labels))},
        opt_class=lambda parameters: torch.optim.AdamW(parameters, lr=_LR),
        hparams={"screening": screening, "epoch_counter": EpochCounter(1)},
        run_opts={"device": "cpu"},
    )
    loading = {"batch_size": _BATCH, "shuffle": True, "drop_last": True}
    brain.fit(brain.hparams.epoch_counter, dataset, progressbar=False, train_loader_kwargs=loading)
    return brain


@torch.no_grad()
def correct(brain: SpeakerBrain, test: Corpus) -> list[bool]:
    """Tell which recordings the network calls by their speaker."""
    brain.modules.eval()
    labels = sorted(set(test.speakers))
    told = [
        int(brain.modules.classifier(brain.modules.network(one[None])).argmax())
        for one in test.features
    ]
    return [labels[k] == speaker for k, speaker in zip(told, test.speakers, strict=True)]


def measure(data: Path, split: Path, work: Path) -> dict[str, Any]:
    """Train with each share of wrong labels, screened and not, and test on clean labels."""
    spans = [
        span
        for span in read_split(split)
        if span.path.startswith("test-clean/") and span.end_s - span.start_s >= _LEAST_S
    ]
    learn, test = (
        read_corpus(data, [one for one in spans if one.role == role], work / f"{role}.safetensors")
        for role in ("train", "test")
    )
    calibration = Calibration.of(load_pretrained(MODEL))
    rows = []
    for share in SHARES:
        runs = []
        for seed in SEEDS:
            given = mislabel(learn.speakers, share, seed)
            wrong = {
                name
                for name, one, other in zip(learn.names, given, learn.speakers, strict=True)
                if one != other
            }
            left_out = inconsistent(learn, given, calibration)
            hits = {}
            for gated in (False, True):
                kept = work / f"{share:g}-{seed}-{'gated' if gated else 'plain'}.json"
                if not kept.exists():
                    screening = (lambda data, out=left_out: without(data, out)) if gated else None
                    found = correct(train(learn, given, screening, seed), test)
                    kept.write_text(json.dumps(found), encoding="utf-8")
                    tell(f"{kept.stem}: {np.mean(found):.3f}")
                hits[gated] = json.loads(kept.read_text(encoding="utf-8"))
            runs.append((wrong, left_out, hits))
        rows.append(_summary(share, runs, learn, test))
    return {
        "model": MODEL,
        "recordings": len(learn.names),
        "test_recordings": len(test.names),
        "speakers": len(set(learn.speakers)),
        "seeds": len(SEEDS),
        "steps": _STEPS,
        "rows": rows,
    }


def _summary(
    share: float,
    runs: Sequence[tuple[set[str], set[str], Mapping[bool, Sequence[bool]]]],
    learn: Corpus,
    test: Corpus,
) -> dict[str, Any]:
    """Return accuracy with and without screening; seeds are pooled, speakers are resampled."""
    owners = list(test.speakers) * len(runs)
    plain, gated = ([hit for _, _, hits in runs for hit in hits[one]] for one in (False, True))
    names = sorted(set(owners))
    gains = np.array([float(b) - float(a) for a, b in zip(plain, gated, strict=True)])
    whose = np.array([names.index(one) for one in owners])

    def gain(drawn: NDArray[np.intp]) -> float:
        times = np.bincount(drawn, minlength=len(names))[whose]
        return float(np.average(gains, weights=times))

    count = len(learn.names)
    wrong = [len(one) for one, _, _ in runs]
    found = [len(one & out) for one, out, _ in runs]
    lost = [len(out - one) for one, out, _ in runs]
    return {
        "share": share,
        "wrong": sum(wrong) / len(runs),
        "found": sum(found) / sum(wrong) if sum(wrong) else None,
        "lost": sum(lost) / (count * len(runs) - sum(wrong)),
        "plain": share_of(plain, owners, seed=0),
        "gated": share_of(gated, owners, seed=0),
        "gain": bootstrap(gain, len(names), seed=0),
        "by_seed": [
            {"plain": float(np.mean(hits[False])), "gated": float(np.mean(hits[True]))}
            for _, _, hits in runs
        ],
    }


def main() -> None:
    """Run the study as the command line says."""
    parser = command(__doc__, "data", "split", needed=("work", "results"))
    options = parser.parse_args()
    write_results(options.results, measure(options.data, options.split, options.work))


if __name__ == "__main__":
    run(main)
