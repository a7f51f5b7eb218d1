"""Test one system: run its defences and detectors on clean and attacked clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.modality import DETECTION_NOISES
from nip_audio.audio.quality import TooLittleSpeechError, stoi, stoi_available
from nip_audio.core.metrics import top_k_consistency
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.seeds import seed_of
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.evaluation.bench_detectors import BenchDetectors
from nip_audio.evaluation.cells import Cell
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.defences import NO_DEFENCE, applies, ask, make_defences
from nip_audio.evaluation.detector_judges import RATES, RowJudge
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.judged import Judged, JudgedSets
from nip_audio.evaluation.paired_auroc import Scored, mean_auroc
from nip_audio.evaluation.sound import PurifiedSound
from nip_audio.evaluation.statistics import MIN_SUCCESSES, proportion
from nip_audio.evaluation.systems import EvaluatedSystem, batch_of, in_batches
from nip_audio.purifiers.base import Defence

__all__ = ["Bench"]

Array = NDArray[np.float64]
Hits = NDArray[np.bool_]
Value = TypeVar("Value")

DRAWS = 5
"""Draws of a random defence; a clip stands without an attack if it passes most of them."""

LISTENED = 20
"""Number of examples whose intelligibility is measured; it costs more than all norms together."""


@dataclass(frozen=True)
class Bench:
    """A system with the defences and detectors that protect it.

    Attributes:
        config: Configuration of the run.
        system: System under evaluation.
        defences: Defences by name; no defence and plain noise are always among them.
        detectors: Detectors fitted on the ``calibrate`` role; None if the run has none.
        clean: Measured rows of unattacked test clips, by name of the measure.
        folder: Folder where measurements are kept.
    """

    config: EvaluationConfig
    system: EvaluatedSystem
    defences: Mapping[str, Defence | None]
    detectors: BenchDetectors | None
    clean: Mapping[str, Array]
    folder: Path

    @staticmethod
    def build(system: EvaluatedSystem, config: EvaluationConfig, folder: Path) -> Bench:
        """Make the defences, and fit the detectors on the ``calibrate`` role.

        Raises:
            InputError: If a defence was fitted on a test clip.
            CalibrationError: If there are too few clips for the detectors' thresholds.
        """
        tested = [item.content_sha256 for item in system.items]
        defences = make_defences(
            config.defences, system.pretrained, system.model, tested, system=system.name
        )
        if config.detect == 0:
            return Bench(config, system, defences, None, {}, folder)
        noises = NccrConfig(system.pretrained.card.default_taps, DETECTION_NOISES, draws=1)
        detectors = BenchDetectors.fit(system, noises, folder, seed=config.seed)
        clean = detectors.rows([i.samples for i in system.items[: 4 * config.detect]])
        return Bench(config, system, defences, detectors, clean, folder)

    @property
    def guard(self) -> AttackedDetector | None:
        """Detector that an adaptive attacker attacks; None if the run has no detectors."""
        return None if self.detectors is None else self.detectors.guard

    def judge(self, cell: Cell, examples: AdversarialSet) -> dict[str, Any]:
        """Measure the success of an attack, and what each defence and detector does about it."""
        speakers = [e.speaker for e in examples.examples]
        labels = np.array([self.system.model.labels.index(s) for s in speakers])
        known = None if cell.plan.detector else self.defences[cell.defence]
        fooled = self._judged(known, examples).named != labels
        stood = self._stood(cell, examples)
        detection = self._detection(examples, fooled, speakers)
        return {
            "set": examples.folder.name,
            "attacked": len(labels),
            "successes": int(fooled.sum()),
            "asr": self.share(fooled, speakers),
            "asr_unwritten": float(np.mean([e.fooled_unwritten for e in examples.examples])),
            "fooled": _bits(fooled),
            "stood": _bits(stood),
            "turned": self.share(fooled[stood], _chosen(speakers, stood)) if stood.any() else None,
            "unchanged": int(sum(e.linf == 0 for e in _chosen(examples.examples, fooled & stood))),
            "norms": {
                name: _spread([getattr(e, name) for e in examples.examples], fooled & stood)
                for name in ("linf", "l2", "l0", "snr_db")
            },
            "stoi": self._intelligibility(examples, fooled),
            "queries": float(np.mean([e.queries for e in examples.examples])),
            "gradients": float(np.mean([e.gradients for e in examples.examples])),
            "seconds": float(np.mean([e.seconds for e in examples.examples])),
            "defences": self._defended(cell, examples, labels, fooled, speakers),
            "detectors": detection,
        }

    def _stood(self, cell: Cell, examples: AdversarialSet) -> Hits:
        """Return which clips the attacked system names rightly without the attack, mostly.

        A defence alone spoils some clips, and a random one now and then any clip: an attacker who
        leaves these as they are has no success.
        """
        if cell.plan.detector or cell.defence == NO_DEFENCE:
            return np.ones(len(examples.examples), bool)
        numbers = {item.id: number for number, item in enumerate(self.system.items)}
        standing = self._standing(self.defences[cell.defence])
        return standing[[numbers[e.id] for e in examples.examples]]

    def _standing(self, defence: Defence | None) -> Hits:
        """Tell which test clips, unattacked, are named rightly behind a defence in most draws."""
        items = self.system.items
        labels = self.system.labels_of(items).numpy()
        draws = DRAWS if getattr(defence, "random", False) else 1

        def asked() -> Hits:
            right = [
                ask(
                    self.system.model,
                    defence,
                    (batch_of(part) for part in in_batches(items)),
                    level="raw",
                    seed=seed_of(self.config.seed, "standing", draw),
                ).named
                == labels
                for draw in range(draws)
            ]
            return np.asarray(np.mean(right, axis=0) > 0.5)

        return self._kept.standing(defence, [item.content_sha256 for item in items], asked)

    @property
    def _kept(self) -> JudgedSets:
        return JudgedSets(self.folder / "judged", self.system.identity, self.config.seed)

    def _defended(
        self,
        cell: Cell,
        examples: AdversarialSet,
        labels: NDArray[np.int64],
        fooled: Hits,
        speakers: Sequence[str],
    ) -> list[dict[str, Any]]:
        # how a defence does against attackers who do not know it says nothing about those who do
        if cell.plan.protocol == "adaptive":
            return []
        rows = []
        for name, purifier in self.defences.items():
            if name == NO_DEFENCE or not applies(purifier, examples.level):
                continue
            judged = self._judged(purifier, examples)
            right = judged.named == labels
            saved = right[fooled], [s for s, hit in zip(speakers, fooled, strict=True) if hit]
            rows.append(
                {
                    "defence": name,
                    "accuracy_attacked": self.share(right, speakers),
                    "dsr": self.share(*saved) if fooled.sum() >= MIN_SUCCESSES else None,
                    "tknc": judged.tknc,
                    "right": _bits(right),
                }
                | self._written(name, examples, fooled, saved[1])
            )
        return rows

    @cached_property
    def sound(self) -> PurifiedSound:
        """Sound that the purifiers write."""
        clips, seed = self.config.sound, self.config.seed
        return PurifiedSound.of(self.system, self.defences, clips=clips, seed=seed)

    def _written(
        self, name: str, examples: AdversarialSet, fooled: Hits, owners: Sequence[str]
    ) -> dict[str, Any]:
        """Measure the written sound of the first successful waveforms, if the run asks for it."""
        if not self.config.sound or examples.level != "raw" or name not in self.sound.purifiers:
            return {}
        rows = np.flatnonzero(fooled)[: self.config.sound]
        clips = [examples.values([row]).x[0] for row in rows]
        return {"written": self.sound.recovered(name, clips, owners)}

    def _judged(self, defence: Defence | None, examples: AdversarialSet) -> Judged:
        def asked() -> Judged:
            answers = ask(
                self.system.model,
                defence,
                examples.batches(),
                level=examples.level,
                seed=self.config.seed,
            )
            chosen = {e.id for e in examples.examples}
            clean = self.embeddings[[item.id in chosen for item in self.system.items]]
            tknc = top_k_consistency(clean, answers.embeddings).mean()
            return Judged(answers.named, float(tknc))

        return self._kept.of(defence, examples, asked)

    def _intelligibility(self, examples: AdversarialSet, fooled: Hits) -> float | None:
        """Return the median STOI (intelligibility) of the first successful waveforms, or None.

        It is None for spectrograms, if no example succeeds, and if all clips are mostly pauses.
        Single clips that are mostly pauses are left out.
        """
        rows = np.flatnonzero(fooled)[:LISTENED]
        if examples.level != "raw" or not stoi_available():
            return None
        clean = {item.id: item.samples for item in self.system.items}
        rate, values = examples.sample_rate_hz, []
        for row in rows:
            original = clean[examples.examples[row].id]
            with suppress(TooLittleSpeechError):
                values.append(stoi(original, examples.values([row]).x[0], sample_rate_hz=rate))
        return float(np.median(values)) if values else None

    @cached_property
    def embeddings(self) -> NDArray[np.float64]:
        """Embeddings of all test clips, unattacked and undefended, (items, D)."""
        batches = (batch_of(part) for part in in_batches(self.system.items))
        return ask(self.system.model, None, batches, level="raw", seed=0).embeddings

    def _detection(
        self, examples: AdversarialSet, fooled: Hits, speakers: Sequence[str]
    ) -> dict[str, Any] | None:
        """Measure detection of the first successful examples; None if too few, or no detector."""
        chosen = np.flatnonzero(fooled)[: self.config.detect]
        if self.detectors is None or examples.level != "raw" or len(chosen) < MIN_SUCCESSES:
            return None
        attacked = self.detectors.rows([examples.values([i]).x[0] for i in chosen])
        owners = [speakers[i] for i in chosen]
        return {
            judge.name: {
                "examples": len(chosen),
                "auroc": self._auroc(judge, attacked[judge.measure], owners),
                **{
                    f"flagged_at_{rate:g}": self.share(
                        judge.flagged(attacked[judge.measure], rate), owners
                    )
                    for rate in RATES
                },
            }
            for judge in self.detectors.judges
        }

    def _auroc(self, judge: RowJudge, attacked: Array, owners: Sequence[str]) -> dict[str, float]:
        """Return the AUROC against unattacked test clips; both sides are resampled by speaker."""
        clean = self.clean[judge.measure]
        clean_owners = tuple(item.speaker for item in self.system.items[: len(clean)])
        sides = (
            Scored(judge.score(attacked), tuple(owners)),
            Scored(judge.score(clean), clean_owners),
        )
        return mean_auroc([sides], seed=self.config.seed, rounds=300).to_json()

    def share(self, hits: Hits, speakers: Sequence[str]) -> dict[str, float]:
        """Return the share of successes with its 95 % interval."""
        return proportion(hits, speakers, seed=self.config.seed).to_json()


def _spread(values: Sequence[float], fooled: Hits) -> dict[str, float] | None:
    """Return median and quartiles over the successful examples; None if there are none."""
    chosen = np.asarray(values)[fooled]
    if len(chosen) == 0:
        return None
    low, median, high = np.quantile(chosen, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def _chosen(values: Sequence[Value], hits: Hits) -> list[Value]:
    return [value for value, hit in zip(values, hits, strict=True) if hit]


def _bits(hits: Hits) -> str:
    """Write one character, 0 or 1, per item, so that items can be compared one by one later."""
    return "".join("1" if hit else "0" for hit in hits)
