"""The models of the package are as shipped, and no folder of somebody else's stands for them."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from nip_audio import load_pretrained
from nip_audio.errors import HashMismatchError, ModelCardError
from nip_audio.evaluation.config import read_config
from nip_audio.models import cards
from nip_audio.models import shipped as shipped_module
from nip_audio.models.cards import card_sha256, directory_of, find_named, is_path, read_card
from nip_audio.models.shipped import SHIPPED_CARDS
from nip_audio.models.sources.base import load_source, parse_spec
from nip_audio.models.sources.hub import local_directory
from nip_audio.models.trust import trust_file

PRETRAINED = Path(__file__).parents[2] / "pretrained"
NAME = "xvector-libri251"


def test_each_shipped_card_is_pinned():
    found = {
        path.parent.name: card_sha256(json.loads(path.read_text()))
        for path in sorted(PRETRAINED.glob("*/model_card.json"))
    }
    assert dict(SHIPPED_CARDS) == found, "python recipes/publish.py pretrained/NAME pins it"


def test_publishing_pins_every_card_again(tmp_path):
    pin = runpy.run_path(str(PRETRAINED.parent / "recipes" / "publish.py"))["pin"]
    module = Path(shipped_module.__file__)
    stale = tmp_path / "shipped.py"
    stale.write_text(re.sub(r'": "[0-9a-f]{64}"', '": "0"', module.read_text()))
    assert stale.read_text() != module.read_text()
    pin(PRETRAINED, stale)
    assert stale.read_text() == module.read_text()


@pytest.mark.parametrize("name", SHIPPED_CARDS)
def test_what_a_card_pins_lies_beside_it(name):
    card = read_card(PRETRAINED / name)
    card.verify()  # weights, calibration and purifier
    assert card.shipped


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A copy of the folder of the package's models, with one of them."""
    folder = tmp_path / "shipped"
    shutil.copytree(PRETRAINED / NAME, folder / NAME)
    monkeypatch.setattr(cards, "_shipped_folder", lambda: folder)
    return folder / NAME


def test_a_shipped_model_with_another_card_is_refused(shipped):
    card = json.loads((shipped / "model_card.json").read_text())
    card["labels"] = card["labels"][::-1]  # the weights are still right
    (shipped / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(HashMismatchError, match="install nip-audio again"):
        load_pretrained(NAME)
    with pytest.raises(HashMismatchError, match="that of the model that nip-audio ships is 57df"):
        read_card(shipped).verify()


def test_a_shipped_model_with_another_calibration_is_refused(shipped):
    (shipped / "calibration.safetensors").write_bytes(b"lax")
    with pytest.raises(HashMismatchError, match=r"calibration\.safetensors has SHA-256"):
        load_pretrained(NAME)


def test_the_layout_of_a_card_is_no_part_of_it(shipped):
    card = json.loads((shipped / "model_card.json").read_text())
    (shipped / "model_card.json").write_text(json.dumps(card, indent=3))
    assert load_pretrained(NAME).card.shipped


@pytest.mark.parametrize("place", [NAME, f"pretrained/{NAME}"])
def test_the_working_directory_supplies_no_judge(tmp_path, monkeypatch, place):
    lax = shutil.copytree(PRETRAINED / NAME, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    found = load_pretrained(NAME).card
    assert found.shipped
    assert found.directory != lax
    assert not load_pretrained(f"./{place}").card.shipped
    assert load_pretrained(Path(place)).card.directory == Path(place)


def test_the_environment_names_no_other_model_of_a_shipped_name(tmp_path, monkeypatch):
    shutil.copytree(PRETRAINED / NAME, tmp_path / NAME)
    monkeypatch.setenv("NIP_AUDIO_PRETRAINED", str(tmp_path))
    assert load_pretrained(NAME).card.shipped


def test_a_relative_folder_of_the_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NIP_AUDIO_PRETRAINED", "pretrained")
    with pytest.raises(ModelCardError, match="expected an absolute path"):
        load_pretrained("ecapa")


def test_a_word_is_no_folder_and_the_error_says_how_to_name_one(tmp_path, monkeypatch):
    shutil.copytree(PRETRAINED / NAME, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelCardError, match=r"for the folder write \./mine"):
        load_pretrained("mine")
    assert load_pretrained("mine/").card.name == NAME
    (tmp_path / "ecapa").mkdir()
    (tmp_path / "ecapa/hyperparams.yaml").write_text("a: 1")
    assert parse_spec("ecapa") is None
    assert str(parse_spec("./ecapa")) == "speechbrain:./ecapa"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", False), ("a-b.c", False), (".", True), ("..", True), ("./a", True), ("a/", True),
     ("a/b", True), ("/a", True), (Path("a"), True)],
)  # fmt: skip
def test_what_counts_as_a_path(given, expected):
    assert is_path(given) == expected


def test_a_run_names_no_path(tmp_path):
    shutil.copytree(PRETRAINED / NAME, tmp_path / "mine")
    assert directory_of(str(tmp_path / "mine")) == tmp_path / "mine"
    with pytest.raises(ModelCardError, match="expected a name without a path"):
        find_named(str(tmp_path / "mine"))


@pytest.mark.parametrize(
    "source", ["speechbrain/spkrec-ecapa-voxceleb", "pyannote:pyannote/embedding"]
)
def test_a_folder_with_the_id_of_a_model_of_the_hub_is_not_taken_for_it(
    tmp_path, monkeypatch, source
):
    (tmp_path / source.removeprefix("pyannote:")).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    spec = parse_spec(source)
    assert spec is not None
    with pytest.raises(ModelCardError, match="is an id of the hub and a folder here"):
        load_source(spec)


def test_other_folders_are_no_ids(tmp_path, monkeypatch):
    (tmp_path / "models/ecapa").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_directory("models/ecapa", owner="speechbrain/") == Path("models/ecapa")
    assert local_directory("./models/ecapa") == Path("./models/ecapa")
    assert local_directory("models/none") is None


def test_a_relative_folder_of_settings_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
    assert trust_file() == Path.home() / ".config/nip-audio/trusted-models.txt"


def test_an_evaluation_takes_the_shipped_model_before_a_folder_beside_its_file(
    tmp_path, write_config
):
    shutil.copytree(PRETRAINED / NAME, tmp_path / NAME)
    shutil.copytree(PRETRAINED / NAME, tmp_path / "mine")
    usual = {"subset": "voices", "enrol": True}
    systems = {"first": {"model": NAME} | usual, "second": {"model": "mine"} | usual}
    first, second = read_config(write_config(systems=systems)).systems
    assert (first.model, second.model) == (NAME, str(tmp_path / "mine"))
