"""Measure black-box NIP: serve a model as a platform would, and defend it from outside.

NIP is neuron-level inverse perturbation. The served model returns labels over HTTP. Substitutes
learn from its answers, purifiers are fitted to the substitutes, and purified images are sent to the
served model over HTTP. Only attacks, as the worst case, use its weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.errors import InputError
from nip_audio.evaluation.config import AttackPlan
from nip_audio.image.adapter import to_8_bits
from nip_audio.image.datasets import load_images
from nip_audio.image.remote import RemoteClassifier, RemoteSettings
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.training.image_publishing import read_run
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.command import tell
from studies.images.fit_purifier import guided_settings
from studies.images.label_server import LabelServer, serving
from studies.images.purification import GUIDED, Defended, image_defences
from studies.images.remote_substitute import RemotePlan, fit_to_remote
from studies.images.results import DefendedCell, RemoteResults
from studies.images.setup import Setup
from studies.images.systems import AttackedImages, ImageSystem, attack_images

__all__ = ["remote", "remotely_defended", "transferred"]

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
OWN = "guided NIP of the served model itself"
_BATCH = 100


def remotely_defended(
    answer: Callable[[Batch], Tensor],
    purifiers: Mapping[str, Purifier],
    seed: int,
    progress: Callable[[str], None] = lambda what: None,
) -> Defended:
    """Put purifiers in front of a remote classifier.

    Their output is rounded to 8 bits, as it would be sent.

    Args:
        answer: Function that returns the classes of a batch, (B,), like ``RemoteClassifier``.
        purifiers: Purifiers by name.
        seed: Seed of their random draws and of the bootstrap.
        progress: Called with a description of each step.

    Raises:
        InputError: If a purifier also has a part before it, which cannot be applied here.
    """
    for name, purifier in purifiers.items():
        if purifier.before is not None:
            raise InputError(
                f"{name} has a part before it, which cannot be applied here; leave it out"
            )

    def predict(pixels: Tensor, defence: Defence | None) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(seed, "defence"))
        answers = []
        for part in torch.split(pixels, _BATCH):
            batch = Batch(part)
            if isinstance(defence, Purifier):
                with torch.no_grad():
                    batch = Batch(to_8_bits(defence.purify(batch, generator=generator).x))
            answers.append(answer(batch))
        return torch.cat(answers)

    return Defended(predict, purifiers, seed, progress)


def sent(study: Defended, pixels: Tensor, rows: Tensor, truth: Tensor) -> AttackedImages:
    """Send attacked images to the remote classifier, and mark those that fool it."""
    return AttackedImages(pixels, rows, study.predict(pixels, None) != truth, None)


def transferred(
    study: Defended,
    substitute: InstrumentedModel,
    pixels: Tensor,
    rows: Tensor,
    truth: Tensor,
    plan: AttackPlan,
) -> list[DefendedCell]:
    """Attack a substitute on images (n, C, H, W), and send the results to the remote classifier.

    Args:
        study: Purifiers in front of the remote classifier.
        substitute: Model that the attacker knows.
        pixels: Images to attack.
        rows: (n,) their indices, for the intervals.
        truth: (n,) their classes.
        plan: Attack with its strengths.
    """
    cells = []
    for title, attack in attacks_of(plan):
        study.progress(f"transferred, {title}")
        made = attack_images(
            substitute,
            pixels,
            truth,
            attack,
            batch=_BATCH,
            generator=partial(_seeded, study.seed, attack.name),
        )
        cells.append(study.saved(title, attack, sent(study, made, rows, truth), truth))
    return cells


def _seeded(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def remote(setup: Setup) -> None:
    """Serve the model, and measure the substitutes of the plan."""
    # the server is on this machine, so no proxy is used for it
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    system = setup.system(setup.chosen["served"])
    card = system.pretrained.card
    names = [setup.substitute] if setup.substitute else list(setup.chosen["substitutes"])
    with serving(LabelServer(system.model, card.labels, card.image_shape)) as server:
        for name in names:
            tell(f"substitute {name}")
            client = RemoteClassifier(
                server.url, card.labels, settings=RemoteSettings(images_per_request=50)
            )
            setup.keep(measured(setup, system, client, name), name)


def measured(
    setup: Setup, system: ImageSystem, client: RemoteClassifier, name: str
) -> RemoteResults:
    """Fit a substitute and its purifier, and measure them in front of the served model."""
    chosen, card, test, seed = setup.chosen, system.pretrained.card, system.test, setup.seed
    one = chosen["substitutes"][name]
    known = load_images(
        chosen["data"],
        chosen["role"],
        folder=setup.data_folder,
        seed=int(card.data["training"]["split_seed"]),
    )
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    pixels = known.rows(order[: one["queries"]]).resized(*card.image_shape[1:]).pixels
    folder = setup.out / "substitutes" / name
    shutil.rmtree(folder, ignore_errors=True)
    plan = RemotePlan(**chosen["fit"], guided=guided_settings(chosen["guided"]), seed=seed)
    run = read_run(RECIPES / one["recipe"], {})
    fitted = fit_to_remote(client, pixels, run, plan, folder, progress=tell)
    spent, requests = client.queries, client.requests
    study = remotely_defended(client, purifiers(setup, system, folder, pixels), seed, tell)
    looked = test.pixels[: chosen["agreement"]]
    truth = test.labels[: len(looked)]
    answers = study.predict(looked, None)
    own = torch.cat([fitted.model.predict(Batch(part)) for part in torch.split(looked, _BATCH)])
    count = chosen["benign"]
    benign = study.benign(test.pixels[:count], test.labels[:count])
    white_box, black_box = [], list[DefendedCell]()
    for planned in map(image_attack, chosen["attacks"]):
        for title, attack in attacks_of(planned):
            tell(f"white box, {title}")
            made = system.attacked(planned, attack)
            classes = test.labels[made.rows]
            fooling = sent(study, made.pixels, made.rows, classes)
            white_box.append(study.saved(title, attack, fooling, classes))
    both = torch.nonzero((own == answers) & (answers == truth))[:, 0]
    for planned in map(image_attack, chosen["transferred"]):
        rows = both[: planned.items]
        black_box += transferred(
            study, fitted.model, test.pixels[rows], rows, test.labels[rows], planned
        )
    return RemoteResults(
        served=card.name,
        seed=seed,
        recipe=one["recipe"],
        network=fitted.card.data["architecture"],
        queries=spent,
        requests=requests,
        agreement_held_out=fitted.card.data["metrics"]["agreement"],
        agreement=_share(own == answers),
        agreement_images=len(looked),
        substitute_right=_share(own == truth),
        remote_right=_share(answers == truth),
        benign=benign,
        white_box=white_box,
        transferred=black_box,
        queries_measuring=client.queries - spent,
    )


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())


def purifiers(
    setup: Setup, system: ImageSystem, folder: Path, pixels: Tensor
) -> dict[str, Purifier]:
    """Return the substitute's purifiers and, for comparison, the served model's own."""
    fitted = setup.system(folder)
    card = fitted.pretrained.card
    made: dict[str, Any] = image_defences(
        fitted,
        pixels,
        guided=GuidedNip.load(Path(str(card.purifier_path)), model_id=card.model_id),
        layer=card.default_taps[-1],
        candidates=setup.plan["candidates"],
        seed=setup.seed,
    )
    found = {name: one for name, one in made.items() if isinstance(one, Purifier)}
    own = setup.guided(system)
    if own is not None:
        found[OWN] = own
    # the substitute's guided NIP first
    return {GUIDED: found.pop(GUIDED), **found}
