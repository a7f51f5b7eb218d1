"""Measure the sound that purifiers write: how it differs from the clip, and what it recovers.

A purifier of spectrograms is scored on spectrograms elsewhere in an evaluation. Who purifies files
gets sound instead, made of them with the phase of the original and rounded to 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.io import samples_sha256, to_16_bits
from nip_audio.audio.quality import TooLittleSpeechError, snr_db, stoi, stoi_available
from nip_audio.audio.resynthesis import can_resynthesize
from nip_audio.core.seeds import generator_of
from nip_audio.evaluation.statistics import MIN_SUCCESSES, proportion
from nip_audio.evaluation.systems import EvaluatedSystem, Item, batch_of, in_batches
from nip_audio.evaluation.tables import NOT_EVALUATED, markdown, share
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.noise import MATCHED
from nip_audio.workflows.purified_sound import purify_samples

__all__ = ["PurifiedSound", "sound_table"]

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class PurifiedSound:
    """The sound that the purifiers of one system write.

    Attributes:
        system: System that the purifiers protect.
        purifiers: Purifiers by name.
        clips: Largest number of clips, unattacked and of each attack.
        seed: Seed of the purifiers' draws and of the intervals.
    """

    system: EvaluatedSystem
    purifiers: Mapping[str, Purifier]
    clips: int
    seed: int

    @staticmethod
    def of(
        system: EvaluatedSystem, defences: Mapping[str, Defence | None], *, clips: int, seed: int
    ) -> PurifiedSound:
        """Choose the purifiers that write sound, without the noise that is as strong as each."""
        chosen = {
            name: defence
            for name, defence in defences.items()
            if isinstance(defence, Purifier)
            and not name.startswith(MATCHED)
            and (defence.level == "raw" or can_resynthesize(system.model.front_end))
        }
        return PurifiedSound(system, chosen, clips, seed)

    def written(self, name: str, samples: Tensor) -> Tensor:
        """Return what a purifier makes of a clip, (N,), as its 16-bit file holds it."""
        generator = generator_of(self.seed, samples_sha256(samples))
        made = purify_samples(self.system.model, self.purifiers[name], samples, generator=generator)
        return to_16_bits(made.raw)

    def clean(self) -> dict[str, dict[str, Any]]:
        """Compare purified with unpurified clips that nobody attacked, by purifier.

        Returns:
            The number of clips, median and quartiles of the signal-to-noise ratio and of STOI
            (intelligibility; None without pystoi or speech), and the share of the written clips
            that the undefended model classifies correctly, beside that of the clips themselves.
        """
        items = self.system.items[: self.clips]
        rate = self.system.pretrained.card.sample_rate_hz
        rows = {}
        for name in self.purifiers:
            sounds = [self.written(name, item.samples) for item in items]
            pairs = [(i.samples, s) for i, s in zip(items, sounds, strict=True)]
            rows[name] = {
                "clips": len(items),
                "snr_db": _spread([snr_db(*pair) for pair in pairs]),
                "stoi": _spread(_intelligible(pairs, rate)),
                "accuracy": self._share(self._right(sounds, items), items),
                "accuracy_before": self._share(self.system.is_correct[: len(items)], items),
            }
        return rows

    def recovered(
        self, name: str, clips: Sequence[Tensor], owners: Sequence[str]
    ) -> dict[str, Any]:
        """Return the share of attacked clips that are classified correctly as written sound.

        Args:
            name: Name of the purifier.
            clips: (N,) attacked clips that fool the undefended model.
            owners: Speaker of each.

        Returns:
            The number of clips and the share with its interval, which is None for too few clips.
        """
        items = [
            Item(str(n), owner, self.written(name, clip), "")
            for n, (clip, owner) in enumerate(
                zip(clips[: self.clips], owners[: self.clips], strict=True)
            )
        ]
        if len(items) < MIN_SUCCESSES:
            return {"clips": len(items), "dsr": None}
        hits = self._right([item.samples for item in items], items)
        return {"clips": len(items), "dsr": self._share(hits, items)}

    def _right(self, sounds: Sequence[Tensor], items: Sequence[Item]) -> Hits:
        heard = [Item(i.id, i.speaker, s, "") for i, s in zip(items, sounds, strict=True)]
        model = self.system.model
        with torch.no_grad():
            named = torch.cat([model.scores(batch_of(p)).argmax(dim=1) for p in in_batches(heard)])
        return np.asarray((named == self.system.labels_of(items)).numpy())

    def _share(self, hits: Hits, items: Sequence[Item]) -> dict[str, float]:
        return proportion(hits, [item.speaker for item in items], seed=self.seed).to_json()


def sound_table(results: Mapping[str, Any], system: str) -> str:
    """Write what the purifiers' sound is like, and what it recovers; empty if not measured.

    A cell gives the mean defence success rate of the written sound over the waveform attacks of one
    strength, beside that of the same defence as it is scored elsewhere.
    """
    sound = results["systems"][system].get("sound")
    if not sound:
        return ""
    groups: dict[float | None, list[Mapping[str, Any]]] = {}
    for cell in results["cells"]:
        if cell["system"] == system and cell["protocol"] == "unaware" and cell["level"] == "raw":
            eps = cell["eps"] if cell["norm"] == "linf" else None
            groups.setdefault(eps, []).append(cell)
    kinds = sorted(groups, key=lambda eps: (eps is None, eps or 0.0))

    def recovered(name: str, eps: float | None) -> str:
        found = [d for cell in groups[eps] for d in cell["defences"] if d["defence"] == name]
        pairs = [(d["written"]["dsr"], d["dsr"]) for d in found if d.get("written")]
        rates = [(a["value"], b["value"]) for a, b in pairs if a and b]
        if not rates:
            return NOT_EVALUATED
        written, scored = (100 * sum(side) / len(rates) for side in zip(*rates, strict=True))
        return f"{written:.1f} of {scored:.1f} ({len(rates)})"

    def spread(found: Mapping[str, float] | None, form: str) -> str:
        if found is None:
            return NOT_EVALUATED
        median, low, high = (format(found[key], form) for key in ("median", "low", "high"))
        return f"{median} ({low}–{high})"

    strengths = ["smallest change" if eps is None else f"ε {eps:g}" for eps in kinds]
    columns = ["defence", "clips", "SNR dB", "STOI", "correct before", "correct as written"]
    rows = [
        [
            name,
            row["clips"],
            spread(row["snr_db"], ".1f"),
            spread(row["stoi"], ".3f"),
            share(row["accuracy_before"]),
            share(row["accuracy"]),
            *(recovered(name, eps) for eps in kinds),
        ]
        for name, row in sound.items()
    ]
    heads = [f"DSR written of scored (attacks), {strength}" for strength in strengths]
    return markdown([*columns, *heads], rows)


def _intelligible(pairs: Sequence[tuple[Tensor, Tensor]], rate: int) -> list[float]:
    values = []
    for before, after in pairs if stoi_available() else ():
        with suppress(TooLittleSpeechError):
            values.append(stoi(before, after, sample_rate_hz=rate))
    return values


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}
