"""Publish a finished training run as a pretrained directory: safetensors, YAML, card, README.md.

    python publish.py RUN_FOLDER ../pretrained/NAME --command "..." --data "..." --limits "..."

Without a run it completes the card: it adds the hashes of ``calibration.safetensors``,
``plda.safetensors`` and ``purifier.safetensors``, and the metrics in ``--results``. README.md is
made from the card each time, and the card of a model that comes with the package is pinned in
``nip_audio/models/shipped.py``.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from nip_audio.core.state import write_atomic
from nip_audio.models.cards import CARD_NAME, card_sha256
from nip_audio.training.publishing import complete, publish

ROOT = Path(__file__).parents[1]
PRETRAINED = ROOT / "pretrained"
SHIPPED = ROOT / "nip_audio" / "models" / "shipped.py"


def main() -> None:
    """Run the command."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("target", type=Path)
    parser.add_argument("--command", help="command of the training run, for the card")
    parser.add_argument("--data", help="training data in words, for the card")
    parser.add_argument(
        "--data_licence", help="its licence; for a corpus that nip-audio does not know by its name"
    )
    parser.add_argument("--limits", help="what the model must not be used for, for the card")
    parser.add_argument("--speakers-of", help="folder of the corpus, of several trained on")
    parser.add_argument("--results", type=Path, help="results of measure_identification.py")
    options = parser.parse_args()
    if options.run is not None:
        if not (options.command and options.data and options.limits):
            parser.error("a run needs --command, --data and --limits, which the card states")
        publish(
            options.run,
            options.target,
            command=options.command,
            data=options.data,
            limits=options.limits,
            data_licence=options.data_licence,
            subset=options.speakers_of,
        )
    metrics = None
    if options.results is not None:
        measured = json.loads(options.results.read_text(encoding="utf-8"))
        (found,) = [m for m in measured["models"] if m["model"] == options.target.name]
        metrics = {"crop_s": measured["crop_s"], "groups": measured["groups"]} | found
    complete(options.target, metrics)
    if options.target.resolve().parent == PRETRAINED:
        pin(PRETRAINED, SHIPPED)


def pin(pretrained: Path, shipped: Path) -> None:
    """Write the hash of every shipped model's card into the module that pins them."""
    lines = [
        f'    "{path.parent.name}": "{card_sha256(json.loads(path.read_text(encoding="utf-8")))}",'
        for path in sorted(pretrained.glob(f"*/{CARD_NAME}"))
    ]
    before = shipped.read_text(encoding="utf-8")
    after = re.sub(r"= \{\n.*?\n\}", "\n".join(["= {", *lines, "}"]), before, flags=re.DOTALL)
    write_atomic(shipped, after.encode(), force=True)


if __name__ == "__main__":
    main()
