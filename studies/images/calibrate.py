"""Write the calibration of a shipped model of images from its calibrate role.

    python -m studies.images.calibrate pretrained/lenet5-mnist mnist --data-folder FOLDER

The images are first written as PNG files, so that the files measured are those that
``nip-audio calibrate`` would measure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nip_audio.audio.manifest import walk_files
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.measure import default_config
from nip_audio.training.publishing import complete
from studies._lib.command import command, run
from studies.images.systems import load_role


def main() -> None:
    """Read the command line, write the calibration, and add its hash to the card."""
    parser = command(__doc__, "model", paths=("data-folder",))
    parser.add_argument("data")
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    data = load_role(pretrained.card, options.data, "calibrate", options.data_folder)
    adapter = ImageAdapter(*pretrained.card.image_shape)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(data.pixels[: options.count]):
            adapter.save(image, Path(folder) / f"{number:04d}.png")
        made = calibrate(
            pretrained,
            walk_files(Path(folder), IMAGE_SUFFIXES),
            adapter,
            default_config(pretrained, draws=4),
        )
    made.save(options.model / "calibration.safetensors", force=True)
    complete(options.model)


if __name__ == "__main__":
    run(main)
