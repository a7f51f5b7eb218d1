"""What the command line and the plan say of one study of one system of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nip_audio.purifiers.nip_guided import GuidedNip
from studies._lib.command import add_result, read_yaml
from studies.images.systems import ImageSystem, image_system, load_role

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """A study of one system.

    Attributes:
        study: Name of the study.
        name: Name of the system in the plan.
        plan: Whole plan.
        data_folder: Folder of the data sets.
        out: Folder where attacked images and measurements are kept.
        results: JSON file that results are added to.
        purifier: Guided NIP to use instead of the model's own.
        models: Folder of the models of the study of robustness.
        substitute: The only substitute to fit; None for all.
    """

    study: str
    name: str
    plan: Mapping[str, Any]
    data_folder: Path | None
    out: Path
    results: Path
    purifier: Path | None = None
    models: Path | None = None
    substitute: str | None = None

    @classmethod
    def read(cls, plan: str, **options: Any) -> Setup:
        """Read the plan of a command line."""
        return cls(plan=read_yaml(Path(plan)), **options)

    @property
    def chosen(self) -> Mapping[str, Any]:
        """The plan's part about the system."""
        part: Mapping[str, Any] = self.plan["systems"][self.name]
        return part

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return int(self.plan["seed"])

    def system(self, model: str | Path | None = None) -> ImageSystem:
        """Load the system, or another model of the same data set."""
        return image_system(
            model or self.chosen["model"],
            self.chosen["data"],
            data_folder=self.data_folder,
            folder=self.out / "attacked",
            seed=self.seed,
        )

    def train(self, system: ImageSystem) -> Tensor:
        """Return the pixels of the training role."""
        card = system.pretrained.card
        return load_role(card, self.chosen["data"], "train", self.data_folder).pixels

    def guided(self, system: ImageSystem) -> GuidedNip | None:
        """Load the guided NIP that is asked for, or the model's own; None if it has none."""
        path = self.purifier or system.pretrained.card.purifier_path
        return None if path is None else GuidedNip.load(path, model_id=system.identity)

    def keep(self, found: object, *below: str) -> None:
        """Add results to the file, which keeps its other results."""
        add_result(self.results, [self.study, self.name, *below], found)
