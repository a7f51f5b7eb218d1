r"""Measure NCCR detection on the attacks of an evaluation, and write one JSON per system.

    nip-audio evaluate nccr.yaml --data-root LibriSpeech --data-split split.csv --out evaluation
    python -m studies.nccr.measure studies/nccr/nccr.yaml --data-root LibriSpeech \
        --data-split split.csv --out evaluation \
        --system audionet --results studies/results/nccr_audionet.json

The first command makes the attacks. The second makes the defender's own attacks, measures all of
them and keeps everything in ``--out``, where an interrupted run continues.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from nip_audio import __version__
from nip_audio.audio.corpus import ROLES
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.meh_fest import MehFest
from nip_audio.audio.modality import DETECTION_NOISES
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.state import file_sha256, require_new
from nip_audio.detectors.nccr_measure import NccrMeasure
from nip_audio.errors import InputError
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.config import AttackPlan, EvaluationConfig
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.runner import Runner
from nip_audio.evaluation.systems import (
    EvaluatedSystem,
    Item,
    build_system,
    items_of,
    role_recordings,
)
from studies._lib.command import evaluation_command, evaluation_of, run, tell, write_results
from studies.nccr.comparison import Items
from studies.nccr.detection_study import Counts, DetectionStudy, StudiedCell
from studies.nccr.detection_study import items_of as clips_of
from studies.nccr.results import DetectionCell

OWN = {
    "FGSM": (AttackPlan("fgsm", eps=(0.0005, 0.002, 0.01), items=150, batch=50),),
    "PGD": (AttackPlan("pgd", eps=(0.0002, 0.0005, 0.002, 0.01), items=150, batch=50),),
    "DeepFool": (AttackPlan("deepfool", items=60, batch=50),),
}
"""Attacks that the defender makes on the ``calibrate`` role. The paper also has JSMA, which changes
one value at a time and is therefore used on spectrograms only."""

ADAPTIVE = AttackPlan(
    "pgd-e2e",
    eps=(0.0005, 0.002),
    items=30,
    batch=10,
    settings={"steps": 20, "restarts": 1},
    protocol="adaptive",
)

AGAINST = (("fgsm", 0.002, None), ("pgd", 0.002, 10), ("cw", None, 100), ("fakebob", 0.002, None))
"""The paper's four attacks, which all baselines judge too: name, ε, and steps if relevant."""

LEAST_GROUP = 50
"""Smallest number of clean clips for which a group has a rate of its own."""


def main() -> None:
    """Run the study as the command line says."""
    parser = evaluation_command(__doc__, "out", "results")
    parser.add_argument("--system", required=True, help="name of a system in the configuration")
    parser.add_argument("--adaptive", action="store_true", help="attack the detectors too")
    options = parser.parse_args()
    require_new(options.results, force=True)
    config = evaluation_of(options)
    plans = [plan for plan in config.systems if plan.name == options.system]
    if not plans:
        names = ", ".join(plan.name for plan in config.systems)
        raise InputError(f"--system is {options.system}, expected one of {names}")
    config = replace(config, systems=(plans[0],), detect=0)
    system = build_system(plans[0], config)
    measure = NccrMeasure(NccrConfig(system.pretrained.card.default_taps, DETECTION_NOISES, 1))
    study = DetectionStudy(
        system=system,
        bank=RowBank(system, options.out / "rows", config.seed),
        measure=measure,
        quiet=MehFest(sample_rate_hz=system.pretrained.card.sample_rate_hz),
        own=OWN,
        out=options.out / "own",
        counts=Counts(),
        seed=config.seed,
        progress=tell,
    )
    cells = _cells(config, system, options.out)
    results = study.results(cells, _clean_groups(config, system))
    about = {
        "system": system.name,
        "model": system.plan.model,
        "model_id": system.pretrained.model_id,
        "crop_s": system.plan.crop_s,
        "task": "CSI-E" if system.plan.enrol else "CSI-NE",
        "nccr": measure.config.to_json(),
        "seed": config.seed,
        "split_sha256": file_sha256(config.split),
        "nip_audio": __version__,
        "scikit-learn": version("scikit-learn"),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    adaptive = study.adaptive(ADAPTIVE) if options.adaptive else ()
    results = replace(results, adaptive=adaptive, about=about)
    write_results(options.results, results)


def _cells(config: EvaluationConfig, system: EvaluatedSystem, out: Path) -> list[StudiedCell]:
    """Return the finished waveform attacks on the system; baselines judge the paper's four."""
    bench = Bench.build(system, config, out / "evidence")
    runner = Runner(config, out, only_finished=True)
    cells = []
    for _, cell, examples in runner.sets([bench], lambda *progress: None):
        if examples is None or examples.level != "raw":
            tell(f"left out {cell.name}: not finished, or not on waveforms")
            continue
        described = cell.describe()
        settings = described["settings"]
        steps = settings.get("steps") if described["attack"] in ("pgd", "cw") else None
        against = (described["attack"], described["eps"], steps) in AGAINST
        name = f"{described['title']} {described['eps'] or 'smallest'}"
        row = DetectionCell(
            name=name,
            attempts=len(examples.examples),
            examples=0,
            settings=settings,
            attack=described["attack"],
            eps=described["eps"],
        )
        cells.append(StudiedCell(row, examples, against))
    return cells


def _clean_groups(config: EvaluationConfig, system: EvaluatedSystem) -> dict[str, Items]:
    """Group clean clips by how similar they are to the clips that set the thresholds.

    The groups are known speakers in chapters of ``calibrate``, known speakers in other chapters,
    and unknown speakers: all clips of the other subset, of any role, that the model has not seen.
    """
    calibrated = {_chapter(item) for item in system.calibrate}
    near = [item for item in system.items if _chapter(item) in calibrated]
    far = [item for item in system.items if _chapter(item) not in calibrated]
    other = "test-clean" if system.plan.subset == "train-clean-100" else "train-clean-100"
    settings = ReadSettings(system.pretrained.card.sample_rate_hz, min_duration_s=0.2)
    recordings = [r for role in ROLES for r in role_recordings(config, other, role)]
    seen = system.pretrained.card.seen
    strangers = [
        item
        for item in items_of(recordings, settings, system.plan.crop_s)
        if item.content_sha256 not in seen
    ]
    groups = {"strangers": clips_of(strangers)}
    if min(len(near), len(far)) >= LEAST_GROUP:
        own = {"own voices, chapters of calibrate": near, "own voices, others": far}
        groups = {name: clips_of(part) for name, part in own.items()} | groups
    return groups


def _chapter(item: Item) -> str:
    """Return LibriSpeech's chapter of a clip named SPEAKER_SPEAKER-CHAPTER-UTTERANCE_…."""
    return item.id.split("_")[1].rsplit("-", 1)[0]


if __name__ == "__main__":
    run(main)
