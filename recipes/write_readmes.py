"""Write the README.md of model directories anew from their cards, which stay as they are.

    python write_readmes.py ../pretrained/*

``publish.py`` and the recipes for images write it as well; this is for directories that exist.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nip_audio.models.readme import write_readme

if __name__ == "__main__":
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("directories", type=Path, nargs="+")
    for directory in parser.parse_args().directories:
        print(write_readme(directory))
