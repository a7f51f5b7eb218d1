"""Turn a finished training run into a pretrained directory: safetensors, YAML, card, hashes.

    python publish.py RUN_FOLDER ../pretrained/NAME --command "..." --data "..."

Without a run it adds to the card what has been made since: the hash of ``calibration.safetensors``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nip_audio.integrations.publishing import complete, publish


def main() -> None:
    """Read the command line."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("target", type=Path)
    parser.add_argument("--command", default="", help="how the run was made, for the card")
    parser.add_argument("--data", default="", help="what it was trained on, in words")
    parser.add_argument("--limits", default="", help="what it must not be used for, in words")
    options = parser.parse_args()
    if options.run is not None:
        publish(
            options.run,
            options.target,
            command=options.command,
            data=options.data,
            limits=options.limits,
        )
    complete(options.target)


if __name__ == "__main__":
    main()
