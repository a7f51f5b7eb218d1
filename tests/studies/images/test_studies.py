"""The studies on images, tiny: digits, an untrained or hardly trained network, few examples."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from nip_audio.audio.manifest import walk_files
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError, StateError
from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.measured import RowBank
from nip_audio.image.adapter import ImageAdapter, to_8_bits
from nip_audio.image.datasets import load_images
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.guided_training import GuidedSettings, train_guided
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibrating import calibrate
from nip_audio.training.image_training import ImageTraining
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.records import read_record
from studies.backdoors import study as backdoor_study
from studies.backdoors.judging import JudgingPlan
from studies.backdoors.models import NO_TRIGGER, BackdoorCase
from studies.backdoors.poisoning import Clips
from studies.images import backdoors, measure
from studies.images.detection import COMBINE, PUBLISHED, ImageDetection, on_family
from studies.images.purification import GUIDED, ORACLE, DefenceStudy, image_defences
from studies.images.results import ImageResults
from studies.images.spatial import ShippedDetector, moved_at_random
from studies.images.systems import AttackedImages, image_system

RECIPES = Path(__file__).parents[3] / "recipes"
FGSM = image_attack({"attack": "fgsm", "eps": (0.1, 0.3), "items": 40, "batch": 20})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_plans_take_fractions():
    plan = image_attack({"attack": "pgd", "eps": ["8/255", 0.1], "items": 3})
    assert plan.eps == (8 / 255, 0.1)
    assert [name for name, _ in attacks_of(plan)] == ["pgd 0.03137", "pgd 0.1"]


def test_attacked_images_are_of_8_bits_and_made_once(system):
    pytest.importorskip("foolbox")
    (name, attack), *_ = attacks_of(FGSM)
    assert name == "fgsm 0.1"
    made = system.attacked(FGSM, attack)
    levels = made.pixels * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    change = made.pixels - system.test.pixels[made.rows]
    assert float(change.abs().max()) <= 0.1 + 0.5 / 255 + 1e-6
    again = system.attacked(FGSM, attack)
    torch.testing.assert_close(again.pixels, made.pixels)
    assert len(list(system.folder.iterdir())) == 1
    named = system.predict(made.pixels)
    assert torch.equal(made.fooled, named != system.test.labels[made.rows])
    assert len(made.fooling) == int(made.fooled.sum())


def test_other_classes_are_refused(model_folder, tmp_path):
    import numpy as np

    x = np.zeros((4, 28, 28), dtype=np.uint8)
    y = np.zeros(4, dtype=np.int64)
    np.savez(tmp_path / "two.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=["a", "b"])
    with pytest.raises(InputError, match="classes"):
        image_system(model_folder, "two", data_folder=tmp_path, folder=tmp_path, seed=0)


def test_detection_judges_every_attack_by_every_detector(system, tmp_path):
    pytest.importorskip("foolbox")
    noises = (Noise("gaussian", "input", 0.1), Noise("mask", "input", 0.1, 1))
    config = NccrConfig(system.pretrained.card.default_taps, noises, 1)
    study = ImageDetection(
        system,
        RowBank(system, tmp_path / "rows", 1),
        config,
        {"FGSM": [FGSM]},
        attack_step=0.02,
        clean=110,
        baseline_clean=100,
        baseline_examples=4,
        baseline_fit=20,
        rounds=20,
    )
    found = study.results([FGSM])
    scalars = {"NCCR, l2 scalar", "NCCR, l0 scalar"}
    trained = {on_family("FGSM", decision=decision) for decision in (True, False)}
    assert set(found.judges) == {CLEAN_ONLY, COMBINE, PUBLISHED, *trained, *scalars}
    strong = found.cells[1]
    assert strong.name == "fgsm 0.3"
    assert strong.examples >= 10
    assert strong.judges[on_family("FGSM")].auroc.value > 0.7
    assert strong.judges[on_family("FGSM", decision=False)].auroc.value > 0.7
    assert len(found.baselines.judges) == 7 + 4
    assert 0 <= found.false_positives["test images"].judges[COMBINE]["0.05"].value <= 1


def test_nip_saves_nothing_it_cannot_and_keeps_its_count(system):
    pytest.importorskip("foolbox")
    train = load_images("digits", "train").pixels
    guided = train_guided(
        system.model,
        lambda g: Batch(train[torch.randint(len(train), (16,), generator=g)]),
        GuidedSettings(steps=4, width=4, raw_share=0.0, eps_input=(0.05, 0.3)),
        layers=("flatten",),
        model_id=system.identity,
        channels=1,
    )
    defences = image_defences(system, train, guided=guided, layer="flatten", candidates=60, seed=1)
    study = DefenceStudy(system, defences, "flatten", benign=40)
    found = study.results([FGSM])
    assert set(found.benign.behind) == set(defences)
    cell = found.cells[1]
    assert set(cell.dsr) == {*defences, ORACLE}
    assert all(0 <= share.value <= 1 for share in cell.dsr.values())

    plan = image_attack(
        {"attack": "pgd", "eps": [0.3], "items": 40, "batch": 20, "settings": {"steps": 10}}
    )
    ((_, pgd),) = attacks_of(plan)
    (knowing,) = study.adaptive([plan])
    noise = "noise as strong as guided NIP"
    assert set(knowing.still_right) == {"undefended", GUIDED, noise}
    unaware = system.attacked(plan, pgd)
    defended = defend(system.model, guided, generator=seeded())
    saved = float(
        (system.predict(unaware.pixels, defended) == system.test.labels[unaware.rows]).mean(
            dtype=torch.float32
        )
    )
    assert knowing.still_right[GUIDED].value <= saved  # it goes through the purifier


def test_a_set_made_against_one_purifier_is_not_read_for_another(system):
    pytest.importorskip("foolbox")
    plan = image_attack(
        {"attack": "pgd", "eps": [0.2], "items": 20, "batch": 20, "settings": {"steps": 3}}
    )
    made = []
    for weight in (0.0, 0.1):
        net = InverseNet(1, width=4)
        torch.nn.init.constant_(net.out.bias, weight)
        guided = GuidedNip(net.eval().requires_grad_(False), bounds=system.model.input_bounds)
        study = DefenceStudy(system, {GUIDED: guided}, "flatten", benign=40)
        study.adaptive([plan])
        made.append(sorted(system.folder.iterdir()))
    assert len(made[0]) == 2  # undefended, and behind the purifier
    assert len(made[1]) == 3


def test_without_a_purifier_noise_is_matched_to_the_published_nip(system):
    train = load_images("digits", "train").pixels
    found = image_defences(system, train, guided=None, layer="flatten", candidates=60, seed=1)
    assert GUIDED not in found
    assert "noise as strong as NIP, descent" in found


@pytest.fixture
def calibrated(system, tmp_path):
    """The system with a calibration beside its model, as shipped ones have."""
    folder = tmp_path / "clean"
    folder.mkdir()
    for number, image in enumerate(system.calibrate.pixels[:110]):
        ImageAdapter().save(image, folder / f"{number}.png")
    target = tmp_path / "calibration.safetensors"
    calibrate(system.pretrained, walk_files(folder, ImageAdapter().suffixes), ImageAdapter()).save(
        target
    )
    card = system.pretrained.card
    data = {**card.data, "calibration": {"file": str(target), "sha256": file_sha256(target)}}
    return replace(system, pretrained=replace(system.pretrained, card=replace(card, data=data)))


def test_the_shipped_detector_sees_noise_and_not_clean_images(calibrated, system):
    clean = AttackedImages(
        system.test.pixels[:20], torch.arange(20), torch.zeros(20, dtype=torch.bool), 0.0
    )
    noise = replace(clean, pixels=to_8_bits(torch.rand(20, 1, 28, 28, generator=seeded())))
    detector = ShippedDetector(calibrated, clean=20, rounds=20)
    assert detector.result(clean).auroc.value == pytest.approx(0.5)
    found = detector.result(noise)
    assert found.auroc.value > 0.9
    assert found.flagged["0.05"].value > found.false_positives["0.05"].value
    with pytest.raises(StateError, match="has no calibration"):
        ShippedDetector(system)


def test_spatial_attacks_are_made_and_random_motion_stands_beside_them(system):
    settings = {"rotations": 5, "translations": 3}
    plan = image_attack({"attack": "spatial", "settings": settings, "items": 20, "batch": 20})
    ((_, attack),) = attacks_of(plan)
    made = system.attacked(plan, attack)
    control = moved_at_random(system, attack, items=20)
    assert torch.equal(made.rows, control.rows)
    assert int(made.fooled.sum()) > int(control.fooled.sum())  # chosen, not by chance
    again = moved_at_random(system, attack, items=20)
    assert torch.equal(control.pixels, again.pixels)


def test_backdoors_are_trained_and_judged(tmp_path, monkeypatch):
    pytest.importorskip("art")
    train, test = (load_images("digits", role).resized(16, 16) for role in ("train", "test"))
    sets = {
        role: Clips(data.pixels, data.labels, data.classes)
        for role, data in (("train", train), ("test", test))
    }
    judging = JudgingPlan(
        layers=("pairs.0",),
        output_layers=("pairs.0",),
        small=8 / 255,
        draws=1,
        strip_clips=(5, 10),
        strip_overlays=10,
    )
    study = backdoor_study.BackdoorStudy(
        sets, test.pixels[:100], judging, tmp_path, enrolment=False, judging_seed=int
    )
    quick = ImageTraining(epochs=2, batch_size=64, lr=0.01, shift=0)
    training = backdoors.VggTraining(quick, width=4)
    found = study.judge(BackdoorCase("BadNets", 1, 0.1, training))
    ours = found["train"]["NCCR, grouped"]
    assert ours["poisoned"] == round(0.1 * len(train))
    assert found["success"]["attack"]["value"] > 0.5
    assert {"STRIP", "STRIP, ART's entropy"} < set(found["train"])
    assert "enrolment" not in found
    clean = study.judge(BackdoorCase(NO_TRIGGER, 1, 0.1, training))
    assert clean["train"]["NCCR, grouped"]["poisoned"] == 0
    assert "attack" not in clean["success"]
    monkeypatch.setattr(backdoors, "train_images", None)  # nothing is done twice
    monkeypatch.setattr(backdoor_study, "measure_set", None)
    again = study.judge(BackdoorCase("BadNets", 1, 0.1, training))
    assert again["train"] == found["train"]


def test_the_command_runs_each_study_by_its_name(model_folder, tmp_path, monkeypatch):
    pytest.importorskip("foolbox")
    fgsm = {"attack": "fgsm", "eps": [0.3], "items": 12, "batch": 12}
    spatial = {"rotations": 3, "translations": 3, "keep": "worst"}
    plan = {
        **{"seed": 1, "candidates": 40, "images": 20, "draws": 1, "attack": fgsm},
        "noise": {"family": "gaussian", "level": "input", "scale": 0.1},
        "systems": {
            "digits": {
                **{"model": str(model_folder), "data": "digits", "benign": 20},
                "models": {"first": model_folder.name, "again": model_folder.name},
                **{"attacks": [fgsm], "adaptive": [fgsm], "elasticity": [fgsm]},
                "spatial": [{"attack": "spatial", "settings": spatial, "items": 12, "batch": 12}],
            }
        },
    }
    path, results = tmp_path / "plan.yaml", tmp_path / "images.json"
    path.write_text(yaml.safe_dump(plan))
    line = ["--system", "digits", "--out", tmp_path / "o", "--models", model_folder.parent]
    for study in ("nip", "elasticity", "spatial", "robustness"):
        given = ["measure.py", study, path, *line, "--results", results]
        monkeypatch.setattr(sys, "argv", [str(one) for one in given])
        measure.main()
    found = read_record(ImageResults, json.loads(results.read_text()))
    assert found.elasticity["digits"].cells[0].examples > 0
    assert found.nip["digits"].adaptive[0].attempts == 12
    assert found.spatial["digits"].at_random.images == 12
    assert found.robustness["digits"].images == 20
