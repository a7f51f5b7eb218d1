"""README.md of a model directory: the hub reads it, and it says what the card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from nip_audio.errors import ModelCardError
from nip_audio.models.cards import read_card
from nip_audio.models.readme import (
    corpora_of,
    licence_of_data,
    measured_of,
    misuses_of,
    readme_of,
    write_readme,
)

SHIPPED = Path(__file__).parents[2] / "pretrained"
NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/model_card.json"))


@pytest.fixture
def change(tmp_path):
    """Write the card of a shipped model with other fields, and read it."""

    def write(of: str = "resnet34-libri30", **fields: object):
        directory = tmp_path / of
        directory.mkdir(exist_ok=True)
        data = json.loads((SHIPPED / of / "model_card.json").read_text(encoding="utf-8"))
        (directory / "model_card.json").write_text(json.dumps(data | fields))
        return read_card(directory)

    return write


def front_matter(text: str) -> dict:
    block, end, _ = text.removeprefix("---\n").partition("\n---\n")
    assert end
    return yaml.safe_load(block)


def sections(text: str) -> dict[str, str]:
    return dict(part.split("\n\n", 1) for part in text.split("\n## ")[1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_reads_licence_data_and_results(name):
    hub = pytest.importorskip("huggingface_hub")
    card = read_card(SHIPPED / name)
    read = hub.ModelCard(readme_of(card)).data
    assert read.license == "apache-2.0"
    assert read.library_name == "nip-audio"
    assert read.model_name == name
    assert read.datasets == ([c.hub for c in corpora_of(card) if c.hub] or None)
    found = measured_of(card)
    assert len(found) >= 3
    assert [(r.metric_type, r.metric_value) for r in read.eval_results] == [
        (m.metric, m.value) for m in found
    ]
    assert {r.task_type for r in read.eval_results} == {read.pipeline_tag}
    # what the hub would write from it is what it has read
    again = hub.ModelCardData(**read.to_dict() | {"model-index": read.to_dict()["model-index"]})
    assert again.to_dict() == read.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_it_states_what_people_look_for(name):
    card = read_card(SHIPPED / name)
    text = readme_of(card)
    parts = sections(text)
    assert list(parts) == [
        "Intended use",
        "What it must not be used for",
        "How to get started",
        "Training data",
        "Evaluation",
        "Limitations",
        "Licence",
    ]
    assert card.data["limits"] in parts["What it must not be used for"]
    assert f"--model {name}\n" in parts["How to get started"]
    assert card.data["training"]["data"] in parts["Training data"]
    assert licence_of_data(card) in parts["Training data"]
    assert "not stated" not in licence_of_data(card)
    for measured in measured_of(card):
        assert f"| {measured.name} | {measured.percent} |" in parts["Evaluation"]
    assert str(SHIPPED) not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_readme_is_what_its_card_makes(name):
    readme = SHIPPED / name / "README.md"
    made = readme_of(read_card(SHIPPED / name))
    assert readme.read_text(encoding="utf-8") == made, "run python recipes/write_readmes.py"


def test_it_is_written_beside_the_card_and_replaced(tmp_path):
    directory = Path(shutil.copytree(SHIPPED / "resnet20-gtsrb", tmp_path / "resnet20-gtsrb"))
    (directory / "README.md").write_text("old")
    before = (directory / "model_card.json").read_bytes()
    text = write_readme(directory).read_text(encoding="utf-8")
    assert "German traffic signs" in text
    assert "--model ./resnet20-gtsrb/" in text  # a copy elsewhere has no name
    assert (directory / "model_card.json").read_bytes() == before
    read_card(directory).verify()
    with pytest.raises(ModelCardError, match="cannot be read"):
        write_readme(tmp_path)


INTERVAL = {"value": 0.5, "low": 0.25, "high": 0.75}


def test_results_have_the_cards_intervals(change):
    found = measured_of(
        change(
            metrics={
                "closed_set": {"clips": 251, "clean": INTERVAL, "noise_20_db_snr": INTERVAL},
                "verification": {
                    "clips": 175,
                    "eer": INTERVAL,
                    "enrolled": {"new_chapter": INTERVAL | {"clips": 143}},
                },
            }
        )
    )
    assert [(m.metric, m.items) for m in found] == [
        *(("accuracy", 251), ("accuracy", 251)),
        *(("eer", 175), ("eer", 143)),
    ]
    assert {(m.value, m.low, m.high) for m in found} == {(0.5, 0.25, 0.75)}
    assert found[1].name == "Accuracy, test clips, white noise, 20 dB SNR"
    assert found[1].percent == "50.0 % [25.0, 75.0]"


def test_images_have_exact_intervals(change):
    (image,) = measured_of(change("vgg-cifar10", metrics={"test": 1000, "clean": 0.758}))
    assert (image.value, image.items, image.items_text) == (0.758, 1000, "1000 images")
    # 758 of 1,000 by Clopper and Pearson
    assert (image.low, image.high) == pytest.approx((0.7302, 0.7843), abs=1e-4)


def test_counts_come_from_the_groups_that_were_measured(change):
    metrics = {"all": {"clean": INTERVAL}, "new_chapter": {"clean": INTERVAL}}
    assert [m.items for m in measured_of(change(metrics=metrics))] == [None, None]
    groups = {"all": {"crops": 340}, "new_chapter": {"crops": 239}}
    counted = change(metrics=metrics | {"groups": groups})
    assert [m.items for m in measured_of(counted)] == [340, 239]
    assert "| 340 clips |" in readme_of(counted)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        [],
        "none",
        {"all": 3, "verification": [], "groups": "x"},
        {"all": {"clean": {"value": 0.5}}},
        {"all": {"clean": {"value": 7, "low": 0, "high": 1}}},
        {"test": 10, "clean": "good"},
        {"test": -1, "clean": 0.5},
        {"agreement": 0.9},
    ],
)
def test_without_results_it_says_not_evaluated(change, metrics):
    card = change(metrics=metrics)
    text = readme_of(card)
    assert measured_of(card) == []
    assert sections(text)["Evaluation"].strip() == "Not evaluated."
    assert "model-index" not in front_matter(text)


def test_a_licence_that_the_hub_has_no_name_for_is_other(change):
    told = front_matter(readme_of(change(licence="for members of the club")))
    assert (told["license"], told["license_name"]) == ("other", "for members of the club")
    assert "license" not in front_matter(readme_of(change(licence=None)))


@pytest.mark.parametrize(
    ("training", "licence", "corpora"),
    [
        ({"data": "VCTK, 4 speakers"}, "VCTK: CC BY 4.0 (Yamagishi et al. 2019)", ["VCTK"]),
        ({"data": "our calls"}, "not stated", []),
        ({"data": "our calls", "data_licence": "by consent"}, "by consent", []),
        ({"data": "FashionMNIST"}, "not stated", []),
        ({"data": "CIFAR100 by torchvision"}, "not stated", []),
        (
            {"data": "CIFAR10 by torchvision"},
            "CIFAR-10: no explicit licence (Krizhevsky 2009)",
            ["CIFAR-10"],
        ),
        ({}, "not stated", []),
        ("none", "not stated", []),
    ],
)
def test_the_licence_of_the_data_is_stated_or_known_by_the_corpus(
    change, training, licence, corpora
):
    card = change(training=training)
    assert licence_of_data(card) == licence
    assert [corpus.name for corpus in corpora_of(card)] == corpora
    assert licence in readme_of(card)


def test_names_in_a_card_cannot_end_the_block(change):
    """YAML quotes what would end the block or add a key."""
    metrics = {"all": {"clean": INTERVAL}}
    card = change(licence="x\n---\nlicense: mit", name="a: b", metrics=metrics)
    read = front_matter(readme_of(card))
    assert read["license"] == "other"
    assert read["license_name"] == "x\n---\nlicense: mit"
    assert read["model-index"][0]["name"] == "a: b"


def test_a_closed_set_is_named_as_a_limit():
    speakers = " ".join(misuses_of(read_card(SHIPPED / "audionet-libri251")))
    assert "one of its 251 speakers whatever it hears" in speakers
    assert "must not decide about people by itself" in speakers
    images = " ".join(misuses_of(read_card(SHIPPED / "lenet5-mnist")))
    assert "one of its 10 classes whatever it is shown" in images
    assert "speakers" not in images
