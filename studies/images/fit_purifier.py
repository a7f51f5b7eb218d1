r"""Train a guided purifier for a model of images.

    python -m studies.images.fit_purifier studies/images/nip.yaml --data-folder FOLDER \
        --system mnist --out FILE

A run that was interrupted continues when it is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purifiers.guided_training import GuidedSettings, train_guided
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.training.image_training import ImageTraining, augmented
from studies._lib.attacks import fraction
from studies._lib.command import command, read_yaml, run, tell
from studies.images.systems import load_role

__all__ = ["fit_guided", "guided_settings"]


def guided_settings(values: Mapping[str, Any]) -> GuidedSettings:
    """Read the settings of a training; strengths ε may be fractions."""
    read: dict[str, Any] = {"eps_input": lambda eps: tuple(map(fraction, eps)), "families": tuple}
    return GuidedSettings(**{k: read[k](v) if k in read else v for k, v in values.items()})


def fit_guided(
    pretrained: PretrainedModel,
    pixels: Tensor,
    settings: GuidedSettings,
    *,
    batch: int,
    augment: ImageTraining | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[str], None],
) -> GuidedNip:
    """Train a guided purifier.

    Args:
        pretrained: Model to defend.
        pixels: (n, C, H, W) benign images.
        settings: Settings of the training.
        batch: Images per step.
        augment: Changes of the images; None for none.
        checkpoint: File from which an interrupted run continues.
        progress: Called with a description of every fiftieth step.
    """

    def draw(generator: torch.Generator) -> Batch:
        drawn = pixels[torch.randint(len(pixels), (batch,), generator=generator)]
        return Batch(drawn if augment is None else augmented(drawn, augment, generator))

    def report(step: int, loss: float, kept: float) -> None:
        if step % 50 == 0:
            progress(f"purifier, step {step}: loss {loss:.3f}, kept {kept:.3f}")

    return train_guided(
        pretrained.model,
        draw,
        settings,
        layers=pretrained.card.default_taps,
        model_id=pretrained.model_id,
        channels=pixels.shape[1],
        checkpoint=checkpoint,
        progress=report,
    )


def main() -> None:
    """Read the command line, train, and write the purifier."""
    parser = command(__doc__, "plan", needed=("out",), paths=("data-folder",))
    parser.add_argument("--system", required=True)
    options = parser.parse_args()
    plan = read_yaml(options.plan)["systems"][options.system]
    pretrained = load_pretrained(plan["model"])
    values = dict(plan["guided"])
    batch, augment = values.pop("batch"), values.pop("augment", None)
    purifier = fit_guided(
        pretrained,
        load_role(pretrained.card, plan["data"], "train", options.data_folder).pixels,
        guided_settings(values),
        batch=batch,
        augment=None if augment is None else ImageTraining.from_hparams(augment),
        checkpoint=options.out.with_suffix(".partial"),
        progress=tell,
    )
    purifier.save(options.out, model_id=pretrained.model_id)


if __name__ == "__main__":
    run(main)
