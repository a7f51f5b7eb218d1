"""List an evaluation's adversarial sets without their audio, one line per set.

    python -m studies.attacks.collect_sets evaluation/ studies/results/attack_sets.jsonl

The first line of a system lists its clips; each set attacks the first n of them that the system
classifies correctly. With the configuration, the seed and the models' hashes each set can be made
again, and the hashes of the files show whether it is the same. Systems that the evaluation lacks
keep their lines in a target that exists.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

HASH_LENGTH = 12


def others(target: Path, systems: Container[str]) -> list[dict[str, Any]]:
    """Return the lines of a target that are of none of these systems."""
    if not target.exists():
        return []
    kept, system = [], ""
    for line in map(json.loads, target.read_text(encoding="utf-8").splitlines()):
        if "clips" in line:
            system = line["system"]
        if system not in systems:
            kept.append(line)
    return kept


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    results = json.loads((options.evaluation / "results.json").read_text(encoding="utf-8"))
    lines = others(options.target, results["systems"])
    for system in results["systems"]:
        cells = [cell for cell in results["cells"] if cell["system"] == system]
        sets = [options.evaluation / "sets" / cell["set"] for cell in cells]
        recipes = [json.loads((folder / "set.json").read_text()) for folder in sets]
        longest = max((recipe["items"] for recipe in recipes), key=len)
        lines.append({"system": system, "clips": longest})
        for folder, recipe in zip(sets, recipes, strict=True):
            if recipe["items"] != longest[: len(recipe["items"])]:
                raise SystemExit(f"{folder} attacks other clips than the system's longest set")
            by_id = {}
            for line in (folder / "manifest.jsonl").read_text().splitlines():
                example = json.loads(line)
                by_id[example["id"]] = example
            examples = [by_id[item] for item in recipe["items"]]
            made = {k: v for k, v in recipe.items() if k not in ("items", "contents")}
            lines.append(
                {
                    "set": folder.name,
                    **made,
                    "examples": len(examples),
                    "fooled": "".join("1" if e["fooled"] else "0" for e in examples),
                    "sha256": [e["sha256"][:HASH_LENGTH] for e in examples],
                }
            )
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    options.target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
