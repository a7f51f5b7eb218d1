"""Paired tests of one defence against others, over the attacks that both were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nip_audio.evaluation.statistics import paired_t_test

__all__ = ["Paired", "paired_tests"]


@dataclass(frozen=True)
class Paired:
    """A defence against another, attack by attack.

    Attributes:
        own: Defence that is tested.
        other: Defence that it is compared with.
        attacks: Number of attacks.
        ahead: Attacks on which it recovers more.
        lead: Mean difference of the success rates.
        p: p-value of the two-sided paired t-test; None if all differences are equal.
    """

    own: str
    other: str
    attacks: int
    ahead: int
    lead: float
    p: float | None


def paired_tests(
    cells: Iterable[Mapping[str, float]], own: str, others: Iterable[str] = ()
) -> list[Paired]:
    """Test a defence against others.

    Args:
        cells: Success rates by defence, one mapping for each attack; a defence may be missing.
        own: Defence that is tested.
        others: Defences to compare with; by default all that occur.

    Returns:
        One test for each defence that shares at least two attacks with ``own``, by lead.
    """
    rows = list(cells)
    names = tuple(others) or tuple(dict.fromkeys(name for row in rows for name in row))
    found = []
    for other in names:
        pairs = [(row[own], row[other]) for row in rows if own in row and other in row]
        if other == own or len(pairs) < 2:
            continue
        first, second = np.array(pairs).T
        lead = first - second
        p = paired_t_test(first, second)[1] if np.ptp(lead) > 1e-12 else None
        found.append(Paired(own, other, len(pairs), int((lead > 0).sum()), float(lead.mean()), p))
    return sorted(found, key=lambda one: one.lead)
