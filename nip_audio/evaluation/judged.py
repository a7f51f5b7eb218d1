"""What defended systems made of adversarial sets, kept so that no run asks twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.state import write_atomic
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.purifiers.base import Defence

__all__ = ["Judged", "JudgedSets"]

_VERSION = 2
"""Raised when systems are asked, or answers counted, in another way."""


@dataclass(frozen=True)
class Judged:
    """What one system behind one defence makes of one set.

    Attributes:
        named: (examples,) classes.
        tknc: Mean top-k neuron coverage against the unattacked clips.
    """

    named: NDArray[np.int64]
    tknc: float


@dataclass(frozen=True)
class JudgedSets:
    """A folder of what was judged.

    An interrupted evaluation goes on where it was, and one more defence, or set, costs no more than
    itself. A file's name is the fingerprint of all that decides what is in it: the examples' bytes,
    the system, the defence's settings and versions, and the seed.

    Attributes:
        folder: Made when first written to.
        system: Identity of model and enrolment.
        seed: Of the defences' randomness.
    """

    folder: Path
    system: str
    seed: int

    def of(
        self, defence: Defence | None, examples: AdversarialSet, ask: Callable[[], Judged]
    ) -> Judged:
        """Return what is known, or ask and keep the answer.

        Args:
            defence: Behind which the system is asked.
            examples: What it is asked.
            ask: Asks.
        """
        path = self.folder / f"{self._key(defence, examples)}.json"
        if path.is_file():
            kept = json.loads(path.read_text())
            return Judged(np.array(kept["named"], dtype=np.int64), kept["tknc"])
        judged = ask()
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"named": judged.named.tolist(), "tknc": judged.tknc})
        write_atomic(path, text.encode(), force=True)
        return judged

    def _key(self, defence: Defence | None, examples: AdversarialSet) -> str:
        facts = {
            "judging": _VERSION,
            "system": self.system,
            "seed": self.seed,
            "level": examples.level,
            "examples": [e.sha256 for e in examples.examples],
            "defence": None if defence is None else [defence.settings(), _versions(defence)],
        }
        return fingerprint(facts)


def _versions(defence: Defence) -> list[list[object]]:
    """Name and version of a defence, and of others it is made of."""
    parts = [part for part in vars(defence).values() if isinstance(part, Defence)]
    own: list[object] = [type(defence).__name__, defence.version]
    return [own, *(found for part in parts for found in _versions(part))]
