"""Screen folders of images: clean images with attacked ones among them, and smaller images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter
from nip_audio.image.datasets import ImageSet
from nip_audio.screening.calibration import Calibration, choose_calibration
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.judge import Judge
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.records import ScreenRecord
from nip_audio.screening.sources import FolderSource
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.command import tell
from studies.images.results import Counted, Mixed, ScreeningResults, Shrunk
from studies.images.setup import Setup
from studies.images.systems import ImageSystem

__all__ = ["screening"]


def screening(setup: Setup) -> None:
    """Screen both kinds of folders."""
    system, rate, fdr = setup.system(), setup.plan["rate"], setup.plan["discoveries"]
    found = ScreeningResults(setup.seed, rate, fdr, mixed(setup, system), shrunk(setup, system))
    setup.keep(found)


def mixed(setup: Setup, system: ImageSystem) -> Mixed:
    """Screen clean images and successful attacks; judge each alone, and by the whole run."""
    plan = image_attack(setup.chosen["attack"])
    ((name, attack),) = attacks_of(plan)
    fooling = system.attacked(plan, attack).fooling
    # attacked images are not among the clean ones
    rest = torch.ones(len(system.test), dtype=torch.bool)
    rest[fooling.rows] = False
    clean = system.test.rows(torch.nonzero(rest)[: setup.chosen["images"], 0])
    folder = setup.out / f"{setup.name}-mixed"
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / "in", "clean", clean, clean.pixels)
    write(folder / "in", "attacked", system.test.rows(fooling.rows), fooling.pixels)
    started = time.process_time()  # processor time, since the machine may be shared
    records = screen(setup, system, folder)
    speed = len(records) / (time.process_time() - started)
    whole = screen(setup, system, folder, fdr=setup.plan["discoveries"])  # measures nothing anew
    return Mixed(name, len(clean), len(fooling), counted(records), counted(whole), speed)


def counted(records: list[ScreenRecord]) -> Counted:
    """Count the flagged images, attacked and clean."""
    accused = [r.id for r in records if any(f.risk == "adversarial" for f in r.findings)]
    attacked = sum("attacked" in name for name in accused)
    return Counted(attacked, len(accused) - attacked)


def shrunk(setup: Setup, system: ImageSystem) -> list[Shrunk]:
    """Screen clean images made smaller; count false positives and images out of domain."""
    _, height, width = system.pretrained.card.image_shape
    plan, folder = setup.chosen["shrunk"], setup.out / f"{setup.name}-shrunk"
    data = system.test.rows(torch.arange(plan["images"]))
    rows = []
    for share in (1.0, *plan["shares"]):
        shutil.rmtree(folder, ignore_errors=True)
        smaller = data.resized(round(share * height), round(share * width))
        write(folder / "in", "shrunk", smaller, smaller.pixels)
        records = screen(setup, system, folder)
        risks = [{finding.risk for finding in record.findings} for record in records]
        flagged = (sum(r in found for found in risks) for r in ("adversarial", "out_of_domain"))
        rows.append(Shrunk(smaller.pixels.shape[-1], len(records), *flagged))
        tell(str(rows[-1]))
    return rows


def screen(
    setup: Setup, system: ImageSystem, folder: Path, *, fdr: float | None = None
) -> list[ScreenRecord]:
    """Screen ``folder/in`` into ``folder/out`` with the model's own calibration."""
    pretrained = system.pretrained
    path = choose_calibration(pretrained, None)
    known = Calibration.load(path, model_id=pretrained.model_id)
    judge = Judge(known, setup.plan["rate"], fdr)
    adapter = ImageAdapter(*pretrained.card.image_shape)
    screener = Screener(pretrained, judge, adapter, setup.seed, LocalEngine(1))
    source = FolderSource(folder / "in", suffixes=IMAGE_SUFFIXES)
    return list(screener.screen(source, folder / "out").results.files())


def write(folder: Path, kind: str, data: ImageSet, pixels: Iterable[Tensor]) -> None:
    """Write PNG files, one sub-folder per class."""
    for number, (image, label) in enumerate(zip(pixels, data.labels.tolist(), strict=True)):
        path = folder / data.classes[label] / f"{kind}-{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        ImageAdapter(*image.shape).save(image, path)
