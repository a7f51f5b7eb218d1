r"""Train a guided purifier for a model of images.

    python -m studies.images.fit_purifier studies/images/nip.yaml --data-folder FOLDER \
        --system mnist --out FILE

A run that was interrupted continues when it is started again.
"""

from __future__ import annotations

from pathlib import Path

import torch

from nip_audio.core.adapter import Batch
from nip_audio.image.datasets import load_images
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.guided_training import GuidedSettings, train_guided
from nip_audio.training.image_training import ImageTraining, augmented
from studies.images.options import plan_parser, read_plan


def main() -> None:
    """Read the command line, train, and write the purifier."""
    parser = plan_parser(__doc__)
    parser.add_argument("--system", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    plan = read_plan(options)["systems"][options.system]
    pretrained = load_pretrained(plan["model"])
    channels, rows, columns = pretrained.card.image_shape
    train = load_images(plan["data"], "train", folder=options.data_folder).resized(rows, columns)
    values = dict(plan["guided"])
    batch = values.pop("batch")
    augment = values.pop("augment", None)
    changes = None if augment is None else ImageTraining.from_hparams(augment)
    values["eps_input"] = tuple(fraction(v) for v in values["eps_input"])
    values["families"] = tuple(values["families"])
    settings = GuidedSettings(**values)

    def draw(generator: torch.Generator) -> Batch:
        pixels = train.pixels[torch.randint(len(train), (batch,), generator=generator)]
        return Batch(pixels if changes is None else augmented(pixels, changes, generator))

    def report(step: int, loss: float, kept: float) -> None:
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}, kept {kept:.3f}", flush=True)

    purifier = train_guided(
        pretrained.model,
        draw,
        settings,
        layers=pretrained.card.default_taps,
        model_id=pretrained.model_id,
        channels=channels,
        checkpoint=options.out.with_suffix(".partial"),
        progress=report,
    )
    purifier.save(options.out, model_id=pretrained.model_id)


def fraction(value: object) -> float:
    """Read a number or a fraction such as 8/255."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


if __name__ == "__main__":
    main()
