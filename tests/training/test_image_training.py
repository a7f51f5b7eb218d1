"""Training on pictures, and the model directory that comes of it, on scikit-learn's digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError, ModelCardError, OutputError
from nip_audio.image.datasets import load_images
from nip_audio.image.models.lenet import LeNet1
from nip_audio.models.pretrained import load_pretrained
from nip_audio.models.readme import readme_of
from nip_audio.training.image_publishing import read_run, run_recipe
from nip_audio.training.image_training import (
    ImageTraining,
    accuracy,
    augmented,
    image_model,
    train_images,
)

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ImageTraining(epochs=1, batch_size=64, lr=0.01)


def fresh(seed: int = 0):
    torch.manual_seed(seed)
    return image_model(LeNet1(), nn.Linear(192, 10), tuple("0123456789"))


def test_learns_and_repeats_itself():
    data = load_images("digits", "train")
    first, again = (train_images(fresh(), data, SHORT, seed=1) for _ in range(2))
    assert accuracy(first, load_images("digits", "test")) > 0.3
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_adversarial_training_moves_the_weights_elsewhere(attack):
    pytest.importorskip("foolbox")
    data = load_images("digits", "train").rows(torch.arange(64))
    plan = ImageTraining(epochs=2, batch_size=32)
    hard = replace(plan, adversarial_attack=attack, adversarial_share=1.0, adversarial_steps=2)
    plain, robust = (train_images(fresh(), data, p, seed=1) for p in (plan, hard))
    pairs = zip(plain.parameters(), robust.parameters(), strict=True)
    assert any(not torch.allclose(a, b) for a, b in pairs)


def test_augmentation_keeps_shape_and_bounds_and_nothing_when_off():
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    off = ImageTraining(shift=0, noise_share=0.0, sparse_share=0.0)
    torch.testing.assert_close(augmented(x, off, torch.Generator().manual_seed(0)), x)
    full = ImageTraining(flip=True, brightness=0.5, noise_share=1.0, sparse_share=1.0)
    out = augmented(x, full, torch.Generator().manual_seed(0))
    assert out.shape == x.shape
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert not torch.allclose(out, x)


def test_senseless_plans_and_misfits_are_refused():
    with pytest.raises(InputError, match="epochs"):
        ImageTraining(epochs=0)
    with pytest.raises(InputError, match="shares"):
        ImageTraining(noise_share=2.0)
    data = load_images("digits", "train")
    with pytest.raises(InputError, match="use more"):
        train_images(fresh(), data.rows(torch.arange(10)), SHORT, seed=0)
    other = image_model(LeNet1(), nn.Linear(192, 2), ("a", "b"))
    with pytest.raises(InputError, match="a model with the same classes"):
        train_images(other, data, SHORT, seed=0)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("models") / "lenet1-digits"
    yaml = RECIPES / "MNIST" / "lenet1.yaml"
    options = ["--data=digits", "--epochs=1", f"--output_folder={target}"]
    return run_recipe([str(yaml), *options])


def test_a_recipe_ends_in_a_directory_that_loads(published):
    loaded = load_pretrained(published)
    assert loaded.card.modality == "image"
    assert loaded.card.image_shape == (1, 28, 28)
    assert loaded.card.labels == tuple("0123456789")
    assert (loaded.model.bounds.low, loaded.model.bounds.high) == (0.0, 1.0)
    tested = load_images("digits", "test")
    stated = loaded.card.data["metrics"]["clean"]
    assert accuracy(loaded.model, tested) == pytest.approx(stated)
    with loaded.model.tap(*loaded.card.default_taps) as tap:
        loaded.model.scores(Batch(tested.pixels[:2]))
        assert tap["flatten"].shape == (2, 192)
    assert (published / "README.md").read_text(encoding="utf-8") == readme_of(loaded.card)


def test_a_card_names_the_data_that_were_asked_for_instead_of_the_recipes(published):
    trained = len(load_images("digits", "train"))
    stated = load_pretrained(published).card.data["training"]["data"]
    assert stated == f"digits, {trained:,} training images"


def test_a_card_of_pictures_has_no_sample_rate(published):
    card = load_pretrained(published).card
    with pytest.raises(ModelCardError, match="takes images"):
        _ = card.sample_rate_hz


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("modality", "smell", "of modality 'smell'"),
        ("image_shape", [2, 28, 28], "wrong image_shape"),
        ("image_shape", [1, 28], "wrong image_shape"),
    ],
)
def test_a_card_of_another_make_is_refused(published, tmp_path, key, value, text):
    data = json.loads((published / "model_card.json").read_text())
    (tmp_path / "model_card.json").write_text(json.dumps(data | {key: value}))
    with pytest.raises(ModelCardError, match=text):
        load_pretrained(tmp_path)


def test_what_exists_is_not_overwritten_and_options_are_known(published):
    yaml = str(RECIPES / "MNIST" / "lenet1.yaml")
    with pytest.raises(OutputError, match="exists"):
        run_recipe([yaml, "--data=digits", f"--output_folder={published}"])
    with pytest.raises(InputError, match="has no epoch; its options are"):
        run_recipe([yaml, "--epoch=1"])
    with pytest.raises(InputError, match="--name=value"):
        run_recipe([yaml, "epochs", "1"])


@pytest.mark.parametrize(
    "path",
    sorted(p for d in ("MNIST", "CIFAR10", "GTSRB") for p in (RECIPES / d).glob("*.yaml")),
    ids=lambda p: p.stem,
)
def test_every_recipe_fits_together(path):
    if "torchvision" in path.read_text(encoding="utf-8").split("embedding_model:")[1]:
        pytest.importorskip("torchvision")
    run = read_run(path, {})
    channels, rows, columns = run.hparams["image_shape"]
    classes = run.classifier.out_features
    model = image_model(run.network, run.classifier, tuple(map(str, range(classes)))).eval()
    x = Batch(torch.rand(2, channels, rows, columns))
    with model.tap(*run.hparams["default_taps"]) as tap:
        assert model.scores(x).shape == (2, classes)
        assert all(len(tap[layer]) == 2 for layer in run.hparams["default_taps"])
