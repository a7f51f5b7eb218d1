"""Write the calibration of a shipped model of images from its calibrate role.

    python -m studies.images.calibrate pretrained/lenet5-mnist mnist --data-folder FOLDER

The images are first written as PNG files, so that the files measured are those that
``nip-audio calibrate`` would measure.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from nip_audio.audio.manifest import walk_files
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter
from nip_audio.image.datasets import load_images
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.measure import default_config
from nip_audio.training.publishing import complete


def main() -> None:
    """Read the command line, write the calibration, and add its hash to the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--data-folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    channels, rows, columns = pretrained.card.image_shape
    seed = int(pretrained.card.data["training"]["split_seed"])
    data = load_images(options.data, "calibrate", folder=options.data_folder, seed=seed)
    pixels = data.resized(rows, columns).pixels[: options.count]
    adapter = ImageAdapter(channels, rows, columns)
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(pixels):
            adapter.save(picture, Path(folder) / f"{number:04d}.png")
        made = calibrate(
            pretrained,
            walk_files(Path(folder), IMAGE_SUFFIXES),
            adapter,
            default_config(pretrained, draws=4),
        )
    made.save(options.model / "calibration.safetensors", force=True)
    complete(options.model)


if __name__ == "__main__":
    main()
