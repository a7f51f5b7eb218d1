"""Black-box NIP end to end: a model of digits is served, and asked for nothing but labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from nip_audio.cli import main
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError, OutputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.image.datasets import load_images
from nip_audio.image.remote import RemoteClassifier, RemoteSettings
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.registry import make_purifier
from nip_audio.training.image_publishing import read_run, run_recipe
from studies._lib.attacks import attacks_of, image_attack
from studies.images import fit_remote, label_server, measure
from studies.images.remote import remotely_defended, sent
from studies.images.remote_substitute import RemotePlan, fit_to_remote
from studies.images.results import DefendedCell

RECIPES = Path(__file__).parents[3] / "recipes"
LENET1 = RECIPES / "MNIST" / "lenet1.yaml"
QUICK = GuidedSettings(steps=4, width=4, raw_share=0.0, eps_input=(0.05, 0.3))


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("models") / "lenet1-digits"
    options = ["--data=digits", "--epochs=3", "--batch_size=64", f"--output_folder={target}"]
    return run_recipe([str(LENET1), *options])


@pytest.fixture
def no_proxy(monkeypatch) -> None:
    """Let the server be asked without a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def platform(served, no_proxy) -> Iterator[label_server.LabelServer]:
    pretrained = load_pretrained(served)
    card = pretrained.card
    with label_server.serving(
        label_server.LabelServer(pretrained.model, card.labels, (1, 28, 28))
    ) as server:
        yield server


@pytest.fixture
def digits() -> torch.Tensor:
    return load_images("digits", "train").pixels


def test_the_server_answers_both_kinds_of_requests_and_refuses_the_rest(platform, served):
    pixels = load_images("digits", "test").pixels[:5]
    expected = load_pretrained(served).model.predict(Batch(pixels))
    for size in (1, 2):
        remote = RemoteClassifier(
            platform.url, platform.labels, settings=RemoteSettings(images_per_request=size)
        )
        assert torch.equal(remote(Batch(pixels)), expected)
    assert platform.answered == 10
    with pytest.raises(Exception, match="status 400"):
        remote(Batch(pixels[..., :20]))


def test_a_substitute_and_its_purifier_are_a_model_directory(platform, digits, tmp_path):
    remote = RemoteClassifier(
        platform.url, platform.labels, settings=RemoteSettings(images_per_request=50)
    )
    plan = RemotePlan(epochs=10, lr=5e-3, guided=QUICK, guided_batch=16, seed=1)
    run = read_run(LENET1, {})
    fitted = fit_to_remote(remote, digits[:600], run, plan, tmp_path / "own")
    metrics, training = (fitted.card.data[part] for part in ("metrics", "training"))
    assert metrics["queries"] == remote.queries == platform.answered == 600
    assert metrics["agreement"] > 0.6
    assert training["data"] == f"answers of {platform.url}, labels only"
    assert training["hyperparameters"]["epochs"] == 10
    assert fitted.card.labels == platform.labels
    purifier = GuidedNip.load(fitted.card.purifier_path, model_id=fitted.model_id)
    assert purifier.training["steps"] == 4

    ImageAdapter().save(digits[0], tmp_path / "a.png")
    given = ["purify", tmp_path / "a.png", "--model", tmp_path / "own", "--out", tmp_path / "out"]
    assert main([str(a) for a in given]) == 0
    assert (tmp_path / "out" / "a.png").exists()

    with pytest.raises(OutputError, match="exists"):
        fit_to_remote(remote, digits, run, plan, tmp_path / "own")
    with pytest.raises(InputError, match=r"the recipe's \(1, 28, 28\)"):
        fit_to_remote(remote, digits[..., :20], run, plan, tmp_path / "other")
    few = RemoteClassifier(platform.url, platform.labels[:4])
    with pytest.raises(InputError, match="10 classes, the remote model 4"):
        fit_to_remote(few, digits, read_run(LENET1, {}), plan, tmp_path / "other")
    assert platform.answered == 600


def test_a_plan_without_sense_is_an_error():
    with pytest.raises(InputError, match="raw_share 0.5, expected ≥ 2, ≥ 2 and 0"):
        RemotePlan(guided=GuidedSettings())


def test_only_what_fools_is_counted_and_what_is_correct_again():
    """A remote model that tells light from dark, and a purifier that leaves black and white."""

    def answer(batch: Batch) -> torch.Tensor:
        return (batch.x.flatten(1).mean(dim=1) > 0.5).long()

    model = load_pretrained(RECIPES.parent / "pretrained" / "lenet5-mnist").model
    purifier = make_purifier("bit-depth", model=model, settings={"bits": 1})
    study = remotely_defended(answer, {"bits": purifier}, 1)
    _, attack = next(attacks_of(image_attack({"attack": "fgsm", "eps": [0.1]})))

    def saved(pixels: torch.Tensor, truth: torch.Tensor) -> DefendedCell:
        made = sent(study, pixels, torch.arange(len(pixels)), truth)
        return study.saved("fgsm 0.1", attack, made, truth)

    levels = torch.tensor([0.4, 0.6, 0.45])
    pixels = levels.reshape(3, 1, 1, 1).expand(3, 1, 28, 28)
    truth = torch.tensor([0, 1, 1])
    found = saved(pixels, truth)
    assert (found.attempts, found.examples) == (3, 1)
    assert found.dsr["bits"].value == 0.0  # .45 becomes 0, not 1
    none = saved(pixels[:2], truth[:2])
    assert none.examples == 0
    assert not none.dsr
    benign = study.benign(pixels[:2], truth[:2])
    assert benign.undefended.value == benign.behind["bits"].value == 1.0


def test_what_is_purified_is_sent_in_8_bits_and_drawn_alike_each_time():
    asked = []

    def answer(batch: Batch) -> torch.Tensor:
        asked.append(batch.x)
        return torch.zeros(len(batch), dtype=torch.long)

    noise = GaussianNoise(snr_db=10.0, bounds=Bounds(0.0, 1.0))
    study = remotely_defended(answer, {"noise": noise}, 1)
    pixels = torch.full((150, 1, 4, 4), 0.5)
    for _ in range(2):
        study.predict(pixels, noise)
    sent = torch.cat(asked[:2])
    assert torch.equal(sent, torch.cat(asked[2:]))
    assert not torch.equal(sent, pixels)
    torch.testing.assert_close(sent * 255, (sent * 255).round(), atol=1e-3, rtol=0)


def test_a_user_gives_a_url_images_and_labels(platform, digits, tmp_path, monkeypatch, capsys):
    pytest.importorskip("foolbox")
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(digits[:160]):
        ImageAdapter().save(image, images / f"{number}.png")
    (images / "broken.png").write_bytes(b"no image")
    (tmp_path / "labels.txt").write_text("\n".join(platform.labels) + "\n")
    monkeypatch.setenv("PLATFORM_TOKEN", "hidden")
    arguments = {
        "url": platform.url,
        "images": images,
        "labels": tmp_path / "labels.txt",
        "out": tmp_path / "own",
        "queries": 100,
        "measure": 40,
        "steps": 4,
        "eps": 0.3,
        "images-a-request": 20,
        "token-from": "PLATFORM_TOKEN",
        "answers": tmp_path / "answers.jsonl",
    }
    line = [str(a) for name, value in arguments.items() for a in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["fit_remote.py", str(LENET1), *line])
    fit_remote.main()
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["fit"]["queries"] == 100
    assert found["benign"]["undefended"]["value"] == 1.0  # by its own answers
    assert set(found["attacks"]) == {"fgsm 0.3", "pgd 0.3"}
    assert platform.answered == 100 + found["queries_measuring"]
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 1 + platform.answered
    assert "left out" in err
    assert "hidden" not in out + err

    monkeypatch.delenv("PLATFORM_TOKEN")
    with pytest.raises(InputError, match="PLATFORM_TOKEN is not set"):
        fit_remote.main()


def test_the_study_measures_what_it_plans(served, no_proxy, tmp_path, monkeypatch):
    pytest.importorskip("foolbox")
    plan = {
        "seed": 1,
        "candidates": 40,
        "systems": {
            "digits": {
                "served": str(served),
                "data": "digits",
                "role": "calibrate",
                "benign": 30,
                "agreement": 60,
                "substitutes": {"own": {"recipe": "MNIST/lenet1.yaml", "queries": 200}},
                "fit": {"batch": 50, "epochs": 5, "lr": 0.005, "guided_batch": 16},
                "guided": {"steps": 4, "width": 4, "raw_share": 0.0, "eps_input": [0.05, 0.3]},
                "attacks": [{"attack": "fgsm", "eps": [0.3], "items": 30, "batch": 30}],
                "transferred": [{"attack": "fgsm", "eps": [0.3], "items": 30}],
            }
        },
    }
    path, results = tmp_path / "plan.yaml", tmp_path / "images.json"
    path.write_text(yaml.safe_dump(plan))
    line = ["--system", "digits", "--out", str(tmp_path / "o"), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["measure.py", "remote", str(path), *line])
    measure.main()
    found = json.loads(results.read_text())["remote"]["digits"]["own"]
    assert found["queries"] == 200
    assert 0 <= found["agreement"] <= 1
    assert found["agreement_images"] == 60
    (cell,) = found["white_box"]
    assert cell["examples"] > 0
    assert set(cell["dsr"]) == set(found["benign"]["behind"])
    assert "guided NIP" in cell["dsr"]
    # what is benign, tried and purified was all asked over HTTP
    behind = len(found["benign"]["behind"])
    asked = 60 + 30 * (1 + behind)
    for part in ("white_box", "transferred"):
        (one,) = found[part]
        asked += one["attempts"] + one["examples"] * (behind if one["examples"] else 0)
    assert found["queries_measuring"] == asked
