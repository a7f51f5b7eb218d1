"""Check after every run that the attacks work, by comparing them with each other.

A defence looks strong if the attacks on it are weak. Attacks that work have known properties:
iterating helps, a larger ε helps, further steps change little at the end, and gradients do better
than guesses. After Carlini et al. 2019, Croce & Hein 2020 (AutoAttack's flags) and Tramèr et al.
2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from nip_audio.errors import InputError

__all__ = [
    "Check",
    "grows_with_eps",
    "iterated_at_least_one_step",
    "knowing_at_least_unaware",
    "changes_what_it_fools",
    "more_steps_change_little",
    "no_randomness",
    "no_zero_gradients",
    "reaches_all",
    "white_at_least_black",
    "worst_case",
]

Hits = NDArray[np.bool_]

LEVEL = 0.05
"""Significance level: a difference in the wrong direction counts if its p-value is at most this."""

CEILING = 0.99
"""Smallest attack success rate at a large ε."""

MOST_ZERO = 0.1
"""Largest share of items without a gradient at which white-box attacks can be trusted."""

MOST_GAIN = 0.1
"""Largest attack success rate that four times the steps may add."""

MOST_UNCHANGED = 0.05
"""Largest share of an attack's successes that may be clips it left as they were."""

MOST_BLACK_ONLY = 0.05
"""Largest share of items that may be fooled by a black-box attack only."""


@dataclass(frozen=True)
class Check:
    """Outcome of one sanity check.

    Attributes:
        name: What was checked.
        passed: Whether the check passed; None if the run lacks the attacks it needs.
        detail: Numbers behind the outcome, in words.
    """

    name: str
    passed: bool | None
    detail: str


def iterated_at_least_one_step(one_step: Hits | None, iterated: Hits | None) -> Check:
    """Check, item by item, that iterating fools no fewer items than one step of the same ε."""
    name = "iterated ≥ one step"
    if one_step is None or iterated is None:
        return Check(name, None, "no pair of a one-step and an iterated attack")
    return _no_worse(name, iterated, one_step, "iterated", "one step")


def grows_with_eps(success: Mapping[float, Hits]) -> Check:
    """Check that no ε fools fewer items than the next smaller one."""
    name = "success grows with ε"
    strengths = sorted(success)
    if len(strengths) < 2:
        return Check(name, None, "fewer than two strengths")
    for smaller, larger in zip(strengths[:-1], strengths[1:], strict=True):
        found = _no_worse(
            name, success[larger], success[smaller], f"ε {larger:.4g}", f"ε {smaller:.4g}"
        )
        if not found.passed:
            return found
    rates = ", ".join(f"{success[e].mean():.1%} at {e:.4g}" for e in strengths)
    return Check(name, True, rates)


def reaches_all(success: Hits | None, eps: float | None) -> Check:
    """Check that a large ε fools nearly everything; otherwise the attack does not work."""
    name = "a large ε fools all"
    if success is None or eps is None or len(success) == 0:
        return Check(name, None, "no attack at a large ε")
    rate = float(success.mean())
    return Check(name, rate >= CEILING, f"{rate:.1%} at ε {eps:.4g}")


def more_steps_change_little(few: Hits | None, many: Hits | None) -> Check:
    """Check that the attack has converged: four times the steps add little, and lose nothing."""
    name = "more steps change little"
    if few is None or many is None:
        return Check(name, None, "no attack with more steps")
    worse = _no_worse(name, many, few, "more steps", "fewer")
    if not worse.passed:
        return worse
    few, many = _shared(few, many)
    gain = float(many.mean() - few.mean())
    return Check(name, gain <= MOST_GAIN, f"{few.mean():.1%}, then {many.mean():.1%}")


def white_at_least_black(white: Hits | None, black: Mapping[str, Hits]) -> Check:
    """Check that items fooled by a black-box attack are fooled by a white-box attack too.

    Args:
        white: (items,) whether any white-box attack of the same ε fools the item.
        black: (items,) whether the attack fools the item, by name of the black-box attack.
    """
    name = "white box ≥ black box"
    if white is None or not black or min(map(len, (white, *black.values()))) == 0:
        return Check(name, None, "no pair of a white-box and a black-box attack")
    parts, passed = [], True
    for attack, hits in black.items():
        ours, theirs = _shared(white, hits)
        only = float((theirs & ~ours).mean())
        parts.append(f"{attack} alone {only:.1%}")
        passed &= only <= MOST_BLACK_ONLY
    return Check(name, passed, ", ".join(parts))


def knowing_at_least_unaware(knowing: Hits, unaware: Sequence[tuple[str, Hits]]) -> Check:
    """Check that attackers who know a defence fool no fewer items than one who does not.

    Args:
        knowing: (items,) whether any attack by someone who knows the defence fools the item.
        unaware: Names of the attacks by others, and (items,) whether each fools the item behind the
            same defence.
    """
    name = "knowing ≥ unaware"
    if not unaware:
        return Check(name, None, "no attack by someone who does not know the defence")
    attack, most = max(unaware, key=lambda pair: float(pair[1].mean()))
    return _no_worse(name, knowing, most, "knowing it", f"{attack} unaware")


def changes_what_it_fools(successes: int, unchanged: int | None) -> Check:
    """Check that an attack's successes are its own, and not those of the defence's randomness.

    Args:
        successes: Number of items that the system names rightly without the attack, and wrongly
            with it.
        unchanged: How many of them the attack left exactly as they were; None if unknown.
    """
    name = "successes are changed"
    if unchanged is None or successes == 0:
        return Check(name, None, "no success" if unchanged is not None else "not recorded")
    share = unchanged / successes
    return Check(name, share <= MOST_UNCHANGED, f"{unchanged} of {successes} left as they were")


def no_zero_gradients(zero: Hits | None) -> Check:
    """Check that the system has gradients.

    Args:
        zero: (items,) whether the item's gradient is zero everywhere; None for a black box.
    """
    name = "gradients are not zero"
    if zero is None:
        return Check(name, None, "a black box: only attacks that need no gradient can be run")
    if len(zero) == 0:
        return Check(name, None, "no item was asked")
    share = float(zero.mean())
    return Check(name, share <= MOST_ZERO, f"zero for {share:.1%} of {len(zero)} items")


def no_randomness(first: NDArray[np.float64], second: NDArray[np.float64]) -> Check:
    """Check that scores are reproducible; if not, attacks must average over draws (EOT).

    Args:
        first: Scores of some items.
        second: Scores of the same items, computed again.
    """
    if first.size == 0:
        return Check("answers are not random", None, "no item was asked")
    largest = float(np.abs(first - second).max())
    return Check("answers are not random", largest <= 1e-5, f"largest difference {largest:.2g}")


def worst_case(fooled: Mapping[str, Hits], *, required: Mapping[str, str]) -> Hits:
    """Return which items at least one attack fools; a robust accuracy counts them as errors.

    Args:
        fooled: (items,) whether the attack fools the item, by name of the attack.
        required: Descriptions of the attacks that a worst case must include, by name.

    Raises:
        InputError: If a required attack is missing, or the attacks have different items.
    """
    missing = [f"{name} ({why})" for name, why in required.items() if name not in fooled]
    if missing:
        raise InputError(
            f"a robust accuracy lacks {', '.join(missing)}; run it too: a robust accuracy is the "
            "worst case over strong attacks, and says nothing if one was left out"
        )
    if len({len(hits) for hits in fooled.values()}) != 1:
        raise InputError("the attacks have different numbers of items; use equal numbers")
    return np.asarray(np.logical_or.reduce(list(fooled.values())))


def _shared(first: Hits, second: Hits) -> tuple[Hits, Hits]:
    """Keep the items that both have; every attack takes the first n of the same order."""
    count = min(len(first), len(second))
    return first[:count], second[:count]


def _no_worse(name: str, more: Hits, less: Hits, stronger: str, weaker: str) -> Check:
    """Compare item by item, with an exact sign test on those that differ (McNemar)."""
    more, less = _shared(more, less)
    if len(more) == 0:
        return Check(name, None, f"no item with both {stronger} and {weaker}")
    won, lost = int((more & ~less).sum()), int((less & ~more).sum())
    detail = f"{stronger} {more.mean():.1%}, {weaker} {less.mean():.1%} of {len(more)}"
    if lost <= won:
        return Check(name, True, detail)
    chance = float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)
    return Check(name, chance > LEVEL, f"{detail} (p = {chance:.2g})")
