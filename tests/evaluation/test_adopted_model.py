"""``evaluate`` on a model that was adopted from another source, as its user would run it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml

from nip_audio.cli import main
from nip_audio.evaluation.config import read_config
from nip_audio.evaluation.systems import build_system
from tests.small_ecapa import write_ecapa

ROLES = {0: "train", 1: "train", 3: "test", 4: "test"}
SPEAKERS = 6
PLAN: dict[str, Any] = {
    "title": "mine",
    "systems": {"mine": {"model": "model", "enrol": True}},
    "attacks": [
        {"attack": "fgsm", "eps": [0.01], "items": 3, "batch": 3},
        {"attack": "pgd", "eps": [0.01, 0.1], "items": 3, "batch": 3},
        {
            "attack": "pgd-e2e",
            "eps": [0.1],
            "protocol": "adaptive",
            "items": 3,
            "batch": 3,
            "settings": {"steps": 4, "restarts": 1, "step_share": 0.5},
            "behind": ["guided"],
        },
    ],
    "defences": ["guided"],
}


def must(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0, arguments


@pytest.fixture(scope="module")
def home(tmp_path_factory, voice, voices_to_screen) -> Path:
    """A user's folder: an adopted model with its purifier, voices, and a split of whole files."""
    root = tmp_path_factory.mktemp("home")
    (root / "source").mkdir()
    must("adopt", write_ecapa(root / "source"), "--out", root / "model")
    quick = ("--set", "steps=2", "--set", "crop_s=0.5", "--set", "batch_size=2")
    fitted = ("--model", root / "model", "--out", root / "model/purifier", *quick)
    must("fit-purifier", voices_to_screen, *fitted)
    rows = [
        (f"s{s}/take{take}.flac", f"s{s}", role)
        for s in range(SPEAKERS)
        for take, role in ROLES.items()
    ]
    for path, speaker, _ in rows:
        file = root / "voices" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, voice(int(speaker[1:]), int(path[-6])), 16000)
    write_split(root / "split.csv", rows)
    return root


def write_split(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "speaker", "role"), *rows])


def read_split(home: Path) -> list[tuple[str, ...]]:
    with (home / "split.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def evaluate(home: Path, out: Path, *, split: Path | None = None, **changes: object) -> int:
    # one folder for each configuration, so that the model beside it is found there
    config = home / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump(PLAN | changes))
    places = ("--data-root", home / "voices", "--data-split", split or home / "split.csv")
    return main([str(a) for a in ("evaluate", config, *places, "--out", out)])


@pytest.fixture(scope="module")
def out(home, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    assert evaluate(home, folder) == 0
    return folder


@pytest.fixture(scope="module")
def results(out) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_the_system_is_described(results):
    system = results["systems"]["mine"]
    assert (system["task"], system["clips"], system["classes"]) == ("CSI-E", 12, SPEAKERS)
    assert system["enrolled"] == 12
    assert system["model"] == "source"  # the name in its card, and no path of this machine
    assert not system["training_listed"]
    right = system["accuracy"]["no defence"]["value"]
    assert right == pytest.approx(system["rightly_named"] / 12, abs=1e-5)  # rounded in the file
    assert right > 2 / SPEAKERS  # twice chance: even random layers tell these buzzes apart
    assert list(system["accuracy"])[1:] == ["noise 20 dB", "guided", "noise as strong as guided"]


def test_success_is_counted_on_clips_that_were_correct(results, home, out):
    config = read_config(
        home / f"{out.name}.yaml", data_root=home / "voices", split=home / "split.csv"
    )
    system = build_system(config.systems[0], config)
    correct = [item.id for item in system.correct_items]
    assert 3 <= len(correct) < len(system.items)  # the model errs, so it matters
    for cell in results["cells"]:
        assert cell["attacked"] == 3 <= results["systems"]["mine"]["rightly_named"]
        assert cell["successes"] == cell["fooled"].count("1")
        assert cell["asr"]["value"] == pytest.approx(cell["successes"] / 3, abs=1e-5)
        lines = (out / "sets" / cell["set"] / "manifest.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == correct[:3]
    pgd = {c["eps"]: c["successes"] for c in results["cells"] if c["attack"] == "pgd"}
    assert pgd[0.1] >= pgd[0.01]
    assert pgd[0.1] == 3  # louder than the voices are


def test_defences_are_shown_without_an_attack_too(results):
    """On the clips that were attacked, whose shares are thirds."""
    *unaware, adaptive = results["cells"]
    for cell in unaware:
        assert cell["accuracy_before"].keys() == {row["defence"] for row in cell["defences"]}
        assert cell["accuracy_before"] == unaware[0]["accuracy_before"]
    assert adaptive["accuracy_before"].keys() == {"guided"}
    before = adaptive["accuracy_before"]["guided"]["value"]
    assert round(3 * before, 3) in (0, 1, 2, 3)
    assert before == unaware[0]["accuracy_before"]["guided"]["value"]


def table_of(text: str) -> list[dict[str, str]]:
    """Read the rows of the table of attacks."""
    lines = [line for line in text.split("## mine")[1].splitlines() if line.startswith("| ")]
    lines = lines[: next(i for i, line in enumerate(lines) if line.startswith("| system"))]
    columns, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_the_tables_can_be_read_alone(results, out):
    text = (out / "tables.md").read_text()
    assert "Seed 1234" in text
    assert "identifies every clip as one of 6 speakers, enrolled from 12 recordings" in text
    assert "The card of source does not list the recordings it was trained on" in text
    assert "`adaptive`: the attacker knows model and defence" in text
    assert str(out.parent) not in text
    assert "*Not published*: a robust accuracy is the worst case" in text
    before, *unaware, adaptive = table_of(text)
    behind = "correctly classified behind guided"
    noise = "correctly classified behind noise as strong as guided"
    assert (before["attack"], before["examples"], before["success"]) == ("no attack", "3", "–")
    assert "not evaluated" not in " ".join([*before.values(), *unaware[0].values()])
    cell = results["cells"][-1]
    assert adaptive[behind].startswith(f"{100 * (1 - cell['asr']['value']):.1f} [")
    assert adaptive[noise] == "not evaluated"
    (check,) = [c for c in results["checks"] if c["name"].startswith("knowing ≥ unaware")]
    assert check["name"] == "knowing ≥ unaware, ε 0.1, guided"
    assert check["detail"].startswith(f"knowing it {cell['asr']['value']:.1%}, PGD unaware ")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"systems": {"mine": {"model": "model"}}},
            "mine: 6 speakers of the split are unknown to {home}/model (s0, s1, s2, s3, s4…); test "
            "its own speakers, or set enrol: true to enrol them from the role train",
        ),
        (
            {"systems": {"mine": {"model": "model", "enrol": "yes"}}},
            "systems.mine: enrol is 'yes', expected true or false",
        ),
        (
            {"systems": {"mine": {"model": "model", "enrol": True, "crop_s": 30}}},
            "mine: no recording with role test is as long as crop_s, 30 s; choose a shorter crop_s",
        ),
        (
            {"systems": {"mine": {"model": "model", "enrol": True, "crop_s": "2s"}}},
            "systems.mine: crop_s is '2s', expected seconds such as 2",
        ),
        ({"detect": 5}, "the calibrate role of mine has clips of 0 speakers, expected at least 5"),
    ],
)
def test_one_error_says_what_to_do(home, tmp_path, capsys, changes, text):
    assert evaluate(home, tmp_path / "o", **changes) == 65
    error = " ".join(capsys.readouterr().err.split())
    assert text.format(home=home) in error
    assert error.count("error: ") == 1
    assert not (tmp_path / "o" / "results.json").exists()


@pytest.mark.parametrize(
    ("drop", "text"),
    [
        (("s2", "train"), "none with role train to enrol them from (s2); give each at least one"),
        (("", "test"), "no recording with role test; give some of its 12 recordings the role test"),
    ],
)
def test_a_split_that_lacks_a_role_is_refused(home, tmp_path, capsys, drop, text):
    speaker, role = drop
    rows = [r for r in read_split(home) if not (speaker in r[1] and r[2] == role)]
    write_split(tmp_path / "split.csv", rows)
    assert evaluate(home, tmp_path / "o", split=tmp_path / "split.csv") == 65
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_model_without_a_purifier_asks_for_one(home, tmp_path, capsys):
    systems = {"mine": {"model": str(tmp_path / "bare"), "enrol": True}}
    must("adopt", home / "source", "--out", tmp_path / "bare")
    capsys.readouterr()
    assert evaluate(home, tmp_path / "o", systems=systems) == 65
    error = " ".join(capsys.readouterr().err.split())
    assert "model source comes without a guided purifier" in error
    assert "name its file: {name: guided, path: FILE}" in error


def test_a_purifier_fitted_on_a_test_clip_is_refused(home, tmp_path, capsys):
    rows = [(f"{r[1]}/take3.flac", r[1], "test") for r in read_split(home)[::4]]
    write_split(tmp_path / "split.csv", [*rows, *(r for r in read_split(home) if r[2] == "train")])
    quick = ("--set", "steps=1", "--set", "crop_s=0.5", "--set", "batch_size=2")
    model = ("--model", home / "model", "--out", tmp_path / "leaky")
    must("fit-purifier", home / "voices", *model, *quick)
    capsys.readouterr()
    defences = [{"name": "guided", "path": str(tmp_path / "leaky")}]
    split = tmp_path / "split.csv"
    assert evaluate(home, tmp_path / "o", split=split, defences=defences) == 65
    said = " ".join(capsys.readouterr().err.split())
    assert "6 test items were seen when the defence guided was fitted" in said


BOX = '''
import torch


class Box(torch.nn.Module):
    """Its answers come from elsewhere, as those of a black box do."""

    def forward(self, x):
        y = x.detach().unfold(-1, 400, 160)[..., :64] * torch.hann_window(64)
        return torch.fft.rfft(y).abs().log1p().mean(1)


def make():
    return Box().eval()
'''


@pytest.fixture
def box(home, tmp_path, monkeypatch) -> dict[str, Any]:
    """Systems with a model that gives no gradient."""
    (tmp_path / "boxes_of_a_test.py").write_text(BOX)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    must("adopt", "python:boxes_of_a_test:make", "--out", tmp_path / "box")
    return {"box": {"model": str(tmp_path / "box"), "enrol": True}}


def test_a_black_box_is_evaluated_by_what_needs_no_gradient(home, box, tmp_path):
    attacks = [{"attack": "square", "eps": [0.1], "items": 2, "settings": {"queries": 5}}]
    assert evaluate(home, tmp_path / "o", systems=box, attacks=attacks, defences=[]) == 0
    results = json.loads((tmp_path / "o/results.json").read_text())
    checks = {check["name"]: check["passed"] for check in results["checks"]}
    assert checks["gradients are not zero"] is None
    assert results["cells"][0]["gradients"] == 0


def test_white_box_attacks_on_a_black_box_are_refused_first(home, box, tmp_path, capsys):
    attacks = [
        {"attack": "square", "eps": [0.1], "items": 2, "settings": {"queries": 5}},
        {"attack": "pgd", "eps": [0.1], "items": 2},
    ]
    capsys.readouterr()
    assert evaluate(home, tmp_path / "o", systems=box, attacks=attacks, defences=[]) == 65
    said = " ".join(capsys.readouterr().err.split())
    assert "pgd on box needs gradients, and box gives none, because it runs as a black box" in said
    assert not (tmp_path / "o/sets").exists()
