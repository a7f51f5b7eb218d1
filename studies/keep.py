"""Keep the results of an evaluation of some systems beside those of the others.

    python -m studies.keep evaluation/results.json studies/results/NAME.json

A kept file that does not exist yet is a copy. Otherwise each system of the evaluation replaces the
one of its name, rows and checks included, and the others stay as they were measured: their entries
say with which versions, where that is no longer what the file says of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nip_audio.errors import InputError
from studies._lib.command import command, run, tell, write_results

SAME = ("title", "seed", "split_sha256")
"""What both must agree on, or they are not parts of one evaluation."""

PROVENANCE = ("nip_audio", "versions", "machine", "threads")
"""What may differ from system to system."""

ROWS = ("cells", "unfinished", "controls", "checks", "robust")
"""Lists whose rows name their system."""


def merged(kept: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return kept results in which the systems of new ones are replaced.

    Raises:
        InputError: If they are of different evaluations.
    """
    for key in SAME:
        if kept[key] != new[key]:
            raise InputError(
                f"{key} is {kept[key]!r} in the kept results and {new[key]!r} in the new ones; "
                "they are of different evaluations, keep them in different files"
            )
    systems = dict(kept["systems"])
    before = {key: kept[key] for key in PROVENANCE}
    if before != {key: new[key] for key in PROVENANCE}:
        systems = {name: before | system for name, system in systems.items()}
    systems |= new["systems"]
    rows = {
        key: [
            row
            for name in systems
            for row in (new if name in new["systems"] else kept)[key]
            if row["system"] == name
        ]
        for key in ROWS
    }
    return {**new, "systems": systems, **rows}


def main() -> None:
    """Merge two files into the second."""
    options = command(__doc__, "results", "kept").parse_args()
    found = json.loads(options.results.read_text(encoding="utf-8"))
    if options.kept.exists():
        found = merged(json.loads(options.kept.read_text(encoding="utf-8")), found)
    write_results(options.kept, found)
    tell(f"{options.kept}: {', '.join(found['systems'])}")


if __name__ == "__main__":
    run(main)
