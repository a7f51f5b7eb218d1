"""Write docs/attacks.md from what two evaluations left.

python write_page.py ../../studies/results/attacks.json ../../studies/results/detection.json \
    ../../docs/attacks.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nip_audio.evaluation.tables import (
    accuracy_table,
    attack_tables,
    check_table,
    control_table,
    detector_table,
    header,
    robust_table,
)

HERE = Path(__file__).resolve().parent


def of_all(results: dict[str, Any], table: Any) -> str:
    """One table a system, each under the system's name."""
    return "\n".join(f"### {system}\n\n{table(results, system)}" for system in results["systems"])


def main() -> None:
    """Fill the template."""
    attacks, detection = (json.loads(Path(p).read_text(encoding="utf-8")) for p in sys.argv[1:3])
    done, missing = len(attacks["cells"]), len(attacks["unfinished"])
    page = (
        (HERE / "template.md")
        .read_text(encoding="utf-8")
        .format(
            header=header(attacks),
            cells=f"{done} of {done + missing}",
            accuracy=accuracy_table(attacks),
            attacks=of_all(attacks, attack_tables),
            robust=robust_table(attacks),
            checks=check_table(attacks),
            detection=of_all(
                detection, lambda r, s: attack_tables(r, s) + "\n" + detector_table(r, s)
            ),
            controls=of_all(detection, control_table),
        )
    )
    Path(sys.argv[3]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
