"""What defended systems made of adversarial sets, kept so that no run asks twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nip_audio import __version__
from nip_audio.core.state import write_atomic
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.purifiers.base import Defence

__all__ = ["Judged", "JudgedSets"]


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
    itself. A file's name is a hash of all that decides what is in it: the examples' bytes, the
    system, the defence's settings and the source of its class, the seed and the version.

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
            "version": __version__,
            "system": self.system,
            "seed": self.seed,
            "level": examples.level,
            "examples": [e.sha256 for e in examples.examples],
            "defence": None if defence is None else [defence.settings(), *_source(defence)],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _source(defence: Defence) -> list[str]:
    """Source of the modules that a defence, and others it is made of, are defined in."""
    module = inspect.getmodule(type(defence))
    parts = [part for part in vars(defence).values() if isinstance(part, Defence)]
    own = "" if module is None else inspect.getsource(module)
    return [own, *(text for part in parts for text in _source(part))]
