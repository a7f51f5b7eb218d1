r"""Measure black-box NIP: serve a model as a platform would, and defend it from outside.

    python -m studies.images.remote studies/images/remote.yaml --data-folder FOLDER \
        --system mnist --out OUT --results FILE

NIP is neuron-level inverse perturbation. The served model returns labels over HTTP. Substitutes
learn from its answers, purifiers are fitted to the substitutes, and purified images are sent to the
served model over HTTP. Only attacks, as the worst case, use its weights. New results are added to
FILE, which keeps its other results.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from nip_audio.core.adapter import Batch
from nip_audio.image.datasets import load_images
from nip_audio.image.remote import RemoteClassifier, RemoteSettings
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.training.image_publishing import read_run
from studies.images.fit_purifier import fraction
from studies.images.label_server import LabelServer, serving
from studies.images.options import read_plan, study_parser, tell
from studies.images.purification import GUIDED, image_defences
from studies.images.remote_defence import RemoteStudy, transferred
from studies.images.remote_substitute import RemotePlan, fit_to_remote
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan, ImageSystem, image_system

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
OWN = "guided NIP of the served model itself"


def main() -> None:
    """Read the command line, measure, and add to the results."""
    parser = study_parser(__doc__)
    parser.add_argument("--substitute", help="one of the plan's names; default: all of them")
    options = parser.parse_args()
    plan = read_plan(options)
    chosen, seed = plan["systems"][options.system], plan["seed"]
    # the server is on this machine, so no proxy is used for it
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    system = image_system(
        *(chosen["served"], chosen["data"]),
        data_folder=options.data_folder,
        folder=options.out / "attacked",
        seed=seed,
    )
    card = system.pretrained.card
    names = [options.substitute] if options.substitute else list(chosen["substitutes"])
    with serving(LabelServer(system.model, card.labels, card.image_shape)) as server:
        for name in names:
            tell(f"substitute {name}")
            study = Study(system, server, chosen, name, plan["candidates"], options)
            found = {"served": card.name, "seed": seed, **study.result()}
            add_result(options.results, ["remote", options.system, name], found)


class Study:
    """One substitute, its attacks, and its purifiers in front of the served model."""

    def __init__(
        self,
        system: ImageSystem,
        server: LabelServer,
        chosen: dict[str, Any],
        name: str,
        candidates: int,
        options: argparse.Namespace,
    ) -> None:
        """Prepare the substitute's recipe and the served model."""
        self.system, self.chosen, self.options = system, chosen, options
        self.one = one = chosen["substitutes"][name]
        self.candidates = candidates
        self.remote = RemoteClassifier(
            server.url,
            system.pretrained.card.labels,
            settings=RemoteSettings(images_per_request=50),
        )
        self.folder = options.out / "substitutes" / name
        _, rows, columns = system.pretrained.card.image_shape
        split = int(system.pretrained.card.data["training"]["split_seed"])
        known = load_images(chosen["data"], chosen["role"], folder=options.data_folder, seed=split)
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(system.seed))
        self.pixels = known.rows(order[: one["queries"]]).resized(rows, columns).pixels

    def result(self) -> dict[str, Any]:
        """Fit the substitute and its purifiers, and measure them."""
        values = dict(self.chosen["guided"])
        values["eps_input"] = tuple(fraction(v) for v in values["eps_input"])
        guided = GuidedSettings(**values)
        plan = RemotePlan(**self.chosen["fit"], guided=guided, seed=self.system.seed)
        run = read_run(RECIPES / self.one["recipe"], {})
        shutil.rmtree(self.folder, ignore_errors=True)
        fitted = fit_to_remote(self.remote, self.pixels, run, plan, self.folder, progress=tell)
        spent, requests = self.remote.queries, self.remote.requests
        test, seed = self.system.test, self.system.seed
        looked = test.pixels[: self.chosen["agreement"]]
        study = RemoteStudy(self.remote, self.purifiers(), seed, tell)
        answers = study.named(looked)
        own = torch.cat([fitted.model.predict(Batch(part)) for part in looked.split(100)])
        count = self.chosen["benign"]
        found: dict[str, Any] = {
            "recipe": self.one["recipe"],
            "network": fitted.card.data["architecture"],
            "queries": spent,
            "requests": requests,
            "agreement_held_out": fitted.card.data["metrics"]["agreement"],
            "agreement": float((own == answers).float().mean()),
            "agreement_pictures": len(looked),
            "substitute_right": float((own == test.labels[: len(own)]).float().mean()),
            "remote_right": float((answers == test.labels[: len(own)]).float().mean()),
            "benign": study.benign(test.pixels[:count], test.labels[:count]),
            "white_box": [],
            "transferred": [],
        }
        for planned in map(ImageAttackPlan.from_json, self.chosen["attacks"]):
            for name, attack in planned.attacks():
                tell(f"white box, {name}")
                made = self.system.attacked(planned, attack)
                cell = study.saved(made.pixels, made.rows, test.labels[made.rows])
                found["white_box"].append({"name": name, "attack": attack.settings(), **cell})
        both = torch.nonzero((own == answers) & (answers == test.labels[: len(own)]))[:, 0]
        for planned in map(ImageAttackPlan.from_json, self.chosen["transferred"]):
            rows = both[: planned.items]
            truth = test.labels[rows]
            for name, attack in planned.attacks():
                tell(f"transferred, {name}")
                made = transferred(fitted.model, test.pixels[rows], truth, attack, seed=seed)
                cell = study.saved(made, rows, truth)
                found["transferred"].append({"name": name, "attack": attack.settings(), **cell})
        return {**found, "queries_measuring": self.remote.queries - spent}

    def purifiers(self) -> dict[str, Purifier]:
        """Return the substitute's purifiers and, for comparison, the served model's own."""
        fitted = image_system(
            *(self.folder, self.chosen["data"]),
            data_folder=self.options.data_folder,
            folder=self.options.out / "attacked",
            seed=self.system.seed,
        )
        card = load_pretrained(self.folder).card
        path = Path(str(card.purifier_path))
        made = image_defences(
            *(fitted, self.pixels),
            guided=GuidedNip.load(path, model_id=card.model_id),
            layer=card.default_taps[-1],
            candidates=self.candidates,
            seed=self.system.seed,
        )
        found = {name: one for name, one in made.items() if isinstance(one, Purifier)}
        own = self.system.pretrained.card.purifier_path
        if own is not None:
            found[OWN] = GuidedNip.load(own, model_id=self.system.identity)
        # the substitute's guided NIP first
        return {GUIDED: found.pop(GUIDED), **found}


if __name__ == "__main__":
    main()
