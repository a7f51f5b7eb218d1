"""Attacked test clips of one model, kept on disk; only those that succeed count.

A model with a classifier of logits is attacked as a classifier of its own speakers, any other as a
verifier of the 30 speakers of test-clean, whom it has not heard. Attacks come from the registry,
and a written example is rounded to 16 bits, as a file is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio import PretrainedModel
from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Goal, Identification, Objective, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import ReadSettings, read_audio, to_16_bits
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import equal_error_rate
from nip_audio.core.seeds import generator_of
from studies._lib.command import tell

__all__ = ["ATTACKS", "UNSEEN", "Examples", "Threat", "read_span"]

RATE = 16_000
CROP_S = 3.0
ENROLLED = 3
BATCH = 20
SEED = 0


@dataclass(frozen=True)
class Threat:
    """An attack as it is run.

    Attributes:
        title: Name in tables.
        method: Name in the registry.
        eps: Largest change of a sample; None for attacks without a bound.
        settings: Settings of the attack.
        clips: Largest number of clips, for attacks that take long.
        aims: Whether it can aim at one of many classes.
    """

    title: str
    method: str
    eps: float | None
    settings: Mapping[str, Any]
    clips: int = 200
    aims: bool = True


ATTACKS: tuple[Threat, ...] = (
    Threat("FGSM, ε .002", "fgsm", 0.002, {}),
    Threat("PGD, ε .0005", "pgd", 0.0005, {"steps": 10}),
    Threat("PGD, ε .001", "pgd", 0.001, {"steps": 10}),
    Threat("PGD, ε .002", "pgd", 0.002, {"steps": 10}),
    Threat("PGD, ε .005", "pgd", 0.005, {"steps": 10}),
    Threat("PGD of 50 steps, ε .002", "pgd", 0.002, {"steps": 50, "step_share": 0.1}, 60),
    Threat("C&W", "cw", None, {"steps": 100, "binary_search_steps": 3}, 60),
)


UNSEEN: tuple[Threat, ...] = (
    Threat("PGD in L2, 1.5", "pgd-l2", 1.5, {"steps": 20}, 60),
    Threat("DeepFool", "deepfool", None, {}, 60, aims=False),
    Threat("UAP, ε .005", "uap", 0.005, {}, 60),
    Threat("Kenansville", "kenansville", None, {}, 40),
    Threat("HopSkipJump", "hopskipjump", None, {"steps": 20, "queries": 1500}, 20),
    Threat("FAKEBOB, ε .005", "fakebob", 0.005, {"steps": 100, "samples": 20}, 20),
)
"""Families that no detector learns from."""


def read_span(root: Path, span: Span) -> Tensor:
    """Read one utterance, or a part of one, (N,)."""
    samples = read_audio(root / span.path, ReadSettings(RATE, min_duration_s=0.1)).samples
    return samples[round(span.start_s * RATE) : round(span.end_s * RATE)]


@dataclass(frozen=True)
class Examples:
    """Test clips of one model and attacks on them.

    Attributes:
        pretrained: Model under attack.
        root: Folder of LibriSpeech.
        work: Folder in which attacked clips are kept.
        most: Largest number of clips.
    """

    pretrained: PretrainedModel
    root: Path
    work: Path
    most: int = 200

    @property
    def closed(self) -> bool:
        """Whether the model is attacked as a classifier of its own speakers."""
        model = self.pretrained.model
        return model.head is not None and model.output_kind == "logits"

    @property
    def goals(self) -> tuple[str, str]:
        """Goals of the attacker: away from the own speaker, or towards another one."""
        return ("misidentify", "targeted") if self.closed else ("reject", "accept")

    @cached_property
    def spans(self) -> dict[str, dict[str, list[Span]]]:
        """Spans by role and speaker: of the model's speakers, or of the strangers of test-clean."""
        own = set(self.pretrained.model.labels) if self.closed else None
        found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
        for span in read_split(self.root / "split.csv"):
            if span.speaker in own if own is not None else span.path.startswith("test-clean"):
                found[span.role][span.speaker].append(span)
        return found

    @cached_property
    def clips(self) -> tuple[Tensor, tuple[str, ...]]:
        """Clips of the test role, (n, 3 s), and their speakers, taken in turn from each speaker."""
        spans = self.spans["test"]
        rounds = max(map(len, spans.values()))
        chosen = [
            spans[name][i] for i in range(rounds) for name in sorted(spans) if i < len(spans[name])
        ]
        size = round(CROP_S * RATE)
        samples: list[Tensor] = []
        speakers: list[str] = []
        for span in chosen:
            clip = read_span(self.root, span)
            if len(clip) < size // 2 or len(samples) == self.most:
                continue
            samples.append(clip.repeat(-(-size // len(clip)))[:size])
            speakers.append(span.speaker)
        return torch.stack(samples), tuple(speakers)

    @cached_property
    def voices(self) -> Tensor:
        """Enrolled voices of the speakers in sorted order, (S, D) of unit length."""
        spans = self.spans["train"]
        rows = [self.embed([read_span(self.root, s) for s in spans[n][:ENROLLED]]).mean(dim=0)
                for n in sorted(self.spans["test"])]  # fmt: skip
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    @cached_property
    def threshold(self) -> float:
        """Cosine at the equal error rate of the clips of the calibrate role."""
        own, other = [], []
        for index, name in enumerate(sorted(self.spans["test"])):
            spans = self.spans["calibrate"][name]
            for row in self.embed([read_span(self.root, span) for span in spans]):
                scores = (self.voices @ row).tolist()
                own.append(scores.pop(index))
                other += scores
        return float(equal_error_rate(np.array(own), np.array(other)).threshold)

    @torch.no_grad()
    def embed(self, clips: Sequence[Tensor]) -> Tensor:
        """Embed waveforms one by one: (n, D) of unit length."""
        rows = torch.cat([self.pretrained.model.embed(Batch(clip[None])) for clip in clips])
        return torch.nn.functional.normalize(rows, dim=1)

    def objective(self, goal: str, rows: Sequence[int]) -> Objective:
        """Return the attacker's objective for some clips."""
        model, speakers = self.pretrained.model, self.clips[1]
        names = sorted(self.spans["test"])
        step = 0 if goal in ("reject", "misidentify") else 1
        claimed = [names[(names.index(speakers[i]) + step) % len(names)] for i in rows]
        if self.closed:
            labels = torch.tensor([model.labels.index(name) for name in claimed])
            return Identification(model, labels, targeted=goal == "targeted")
        voices = self.voices[[names.index(name) for name in claimed]]
        wanted: Goal = "reject" if goal == "reject" else "accept"
        return Verification(model, voices, threshold=self.threshold, goal=wanted)

    def speech_of(self, row: int, *, step: int) -> Tensor:
        """Return another clip of a clip's speaker, or of the speaker ``step`` places on."""
        names = sorted(self.spans["test"])
        speaker = names[(names.index(self.clips[1][row]) + step) % len(names)]
        others = (i for i, name in enumerate(self.clips[1]) if name == speaker and i != row)
        return self.clips[0][next(others, row)]

    def succeeds(self, goal: str, rows: Sequence[int], samples: Tensor) -> NDArray[np.bool_]:
        """Tell which of some clips, as they now are, reach the attacker's goal."""
        done = [
            self.objective(goal, part).succeeded(Batch(samples[start : start + BATCH]))
            for start in range(0, len(rows), BATCH)
            if (part := rows[start : start + BATCH])
        ]
        return np.asarray(torch.cat(done).numpy(), bool)

    def attackable(self, goal: str) -> list[int]:
        """Return the clips on which the goal is not reached already."""
        rows = list(range(len(self.clips[0])))
        return [i for i in rows if not self.succeeds(goal, [i], self.clips[0][i : i + 1])[0]]

    def attacked(self, threat: Threat, goal: str) -> tuple[list[int], Tensor, NDArray[np.bool_]]:
        """Attack the clips, once; return their places, the attacked clips and which succeed."""
        path = self.work / f"{threat.title}, {goal}.pt"
        if not path.exists():
            rows = self.attackable(goal)[: threat.clips]
            attack = make_attack(threat.method, eps=threat.eps, settings=dict(threat.settings))
            found = to_16_bits(self.run(attack, threat.title, goal, rows))
            self.work.mkdir(parents=True, exist_ok=True)
            torch.save({"rows": rows, "samples": found}, path)
            tell(f"{self.pretrained.card.name}: {threat.title}, {goal}: {len(rows)} clips")
        kept = torch.load(path, weights_only=True)  # noqa: TID251 - this study wrote it
        rows, found = kept["rows"], kept["samples"]
        return rows, found, self.succeeds(goal, rows, found)

    def run(self, attack: Attack, title: str, goal: str, rows: Sequence[int]) -> Tensor:
        """Attack some clips in batches."""
        done = []
        for start in range(0, len(rows), BATCH):
            part = list(rows[start : start + BATCH])
            generator = generator_of(SEED, title, goal, start)
            batch = Batch(self.clips[0][part])
            done.append(attack(self.objective(goal, part), batch, generator=generator).batch.x)
        return torch.cat(done)
