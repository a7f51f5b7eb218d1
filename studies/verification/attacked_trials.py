"""Attack the test or enrolment recording of trials once, and keep the results as 16-bit samples.

Each batch is one file, named after everything it depends on. An interrupted run therefore continues
where it stopped, a run with more trials makes only the new ones, and all defences share the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Verification
from nip_audio.audio.io import samples_sha256, to_16_bits
from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError, OutputError
from nip_audio.evaluation.identification import Crop
from studies.verification.trials import Side, Trial, Verifier, clips_of

__all__ = ["AttackedClips", "TrialAttack"]

_KIND = "attacked trials"
_LEVELS = 32768
_COSTS = ("queries", "gradients", "seconds")


@dataclass(frozen=True)
class AttackedClips:
    """Attacked recordings, one per trial.

    Attributes:
        clips: (trials, N) samples in [-1, 1], rounded to 16 bits as in a file.
        queries: Mean number of inputs scored per trial.
        gradients: Mean number of inputs differentiated per trial.
        seconds: Mean time per trial in seconds.
    """

    clips: Tensor
    queries: float
    gradients: float
    seconds: float


@dataclass(frozen=True)
class TrialAttack:
    """An attack on trials: target trials are to be rejected, impostor trials to be accepted.

    The attacker knows the model, the back end, its threshold and the other recording of the trial,
    but no defence.

    Attributes:
        verifier: Undefended verifier.
        side: Recording of the trial that is changed: ``test`` or ``enrolment``.
        attack: Attack with its settings.
        trials: Target and impostor trials.
        threshold: Score from which the system accepts.
        seed: Seed of the run.
        batch: Trials of one kind per batch; they share their random numbers.
        contrary: Whether to attack in the opposite direction, as a control: target trials are to be
            accepted, impostor trials rejected. This makes the undefended system look better, and a
            system whose purifier overshoots look worse.

    Raises:
        InputError: If there is no trial, or the batch size is not positive.
    """

    verifier: Verifier
    side: Side
    attack: Attack
    trials: Sequence[Trial]
    threshold: float
    seed: int
    batch: int = 30
    contrary: bool = False

    def __post_init__(self) -> None:
        """Check the numbers of trials."""
        if not self.trials or self.batch < 1:
            raise InputError(
                f"got {len(self.trials)} trials in batches of {self.batch}, expected ≥ 1 each"
            )

    def describe(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """Return everything that the result for a batch of trials depends on, as JSON values."""
        description = {
            "verifier": self.verifier.identity,
            "side": self.side,
            "attack": self.attack.settings(),
            "trials": [[_name(t.enrolment), _name(t.test), t.is_target] for t in trials],
            "threshold": self.threshold,
            "seed": self.seed,
        }
        return description | ({"contrary": True} if self.contrary else {})

    def make(
        self, folder: Path, *, progress: Callable[[int], None] = lambda count: None
    ) -> AttackedClips:
        """Attack the trials that have no file yet, and read all of them.

        Args:
            folder: Folder of the files, which different attacks may share.
            progress: Called with the number of trials in each batch that is done.

        Raises:
            AttackError: If the attack cannot apply.
            HashMismatchError: If a file was changed.
            OutputError: If the folder cannot be written.
        """
        clips = torch.empty_like(clips_of(self.trials, self.side))
        costs = dict.fromkeys(_COSTS, 0.0)
        for rows in self._batches():
            trials = [self.trials[row] for row in rows]
            path, key = self._place(folder, trials)
            if not path.exists():
                _make_folder(path.parent)
                save_state(path, self._attacked(trials, key), force=True)
            state = load_state(path, kind=_KIND, model_id=key)
            clips[rows] = state.tensors["clips"].float() / _LEVELS
            for name in _COSTS:
                costs[name] += state.meta[name] * len(rows) / len(self.trials)
            progress(len(rows))
        return AttackedClips(clips, **costs)

    def finished(self, folder: Path) -> bool:
        """Return whether all trials have been attacked."""
        batches = ([self.trials[row] for row in rows] for rows in self._batches())
        return all(self._place(folder, trials)[0].exists() for trials in batches)

    def _place(self, folder: Path, trials: Sequence[Trial]) -> tuple[Path, str]:
        """Return the file of a batch, and the key that it is named after."""
        text = json.dumps(self.describe(trials), sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        name = f"{self.verifier.name}-{self.side}-{self.attack.name}"
        return folder / name / f"{key[:16]}.safetensors", key

    def _batches(self) -> Iterator[list[int]]:
        """Yield the rows of batches; each batch has one goal."""
        for kind in (True, False):
            rows = [i for i, trial in enumerate(self.trials) if trial.is_target is kind]
            yield from (rows[i : i + self.batch] for i in range(0, len(rows), self.batch))

    def _attacked(self, trials: Sequence[Trial], key: str) -> State:
        other: Side = "enrolment" if self.side == "test" else "test"
        objective = Verification(
            self.verifier.model,
            self.verifier.embed(clips_of(trials, other)),
            threshold=self.threshold,
            goal="reject" if trials[0].is_target != self.contrary else "accept",
            back_end=self.verifier.back_end,
        )
        generator = torch.Generator().manual_seed(seed_of(self.seed, key))
        made = self.attack(objective, Batch(clips_of(trials, self.side)), generator=generator)
        levels = (to_16_bits(made.batch.x) * _LEVELS).to(torch.int16)
        costs = {name: float(getattr(made, name)) for name in _COSTS}
        costs["seconds"] /= len(trials)
        return State(_KIND, key, {"clips": levels}, costs)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(f"{folder} cannot be made ({err.strerror}); use another") from err


def _name(crop: Crop) -> str:
    """Return a name made of recording and samples, since a recording has several crops."""
    return f"{crop.recording.id}:{samples_sha256(crop.samples)[:16]}"
