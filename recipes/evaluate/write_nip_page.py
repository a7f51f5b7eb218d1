"""Write docs/nip.md from what two evaluations left.

python write_nip_page.py ../../docs/results/nip.json ../../docs/results/nip_adaptive.json \
    ../../docs/nip.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nip_audio.evaluation.tables import (
    accuracy_table,
    attack_tables,
    defence_table,
    dsr_table,
    header,
)

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Fill the template."""
    unaware, adaptive = (json.loads(Path(p).read_text(encoding="utf-8")) for p in sys.argv[1:3])
    done, missing = len(unaware["cells"]), len(unaware["unfinished"])
    page = (
        (HERE / "nip_template.md")
        .read_text(encoding="utf-8")
        .format(
            header=header(unaware),
            cells=f"{done} of {done + missing}",
            defences="\n".join(
                f"### {system}\n\n{defence_table(unaware, system)}" for system in unaware["systems"]
            ),
            guided="\n".join(
                f"### {system}\n\n{dsr_table(unaware, system, 'guided')}"
                for system in unaware["systems"]
            ),
            accuracy=accuracy_table(adaptive),
            adaptive="\n".join(
                f"### {system}\n\n{attack_tables(adaptive, system)}"
                for system in adaptive["systems"]
            ),
        )
    )
    Path(sys.argv[3]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
