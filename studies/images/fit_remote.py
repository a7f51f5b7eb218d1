r"""Fit a purifier for a classifier of images that only returns labels, at a URL.

    python -m studies.images.fit_remote RECIPE.yaml --url URL --images FOLDER \
        --labels labels.txt --out DIRECTORY

The YAML describes the substitute: any recipe for images in this repository that has as many classes
as ``labels.txt`` has lines; images are sent in its size. ``nip_audio.image.remote`` describes the
protocol of the URL. The folder holds benign images like those to purify later. ``--measure`` of
them are kept back and need about five queries each; the remote classifier is asked once about each
other one, at most ``--queries``. ``--answers`` keeps answers, so that no query is repeated.
Afterwards ``nip-audio purify FILE --model DIRECTORY --out FOLDER`` makes images ready to be sent.

The command prints the number of queries, how often the substitute agrees with the remote
classifier, and, for the images kept back, how many of the substitute's attacks fool the remote
classifier and how many of these the purifier recovers. A prediction counts as correct if it is what
the remote classifier returns without an attack.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.errors import ImageError, InputError
from nip_audio.evaluation.config import AttackPlan
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter, pixels_sha256
from nip_audio.image.remote import RemoteClassifier, RemoteSettings
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import MATCHED, MatchedNoise
from nip_audio.training.image_publishing import read_run
from studies._lib.command import command, run, tell
from studies._lib.records import plain
from studies.images.purification import GUIDED
from studies.images.remote import remotely_defended, transferred
from studies.images.remote_substitute import RemotePlan, fit_to_remote


def main() -> None:
    """Read the command line, fit, measure, and print JSON."""
    options = parser().parse_args()
    recipe = read_run(options.recipe, {})
    shape = tuple(recipe.hparams["image_shape"])
    pixels = read_images(options.images, shape)
    kept, asked = pixels[: options.measure], pixels[options.measure :][: options.queries]
    steps, low, high = options.steps, options.eps / 10, options.eps * 1.5
    guided = GuidedSettings(steps=steps, raw_share=0.0, eps_input=(low, min(high, 0.5)))
    plan = RemotePlan(guided=guided, seed=options.seed)
    if len(asked) < 2 * plan.batch:
        raise InputError(
            f"{len(asked)} images are left to learn from, of {len(pixels)} usable ones less "
            f"{options.measure} kept back and at most --queries {options.queries}; expected at "
            f"least {2 * plan.batch}, better thousands: raise --queries, or give more images"
        )
    remote = client(options)
    substitute = fit_to_remote(remote, asked, recipe, plan, options.out, progress=tell)
    found: dict[str, object] = {"fit": substitute.card.data["metrics"], "requests": remote.requests}
    if options.measure:
        found |= measured(remote, substitute, kept, options.eps, options.seed)
    print(json.dumps(plain(found), indent=1))


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    made = command(__doc__, "recipe", needed=("images", "labels", "out"), paths=("answers",))
    made.add_argument("--url", required=True)
    made.add_argument("--queries", type=int, default=2000, help="most images to learn from")
    made.add_argument("--measure", type=int, default=100, help="images kept back; 0 for none")
    made.add_argument("--eps", type=float, default=8 / 255, help="strength of the attacks")
    made.add_argument("--steps", type=int, default=300, help="steps of the purifier's training")
    made.add_argument("--images-a-request", type=int, default=1)
    made.add_argument("--timeout-s", type=float, default=10.0)
    made.add_argument("--token-from", help="environment variable with a bearer token")
    made.add_argument("--seed", type=int, default=0)
    return made


def client(options: argparse.Namespace) -> RemoteClassifier:
    """Return the client of the URL; its token is read from the environment, not from arguments."""
    headers = {}
    if options.token_from:
        token = os.environ.get(options.token_from)
        if not token:
            raise InputError(f"{options.token_from} is not set; set it to the token")
        headers["Authorization"] = f"Bearer {token}"
    labels = options.labels.read_text(encoding="utf-8").split("\n")
    return RemoteClassifier(
        options.url,
        [label.strip() for label in labels if label.strip()],
        settings=RemoteSettings(
            images_per_request=options.images_a_request, timeout_s=options.timeout_s
        ),
        headers=headers,
        kept=options.answers,
    )


def read_images(folder: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read the usable images of a folder, each content once."""
    adapter, found = ImageAdapter(*shape), {}
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for path in sorted(inside):
        try:
            pixels = adapter.load(path).pixels
        except ImageError as err:
            tell(f"left out: {err}")
        else:
            found[pixels_sha256(pixels)] = pixels
    if not found:
        raise InputError(f"no usable image was found in {folder}; check the path")
    # ordered by hash, which is a random order
    return torch.stack([found[key] for key in sorted(found)])


def measured(
    remote: RemoteClassifier, substitute: PretrainedModel, pixels: Tensor, eps: float, seed: int
) -> Mapping[str, object]:
    """Attack the substitute; measure the effect, and the purifier's, on the remote classifier."""
    model = substitute.model
    path = Path(str(substitute.card.purifier_path))
    guided = GuidedNip.load(path, model_id=substitute.model_id)
    noise = MatchedNoise(guided, bounds=model.input_bounds)
    study = remotely_defended(remote, {GUIDED: guided, f"{MATCHED}{GUIDED}": noise}, seed, tell)
    before = remote.queries
    truth = study.predict(pixels, None)
    benign = study.benign(pixels, truth)
    known = model.predict(Batch(pixels)) == truth
    rows = torch.nonzero(known)[:, 0]
    attacks = {
        cell.name: cell
        for name in (("fgsm", "pgd") if len(rows) else ())
        for cell in transferred(
            *(study, model, pixels[rows], rows, truth[rows]),
            AttackPlan(name, level="input", eps=(eps,)),
        )
    }
    spent = remote.queries - before
    return {"benign": benign, "attacks": attacks, "queries_measuring": spent}


if __name__ == "__main__":
    run(main)
