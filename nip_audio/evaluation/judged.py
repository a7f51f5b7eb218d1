"""Keep the predictions of defended systems on adversarial sets, so that none is made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.cache import keep_or_make
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.strict_json import load_json
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.purifiers.base import Defence

__all__ = ["Judged", "JudgedSets"]

_VERSION = 2
"""Increased when predictions are made or counted in another way."""


@dataclass(frozen=True)
class Judged:
    """Predictions of one system behind one defence on one set.

    Attributes:
        named: (examples,) predicted classes.
        tknc: Mean top-k neuron consistency (TKNC) with the unattacked clips.
    """

    named: NDArray[np.int64]
    tknc: float


@dataclass(frozen=True)
class JudgedSets:
    """A folder of predictions.

    An interrupted evaluation continues where it stopped, and a further defence or set adds only its
    own cost. A file's name is the fingerprint of everything its content depends on: the examples'
    bytes, the system, the defence's settings and versions, and the seed.

    Attributes:
        folder: Folder of the files; created when first needed.
        system: Identity of model and enrolment.
        seed: Seed of the defences' random draws.
    """

    folder: Path
    system: str
    seed: int

    def of(
        self, defence: Defence | None, examples: AdversarialSet, ask: Callable[[], Judged]
    ) -> Judged:
        """Return the predictions on a set: the kept ones, or new ones, which are then kept.

        Args:
            defence: Defence of the system; None for none.
            examples: Set to classify.
            ask: Function that makes the predictions; called only if none are kept.
        """
        path = self.folder / f"{self._key(defence, examples)}.json"
        return keep_or_make(path, ask, dump=_dump, load=_load)

    def standing(
        self, defence: Defence | None, clips: Sequence[str], ask: Callable[[], NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Return which unattacked clips a defended system names rightly: kept, or asked anew.

        Args:
            defence: Defence of the system; None for none.
            clips: Content hashes of the clips.
            ask: Function that asks; called only if no answer is kept.
        """
        path = self.folder / f"{self._of(defence, unattacked=list(clips))}.json"
        return keep_or_make(
            path,
            ask,
            dump=lambda right: json.dumps(right.tolist()).encode(),
            load=lambda data: np.array(load_json(data), dtype=bool),
        )

    def _key(self, defence: Defence | None, examples: AdversarialSet) -> str:
        attacked = [e.sha256 for e in examples.examples]
        return self._of(defence, level=examples.level, examples=attacked)

    def _of(self, defence: Defence | None, **what: object) -> str:
        facts = {
            "judging": _VERSION,
            "system": self.system,
            "seed": self.seed,
            "defence": None if defence is None else [defence.settings(), _versions(defence)],
        }
        return fingerprint(facts | what)


def _dump(judged: Judged) -> bytes:
    return json.dumps({"named": judged.named.tolist(), "tknc": judged.tknc}).encode()


def _load(data: bytes) -> Judged:
    kept = load_json(data)
    return Judged(np.array(kept["named"], dtype=np.int64), float(kept["tknc"]))


def _versions(defence: Defence) -> list[list[object]]:
    """Return name and version of a defence and of the defences it contains."""
    parts = [part for part in vars(defence).values() if isinstance(part, Defence)]
    own: list[object] = [type(defence).__name__, defence.version]
    return [own, *(found for part in parts for found in _versions(part))]
