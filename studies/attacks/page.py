"""Write docs/results/attacks.md: python -m studies.attacks.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nip_audio.evaluation.tables import (
    NOT_PUBLISHED,
    accuracy_table,
    attack_tables,
    check_table,
    control_table,
    detector_table,
    header,
    robust_table,
)
from studies._lib.pages import Page


def of_all(results: Mapping[str, Any], table: Any) -> str:
    """One table a system, each under the system's name."""
    return "\n".join(f"### {system}\n\n{table(results, system)}" for system in results["systems"])


def parts(results: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    attacks, detection = results["attacks"], results["detection"]
    done, missing = len(attacks["cells"]), len(attacks["unfinished"])
    return {
        "header": header(attacks),
        "cells": f"{done} of {done + missing}",
        "accuracy": accuracy_table(attacks),
        "attacks": of_all(attacks, attack_tables),
        "robust": robust_table(attacks),
        "checks": check_table(attacks),
        "detection": of_all(
            detection, lambda r, s: attack_tables(r, s) + "\n" + detector_table(r, s)
        ),
        "not_published": NOT_PUBLISHED,
        "controls": of_all(detection, control_table),
    }


PAGE = Page("attacks", __file__, ("attacks", "detection"), parts)


if __name__ == "__main__":
    PAGE.run()
