"""The studies on pictures, tiny: digits, an untrained or hardly trained network, few examples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError
from nip_audio.evaluation.backdoor_judging import JudgingPlan
from nip_audio.evaluation.image_backdoors import NO_TRIGGER, ImageBackdoors
from nip_audio.evaluation.image_detection import CLEAN_ONLY, COMBINE, ImageDetection
from nip_audio.evaluation.image_nip import ORACLE, ImageNip, image_defences
from nip_audio.evaluation.image_systems import ImageAttackPlan, image_system
from nip_audio.evaluation.measured import RowBank
from nip_audio.image.datasets import load_images
from nip_audio.integrations.image_publishing import run_recipe
from nip_audio.integrations.image_training import ImageTraining
from nip_audio.purifiers.guided_training import GuidedSettings, train_guided

RECIPES = Path(__file__).parents[2] / "recipes"
FGSM = ImageAttackPlan("fgsm", (0.1, 0.3), items=40, batch=20)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("models") / "lenet1-digits"
    options = ["--data=digits", "--epochs=3", "--batch_size=64", f"--output_folder={target}"]
    return run_recipe([str(RECIPES / "MNIST" / "lenet1.yaml"), *options])


@pytest.fixture
def system(model_folder, tmp_path):
    return image_system(model_folder, "digits", data_folder=None, folder=tmp_path / "a", seed=1)


def test_plans_take_fractions():
    plan = ImageAttackPlan.from_json({"attack": "pgd", "eps": ["8/255", 0.1], "items": 3})
    assert plan.eps == (8 / 255, 0.1)
    assert [name for name, _ in plan.attacks()] == ["pgd 0.03137", "pgd 0.1"]


def test_attacked_pictures_are_of_8_bits_and_made_once(system):
    pytest.importorskip("foolbox")
    (name, attack), *_ = FGSM.attacks()
    assert name == "fgsm 0.1"
    made = system.attacked(FGSM, attack)
    levels = made.pixels * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    change = made.pixels - system.test.pixels[made.rows]
    assert float(change.abs().max()) <= 0.1 + 0.5 / 255 + 1e-6
    again = system.attacked(FGSM, attack)
    torch.testing.assert_close(again.pixels, made.pixels)
    assert len(list(system.folder.iterdir())) == 1
    named = system.named(made.pixels)
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
    assert set(found["judges"]) == {CLEAN_ONLY, "FGSM", COMBINE}
    strong = found["cells"][1]
    assert strong["name"] == "fgsm 0.3"
    assert strong["examples"] >= 10
    assert strong["judges"]["FGSM"]["auroc"]["value"] > 0.7
    assert len(found["baselines"]["judges"]) == 3 + 4
    assert 0 <= found["false_positives"][COMBINE]["0.05"]["value"] <= 1


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
    found = ImageNip(system, defences, "flatten", benign=40).results([FGSM])
    assert set(found["benign_accuracy"]) == set(defences)
    cell = found["cells"][1]
    assert set(cell["dsr"]) == {*defences, ORACLE}
    assert all(0 <= share["value"] <= 1 for share in cell["dsr"].values())


def test_backdoors_are_trained_and_judged():
    pytest.importorskip("art")
    train, test = (load_images("digits", role).resized(16, 16) for role in ("train", "test"))
    study = ImageBackdoors(
        train,
        test,
        ImageTraining(epochs=2, batch_size=64, lr=0.01, shift=0),
        width=4,
        judging=JudgingPlan(layers=("pairs.0",), small=8 / 255, draws=1, strip_clips=(5, 10)),
    )
    found = study.result("BadNets", seed=1)
    assert found["poisoned"] == round(0.1 * len(train))
    assert found["attack_success"]["value"] > 0.5
    assert found["judged"]["NCCR, grouped"]["poisoned"] == found["poisoned"]
    clean = study.result(NO_TRIGGER, seed=1)
    assert clean["poisoned"] == 0
    assert "attack_success" not in clean
