r"""Screen folders of images: clean images with attacked ones among them, and smaller images.

    python -m studies.images.screening studies/images/screening.yaml --data-folder FOLDER \
        --system mnist --out OUT --results FILE

New results are added to FILE, which keeps its other results.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
from studies.images.options import read_plan, study_parser, tell
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan, ImageSystem, image_system


def main() -> None:
    """Read the command line, screen, and add to the results."""
    options = study_parser(__doc__).parse_args()
    plan = read_plan(options)
    chosen = plan["systems"][options.system]
    system = image_system(
        chosen["model"],
        chosen["data"],
        data_folder=options.data_folder,
        folder=options.out,
        seed=plan["seed"],
    )
    found = {"seed": plan["seed"], "rate": plan["rate"], "discoveries": plan["discoveries"]}
    found["mixed"] = mixed(system, chosen, plan, options.out / f"{options.system}-mixed")
    found["shrunk"] = shrunk(system, chosen, plan, options.out / f"{options.system}-shrunk")
    add_result(options.results, ["screening", options.system], found)


def mixed(
    system: ImageSystem, chosen: dict[str, Any], plan: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Screen clean images and successful attacks; judge each alone, and by the whole run."""
    attacks = ImageAttackPlan.from_json(chosen["attack"])
    ((name, attack),) = attacks.attacks()
    fooling = system.attacked(attacks, attack).fooling
    # attacked images are not among the clean ones
    rest = torch.ones(len(system.test), dtype=torch.bool)
    rest[fooling.rows] = False
    clean = system.test.rows(torch.nonzero(rest)[: chosen["pictures"], 0])
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / "in", "clean", clean, clean.pixels)
    write(folder / "in", "attacked", system.test.rows(fooling.rows), fooling.pixels)
    counts: dict[str, Any] = {"attack": name, "clean": len(clean), "attacked": len(fooling)}
    for key, fdr in (("by_rate", None), ("by_discoveries", plan["discoveries"])):
        started = time.process_time()  # processor time, since the machine may be shared
        records = screen(system, folder, plan, fdr=fdr)
        seconds = time.process_time() - started
        if fdr is None:  # the second run measures nothing
            counts["pictures_a_second"] = len(records) / seconds
        accused = [r.id for r in records if any(f.risk == "adversarial" for f in r.findings)]
        attacked = sum("attacked" in name for name in accused)
        counts[key] = {"attacked": attacked, "clean": len(accused) - attacked}
        tell(f"{key}: {counts[key]}")
    return counts


def shrunk(
    system: ImageSystem, chosen: dict[str, Any], plan: dict[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """Screen clean images made smaller; count false positives and images out of domain."""
    _, height, width = system.pretrained.card.image_shape
    rows = []
    for share in (1.0, *chosen["shrunk"]["shares"]):
        shutil.rmtree(folder, ignore_errors=True)
        data = system.test.rows(torch.arange(chosen["shrunk"]["pictures"]))
        smaller = data.resized(round(share * height), round(share * width))
        write(folder / "in", "shrunk", smaller, smaller.pixels)
        records = screen(system, folder, plan, fdr=None)
        risks = [{finding.risk for finding in record.findings} for record in records]
        row = {
            "side": smaller.pixels.shape[-1],
            "pictures": len(records),
            "adversarial": sum("adversarial" in found for found in risks),
            "out_of_domain": sum("out_of_domain" in found for found in risks),
        }
        rows.append(row)
        tell(str(row))
    return rows


def screen(
    system: ImageSystem, folder: Path, plan: dict[str, Any], *, fdr: float | None
) -> list[ScreenRecord]:
    """Screen ``folder/in`` into ``folder/out`` with the model's own calibration."""
    pretrained = system.pretrained
    path = choose_calibration(pretrained, None)
    judge = Judge(Calibration.load(path, model_id=pretrained.model_id), plan["rate"], fdr)
    adapter = ImageAdapter(*pretrained.card.image_shape)
    screener = Screener(pretrained, judge, adapter, plan["seed"], LocalEngine(1))
    source = FolderSource(folder / "in", suffixes=IMAGE_SUFFIXES)
    return list(screener.screen(source, folder / "out").results.files())


def write(folder: Path, kind: str, data: ImageSet, pixels: Iterable[Tensor]) -> None:
    """Write PNG files, one sub-folder per class."""
    for number, (picture, label) in enumerate(zip(pixels, data.labels.tolist(), strict=True)):
        path = folder / data.classes[label] / f"{kind}-{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        ImageAdapter(*picture.shape).save(picture, path)


if __name__ == "__main__":
    main()
