"""Write docs/nip.md from what two evaluations left.

python write_nip_page.py ../../docs/results/nip.json ../../docs/results/nip_adaptive.json \
    ../../docs/nip.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from write_page import of_all

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
            defences=of_all(unaware, defence_table),
            guided=of_all(unaware, lambda r, s: dsr_table(r, s, "guided")),
            accuracy=accuracy_table(adaptive),
            adaptive=of_all(adaptive, attack_tables),
        )
    )
    Path(sys.argv[3]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
