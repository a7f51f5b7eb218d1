"""Warn of trials that make error rates look better, or surer, than they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.models.operating_point import OperatingPoint
from nip_audio.models.trial_scores import TrialScores

__all__ = ["TrialWarning", "warn_of_design", "warn_of_numbers", "warn_of_scores"]

_FEW_SPEAKERS = 30
_NAMED = 5  # pairs of speakers that are named
_RULE_OF_THREE, _RULE_OF_THIRTY = 3, 30

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TrialWarning:
    """Something about the trials that makes their numbers lie.

    Attributes:
        code: Stable code.
        text: What it is, why it matters and what to do.
    """

    code: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return JSON values."""
        return {"code": self.code, "text": self.text}


def warn_of_numbers(point: OperatingPoint) -> list[TrialWarning]:
    """Warn where there are too few speakers or trials for the rate asked."""
    found = []
    if point.groups < _FEW_SPEAKERS:
        found.append(
            TrialWarning(
                "few_speakers",
                f"the trials are of {point.groups} speakers: with fewer than {_FEW_SPEAKERS} the "
                "intervals are unsure themselves, and too short more often than one time in "
                "twenty; add speakers rather than recordings",
            )
        )
    asked = point.aim.far
    if asked is not None:
        three, thirty = _RULE_OF_THREE / asked, _RULE_OF_THIRTY / asked
        if point.impostors < three:
            found.append(
                TrialWarning(
                    "few_impostors",
                    f"{point.impostors} impostor trials are too few for a FAR of {asked:g}: "
                    f"without one false acceptance they would only show that it is below "
                    f"{_RULE_OF_THREE / point.impostors:.2g} (rule of three); use {three:,.0f} or "
                    "more, or ask for a higher FAR",
                )
            )
        elif point.impostors < thirty:
            found.append(
                TrialWarning(
                    "few_impostors",
                    f"{point.impostors} impostor trials hold about "
                    f"{asked * point.impostors:.0f} false acceptances at a FAR of "
                    f"{asked:g}: to know a rate to within 30 % takes 30 errors "
                    f"(rule of thirty), which is {thirty:,.0f} trials",
                )
            )
        if point.impostors >= three and point.pairs < three:
            found.append(
                TrialWarning(
                    "few_pairs",
                    f"the impostor trials are of {point.pairs} pairs of speakers, fewer than the "
                    f"{three:,.0f} that a FAR of {asked:g} asks for (rule of three): a few pairs "
                    "of alike voices decide the threshold, and other speakers may be more alike; "
                    "add speakers",
                )
            )
    errors = min(point.eer.value * point.targets, point.eer.value * point.impostors)
    if asked is None and errors < _RULE_OF_THIRTY:
        found.append(
            TrialWarning(
                "few_errors",
                f"there are fewer than {math.floor(errors) + 1} errors of a kind at the equal "
                "error rate: to know a rate to within 30 % takes 30 of either (rule of thirty); "
                "add recordings and speakers",
            )
        )
    return found


def warn_of_design(
    trials: TrialScores,
    sessions: tuple[NDArray[np.str_], NDArray[np.str_]],
    conditions: tuple[Flags, Flags] | None,
) -> list[TrialWarning]:
    """Warn where recordings share more than the speaker.

    Args:
        trials: Scored trials.
        sessions: (n,) folder of the recordings of either side.
        conditions: (n,) whether both sides are known to be of one condition, and of two; None if
            conditions are not known.
    """
    found = []
    one, other = (part[trials.same] for part in sessions)
    owners = trials.first[trials.same]
    crossing = np.unique(owners[one != other])
    every = np.unique(owners)
    if len(crossing) < len(every) / 2:
        found.append(
            TrialWarning(
                "one_session",
                f"the target trials of {len(every) - len(crossing)} of {len(every)} speakers "
                "compare recordings of one folder, which mostly is one session or chapter: the "
                "same room, microphone and day make a speaker look more like themselves than "
                "they will be, so that the FRR is too low; compare recordings of different "
                "sessions",
            )
        )
    if conditions is not None:
        alike, apart = conditions
        if not (trials.same & apart).any() and (~trials.same & apart).any():
            found.append(
                TrialWarning(
                    "shared_channel",
                    "no target trial crosses conditions, but impostor trials do: the channel "
                    "gives the speaker away, so that both error rates are too low; record each "
                    "speaker in each condition",
                )
            )
        elif not (~trials.same & alike).any():
            found.append(
                TrialWarning(
                    "shared_channel",
                    "no impostor trial is within one condition, so that the channel tells "
                    "impostors apart and the FAR is too low; record several speakers in each "
                    "condition",
                )
            )
    return found


def warn_of_scores(
    trials: TrialScores, copies: int, shared: Sequence[tuple[str, str]]
) -> list[TrialWarning]:
    """Warn of recordings on both sides of a trial, and of one voice under two names.

    Args:
        trials: Scored trials.
        copies: Trials that were left out because both sides are the same recording.
        shared: Names of pairs of speakers who have the same recording.
    """
    found = []
    if copies:
        found.append(
            TrialWarning(
                "same_recording",
                f"{copies} of the trials compare a recording with itself and were left "
                "out, because they say nothing of a voice; remove them, or the copies of "
                "recordings",
            )
        )
    other = ~trials.same
    low, high = (f(trials.first[other], trials.second[other]) for f in (np.minimum, np.maximum))
    keys, place = np.unique(np.stack([low, high]), axis=1, return_inverse=True)
    place = place.ravel()
    means = np.bincount(place, trials.scores[other]) / np.bincount(place)
    limit = float(np.median(trials.targets))
    suspects = [
        (trials.groups[keys[0, k]], trials.groups[keys[1, k]])
        for k in np.argsort(-means)
        if means[k] >= limit
    ]
    named = list(dict.fromkeys([*(tuple(sorted(pair)) for pair in shared), *map(tuple, suspects)]))
    if named:
        shown = ", ".join(f"{a!r} and {b!r}" for a, b in named[:_NAMED])
        more = f" and {len(named) - _NAMED} more pairs" if len(named) > _NAMED else ""
        found.append(
            TrialWarning(
                "two_names",
                f"{shown}{more} sound like one speaker under two names (they share a recording, or "
                "their impostor scores are as high as those of target trials): their trials count "
                "as impostors and raise the threshold; listen to them, and merge or remove them",
            )
        )
    return found
