"""Draw verification trials, measure error rates, and how much of a loss a purifier recovers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import Interval, bootstrap, equal_error_rate, min_dcf
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import Crop
from nip_audio.purifiers.base import Defence
from nip_audio.purifiers.defending import defend

__all__ = [
    "P_TARGET",
    "Scores",
    "Side",
    "Trial",
    "Verifier",
    "clips_of",
    "draw_trials",
    "error_rates",
    "is_target",
    "recovered",
    "returned",
]

Side = Literal["test", "enrolment"]
"""Recording of a trial that the attacker changes."""

P_TARGET = 0.05
"""Prior of minDCF. At NIST's 0.01, one false acceptance in a hundred trials costs more than
rejecting everybody, so that with few trials only the misses without false acceptances count."""

_ROUNDS = 300
_TRIES = 1000
_ROWS = 30  # clips embedded at a time
_ROUNDING = 1e-9  # two equal error rates, each interpolated, may differ by some 1e-17

Scores = NDArray[np.float64]
"""Scores of trials, (trials,); higher means more similar."""


@dataclass(frozen=True)
class Trial:
    """A claim that a recording is of the speaker enrolled from another recording.

    Attributes:
        enrolment: Recording that the claimed speaker is enrolled from.
        test: Recording to verify.
    """

    enrolment: Crop
    test: Crop

    @property
    def is_target(self) -> bool:
        """Whether the claim is true."""
        return self.enrolment.speaker == self.test.speaker


def draw_trials(
    enrolment: Sequence[Crop],
    tested: Sequence[Crop],
    *,
    targets: int,
    impostors: int,
    seed: int,
) -> list[Trial]:
    """Draw distinct trials at random, equally many per speaker up to a difference of one.

    Args:
        enrolment: Clips to enrol from.
        tested: Clips to verify.
        targets: Number of target trials, whose claim is true.
        impostors: Number of impostor trials, in which a speaker claims to be another one.
        seed: Seed of the draw.

    Returns:
        The target trials, then the impostor trials. The first n of either kind are the same that a
        smaller draw of n returns.

    Raises:
        InputError: If a number is not positive, there are fewer than two speakers, a speaker lacks
            clips of either kind, or there are too few trials.
    """
    if min(targets, impostors) < 1:
        raise InputError(f"got {targets} target and {impostors} impostor trials, expected ≥ 1 each")
    enrol_of, test_of = _by_speaker(enrolment), _by_speaker(tested)
    speakers = sorted(enrol_of)
    if speakers != sorted(test_of) or len(speakers) < 2:
        raise InputError(
            f"{len(enrol_of)} speakers have clips to enrol from and {len(test_of)} clips to test, "
            "expected the same two or more; give both roles of the same speakers, or shorter crops"
        )

    def draw(count: int, *, same: bool) -> list[Trial]:
        rng = np.random.default_rng((seed, int(same)))
        found: dict[tuple[int, int], Trial] = {}
        order: list[str] = []
        while len(found) < count:
            order = order or [str(name) for name in rng.permutation(speakers)]
            own = order.pop()
            for _ in range(_TRIES):
                claimed = own if same else str(rng.choice([s for s in speakers if s != own]))
                voice = enrol_of[claimed][rng.integers(len(enrol_of[claimed]))]
                clip = test_of[own][rng.integers(len(test_of[own]))]
                if (id(voice), id(clip)) not in found:
                    break
            else:
                raise InputError(
                    f"speaker {own} has fewer trials than the {count} asked for need; ask for "
                    "fewer, or give more clips"
                )
            found[id(voice), id(clip)] = Trial(voice, clip)
        return list(found.values())

    return draw(targets, same=True) + draw(impostors, same=False)


def _by_speaker(clips: Sequence[Crop]) -> dict[str, list[Crop]]:
    found: dict[str, list[Crop]] = defaultdict(list)
    for clip in clips:
        found[clip.speaker].append(clip)
    return found


def is_target(trials: Sequence[Trial]) -> NDArray[np.bool_]:
    """Return which claims are true, (trials,)."""
    return np.array([trial.is_target for trial in trials])


def clips_of(trials: Sequence[Trial], side: Side) -> Tensor:
    """Return one recording of each trial, (trials, N) in [-1, 1].

    Raises:
        InputError: If the recordings differ in length.
    """
    clips = [getattr(trial, side).samples for trial in trials]
    if len({len(clip) for clip in clips}) != 1:
        raise InputError(
            f"clips of {min(map(len, clips))} to {max(map(len, clips))} samples, expected one "
            "length; set crop_s"
        )
    return torch.stack(clips)


@dataclass(frozen=True)
class Verifier:
    """A model that embeds, and a back end that scores an embedding against an enrolled speaker.

    Each speaker is enrolled from one recording, so that both back ends are symmetric: the score
    does not depend on which recording is called the enrolment. An attack on the enrolment is then
    an attack on the score of that recording against the other one (``EnrolmentSide`` is for
    speakers enrolled from several recordings).

    Attributes:
        name: Name of the back end.
        model: Model that embeds; its head is not used.
        identity: Hash of model and back end.
        back_end: Back end as ``Verification`` takes it: ``CosineHead``, or that of a PLDA.
        seen: ``Audio.content_sha256`` of all recordings that model and back end were fitted on.
    """

    name: str
    model: InstrumentedModel
    identity: str
    back_end: Callable[..., nn.Module]
    seen: frozenset[str] = frozenset()

    def behind(self, defence: Defence | None, generator: torch.Generator) -> Verifier:
        """Return this verifier with a defence before every embedding; None returns itself."""
        if defence is None:
            return self
        return replace(self, model=defend(self.model, defence, generator=generator))

    @torch.no_grad()
    def embed(self, clips: Tensor) -> Tensor:
        """Embed clips (n, N) as (n, D)."""
        return torch.cat([self.model.embed(Batch(part)) for part in torch.split(clips, _ROWS)])

    def score(self, enrolled: Tensor, tested: Tensor) -> Scores:
        """Score pairs of embeddings (n, D), and return (n,)."""
        return np.diagonal(self.score_all(enrolled, tested)).copy()

    @torch.no_grad()
    def score_all(self, enrolled: Tensor, tested: Tensor) -> NDArray[np.float64]:
        """Score embeddings (n, D) against all enrolled speakers (S, D), and return (n, S)."""
        head = self.back_end(enrolled.double())
        return np.asarray(head(tested.double()).numpy(), dtype=np.float64)


def error_rates(
    scores: Scores, trials: Sequence[Trial], *, threshold: float, seed: int
) -> Mapping[str, Interval]:
    """Measure error rates with their 95 % intervals, by bootstrap over speakers.

    Args:
        scores: (trials,) scores.
        trials: Trials, both targets and impostors.
        threshold: Score from which the system accepts, set beforehand.
        seed: Seed of the bootstrap.

    Returns:
        ``eer``, the equal error rate; ``min_dcf`` at a prior of ``P_TARGET``; ``wrong``, the share
        of wrong decisions at the threshold.

    Raises:
        InputError: If there are no target or no impostor trials, or not one score per trial.
    """
    own = _checked(trials, scores)

    def wrong(rows: NDArray[np.intp]) -> float:
        if not len(rows):
            raise InputError("no trial was drawn")
        return float(((scores[rows] >= threshold) != own[rows]).mean())

    def cost(rows: NDArray[np.intp]) -> float:
        return min_dcf(*_split(scores, own, rows), p_target=P_TARGET)

    return {
        "eer": _over_speakers(lambda rows: _eer(scores, own, rows), trials, seed=seed),
        "min_dcf": _over_speakers(cost, trials, seed=seed),
        "wrong": _over_speakers(wrong, trials, seed=seed),
    }


def recovered(
    clean: Scores, attacked: Scores, purified: Scores, trials: Sequence[Trial], *, seed: int
) -> Interval | None:
    """Return how much of the equal error rate (EER) lost to an attack a purifier recovers.

    The share is (attacked − purified) / (attacked − clean), each the EER of the same trials, with
    its 95 % interval; speakers are resampled together. It is negative if the purifier makes things
    worse, and above 1 if the purified system does better on attacked trials than the undefended one
    on clean trials (see ``returned``).

    Args:
        clean: (trials,) scores of the unattacked trials without purification.
        attacked: (trials,) scores of the attacked trials.
        purified: (trials,) scores of the attacked trials after purification.
        trials: Trials, both targets and impostors.
        seed: Seed of the bootstrap.

    Returns:
        The share with its interval; None if the attack does not raise the EER.

    Raises:
        InputError: If there are no target or no impostor trials, or not one score per trial.
    """
    own = _checked(trials, clean, attacked, purified)

    def part(rows: NDArray[np.intp]) -> float:
        before, under, after = (_eer(s, own, rows) for s in (clean, attacked, purified))
        if under - before < _ROUNDING:
            raise InputError("nothing was lost")
        return (under - after) / (under - before)

    everything = np.arange(len(own))
    if _eer(attacked, own, everything) - _eer(clean, own, everything) < _ROUNDING:
        return None
    return _over_speakers(part, trials, seed=seed)


def returned(
    clean: Scores, attacked: Scores, purified: Scores, trials: Sequence[Trial], *, seed: int
) -> Interval | None:
    """Return how far a purifier moves scores back to their clean values, on average.

    This is the mean of purified − attacked divided by the mean of clean − attacked, with the scores
    of impostors negated. A value above 1 is an overshoot: the purifier moves the score past its
    clean value, away from what the attacker wanted. That only looks like a gain, because the
    direction of the attack reveals the truth.

    Args:
        clean: (trials,) scores of the unattacked trials without purification.
        attacked: (trials,) scores of the attacked trials.
        purified: (trials,) scores of the attacked trials after purification.
        trials: Trials, both targets and impostors.
        seed: Seed of the bootstrap.

    Returns:
        The ratio with its interval; None if the attack does not move the mean its way.

    Raises:
        InputError: If there are no target or no impostor trials, or not one score per trial.
    """
    sign = np.where(_checked(trials, clean, attacked, purified), 1.0, -1.0)
    lost, back = sign * (clean - attacked), sign * (purified - attacked)

    def part(rows: NDArray[np.intp]) -> float:
        if lost[rows].sum() <= 0:
            raise InputError("nothing was lost")
        return float(back[rows].sum() / lost[rows].sum())

    return _over_speakers(part, trials, seed=seed) if lost.sum() > 0 else None


def _checked(trials: Sequence[Trial], *scores: Scores) -> NDArray[np.bool_]:
    own = is_target(trials)
    if any(len(s) != len(own) for s in scores) or own.all() or not own.any():
        raise InputError(
            f"got {[len(s) for s in scores]} scores of {int(own.sum())} target and "
            f"{int((~own).sum())} impostor trials, expected one a trial, and trials of both kinds"
        )
    return own


def _split(scores: Scores, own: NDArray[np.bool_], rows: NDArray[np.intp]) -> tuple[Scores, Scores]:
    return scores[rows][own[rows]], scores[rows][~own[rows]]


def _eer(scores: Scores, own: NDArray[np.bool_], rows: NDArray[np.intp]) -> float:
    return equal_error_rate(*_split(scores, own, rows)).rate


def _over_speakers(
    statistic: Callable[[NDArray[np.intp]], float], trials: Sequence[Trial], *, seed: int
) -> Interval:
    """Bootstrap a statistic of rows of trials, resampling speakers.

    The target trials of a speaker who is drawn twice count twice; an impostor trial counts once for
    every drawn pair of its two speakers.
    """
    pairs = [(t.test.speaker, t.enrolment.speaker) for t in trials]
    names = sorted({name for pair in pairs for name in pair})
    first, second = np.array([[names.index(name) for name in pair] for pair in pairs]).T

    def of(chosen: NDArray[np.intp]) -> float:
        drawn = np.bincount(chosen, minlength=len(names))
        times = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        return statistic(np.repeat(np.arange(len(pairs)), times))

    return bootstrap(of, len(names), seed=seed, rounds=_ROUNDS)
