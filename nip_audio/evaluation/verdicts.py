"""Draw conclusions from all cells of a run: sanity checks of the attacks, and robust accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nip_audio.errors import InputError
from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.sanity import (
    Check,
    changes_what_it_fools,
    grows_with_eps,
    iterated_at_least_one_step,
    knowing_at_least_unaware,
    more_steps_change_little,
    reaches_all,
    white_at_least_black,
    worst_case,
)

__all__ = ["check_adaptive", "check_attacks", "robust_accuracies"]

Hits = NDArray[np.bool_]
CellRow = Mapping[str, Any]

ONE_STEP, ITERATED, STEPS = "fgsm", "pgd", 10
LARGE_EPS = {"raw": 0.05, "input": 0.25}
"""Strength from which every clip must be fooled, because the perturbation drowns the speech."""

REQUIRED = {
    "pgd-e2e": "end-to-end PGD with restarts",
    "autoattack": "AutoAttack",
    "black box": "Square on spectrograms, FAKEBOB on waveforms",
    "transfer": "from another model",
}
"""Attacks that a robust accuracy, the worst case over attacks, must at least include."""

_BLACK_BOX = {"raw": "fakebob", "input": "square"}


def check_attacks(cells: Sequence[CellRow], system: str, level: str) -> list[Check]:
    """Check the attacks on an undefended system against each other.

    Args:
        cells: Cells of the run.
        system: Name of the system.
        level: ``raw`` for waveforms, ``input`` for model inputs.
    """
    chosen = [
        cell
        for cell in cells
        if (cell["system"], cell["level"], cell["protocol"]) == (system, level, "unaware")
        and cell["norm"] == "linf"
    ]
    pgd = {c["eps"]: _hits(c) for c in chosen if _is_pgd(c, STEPS)}
    longer = {c["eps"]: _hits(c) for c in chosen if _is_pgd(c, 4 * STEPS)}
    one_step = {c["eps"]: _hits(c) for c in chosen if c["attack"] == ONE_STEP}
    checks = [
        _at(eps, iterated_at_least_one_step(one_step.get(eps), hits)) for eps, hits in pgd.items()
    ]
    checks += [
        _at(eps, more_steps_change_little(pgd.get(eps), hits)) for eps, hits in longer.items()
    ]
    checks.append(grows_with_eps(pgd))
    large = max(pgd, default=0.0)
    enough = large >= LARGE_EPS[level]
    checks.append(reaches_all(pgd[large] if enough else None, large if enough else None))
    for eps in sorted({c["eps"] for c in chosen}):
        here = [c for c in chosen if c["eps"] == eps]
        white = [_hits(c) for c in here if c["white_box"] and _strong(c)]
        black = {c["title"]: _hits(c) for c in here if not c["white_box"]}
        if white and black:
            count = min(len(hits) for hits in white)
            any_white = np.logical_or.reduce([hits[:count] for hits in white])
            checks.append(_at(eps, white_at_least_black(any_white, black)))
    return checks


def check_adaptive(cells: Sequence[CellRow], system: str, level: str) -> dict[str, list[Check]]:
    """Check the attacks by those who know a defence against the attacks by those who do not.

    Whoever knows more can do whatever the others do, so a weaker attack is a broken one.

    Args:
        cells: Cells of the run.
        system: Name of the system.
        level: ``raw`` for waveforms, ``input`` for model inputs.

    Returns:
        The checks by defence, one for each ε.
    """
    ours = [c for c in cells if (c["system"], c["level"], c["norm"]) == (system, level, "linf")]
    # no clip is classified behind a detector
    adaptive = [
        c for c in ours if c["protocol"] == "adaptive" and c["attacked_defence"] != CLEAN_ONLY
    ]
    checks: dict[str, list[Check]] = {}
    for defence, eps in dict.fromkeys((c["attacked_defence"], c["eps"]) for c in adaptive):
        group = [c for c in adaptive if (c["attacked_defence"], c["eps"]) == (defence, eps)]
        knowing = reduce(_either, map(_hits, group))
        others = [c for c in ours if (c["protocol"], c["eps"]) == ("unaware", eps)]
        behind = [(c["title"], _behind(c, defence)) for c in others]
        unaware = [(title, hits) for title, hits in behind if hits is not None]
        check = _at(eps, knowing_at_least_unaware(knowing, unaware))
        every = [check, *(_at(eps, _own_successes(cell)) for cell in group)]
        named = [replace(one, name=f"{one.name}, {defence}") for one in every]
        checks.setdefault(defence, []).extend(named)
    return checks


def _own_successes(cell: CellRow) -> Check:
    """Check that what an attack on a defence is said to fool is its work."""
    stood = _bits(cell["stood"]) if "stood" in cell else None
    count = 0 if stood is None else int((_hits(cell) & stood).sum())
    check = changes_what_it_fools(count, cell.get("unchanged"))
    return replace(check, name=f"{check.name}, {cell['title']}")


def robust_accuracies(
    cells: Sequence[CellRow],
    system: str,
    level: str,
    checks: Sequence[Check],
    *,
    by_defence: Mapping[str, Sequence[Check]] | None = None,
) -> list[dict[str, Any]]:
    """Take the worst case over strong attacks for every defence and ε, or say why there is none.

    Args:
        cells: Cells of the run.
        system: Name of the system.
        level: ``raw`` for waveforms, ``input`` for model inputs.
        checks: Sanity checks of the attacks on this system; a failed one makes numbers invalid.
        by_defence: Sanity checks of the attacks on single defences; a failed one makes the numbers
            of its defence invalid.

    Returns:
        One row per defence and ε: the share of correctly classified clips that stay so under every
        attack (``survive``, None if it cannot be given), the attacks, and the reason (``why``).
    """
    ours = [c for c in cells if c["system"] == system and c["level"] == level]
    ours = [c for c in ours if c["norm"] == "linf" and c["eps"] < LARGE_EPS[level]]
    defences = [NO_DEFENCE]
    defences += [row["defence"] for c in ours for row in c["defences"]]
    rows = []
    for defence in dict.fromkeys(defences):
        asked = [*checks, *(by_defence or {}).get(defence, ())]
        failed = [check.name for check in asked if check.passed is False]
        for eps in sorted({c["eps"] for c in ours}):
            attacks = _against(ours, defence, eps, level)
            count = min((len(hits) for hits in attacks.values()), default=0)
            fooled = {name: hits[:count] for name, hits in attacks.items()}
            row: dict[str, Any] = {
                "system": system,
                "level": level,
                "defence": defence,
                "eps": eps,
                "attacks": sorted(fooled),
                "clips": count,
            }
            try:
                lost = worst_case(fooled, required=REQUIRED)
            except InputError as err:
                rows.append(row | {"survive": None, "survivors": None, "why": str(err)})
                continue
            why = f"failed sanity checks: {', '.join(failed)}" if failed else None
            survivors = "".join("0" if hit else "1" for hit in lost)
            share = None if failed else float((~lost).mean())
            rows.append(row | {"survive": share, "survivors": survivors, "why": why})
    return rows


def _against(cells: Sequence[CellRow], defence: str, eps: float, level: str) -> dict[str, Hits]:
    """Return which clips each attack on a defence fools at one ε, by name of the attack."""
    found: dict[str, Hits] = {}
    for cell in cells:
        if cell["eps"] != eps:
            continue
        if cell["protocol"] == "transfer":
            hits = _behind(cell, defence)
            name = "transfer"
        elif cell["attacked_defence"] == defence:
            hits = _hits(cell)
            name = "black box" if cell["attack"] == _BLACK_BOX[level] else str(cell["attack"])
            if name == "pgd-e2e" and cell["settings"]["restarts"] < 2:
                continue
        else:
            continue
        if hits is not None:
            found[name] = _either(found[name], hits) if name in found else hits
    return found


def _behind(cell: CellRow, defence: str) -> Hits | None:
    """Return which examples of a cell fool the system behind a defence unknown to the attacker."""
    if defence == NO_DEFENCE:
        return _hits(cell)
    rows = [row for row in cell["defences"] if row["defence"] == defence]
    return ~_bits(rows[0]["right"]) if rows else None


def _either(first: Hits, second: Hits) -> Hits:
    count = min(len(first), len(second))
    return first[:count] | second[:count]


def _is_pgd(cell: CellRow, steps: int) -> bool:
    return bool(cell["attack"] == ITERATED and cell["settings"]["steps"] == steps)


def _strong(cell: CellRow) -> bool:
    """Return whether black-box attacks are compared with this white-box attack."""
    return cell["attack"] in ("pgd", "bim", "autoattack")


def _hits(cell: CellRow) -> Hits:
    return _bits(cell["fooled"])


def _bits(text: str) -> Hits:
    return np.array([mark == "1" for mark in text])


def _at(eps: float, check: Check) -> Check:
    return Check(**(asdict(check) | {"name": f"{check.name}, ε {eps:.4g}"}))
