"""The studies of the published NIP on a model whose neurons can be read off its input."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.evaluation.config import read_config
from nip_audio.evaluation.runner import Runner
from nip_audio.evaluation.systems import role_recordings
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from studies.nip.neurons import defended, influence, measure, page
from studies.nip.neurons import subject as subjects

CLASSES, ROWS = 3, 4
"""Each class has four rows of the spectrogram, and each row is a neuron."""


class Rows(nn.Module):
    """φ: the mean over time of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        pooled: Tensor = self.pool(x.mean(dim=2))
        return pooled


def toy_model() -> InstrumentedModel:
    head = nn.Linear(CLASSES * ROWS, CLASSES, bias=False)
    head.weight.data = 2 * torch.eye(CLASSES).repeat_interleave(ROWS, dim=1) - 1
    labels = tuple("abc")
    return InstrumentedModel(Rows(), head=head, labels=labels, bounds=Bounds(0.0, 1.0)).eval()


def voices(labels: Tensor, seed: int) -> Tensor:
    """Clips whose own four rows are louder than the others by 0.08: (B, 12, 5)."""
    quiet = 0.4 + 0.02 * torch.rand(
        len(labels), CLASSES * ROWS, 5, generator=torch.Generator().manual_seed(seed)
    )
    own = nn.functional.one_hot(labels, CLASSES).repeat_interleave(ROWS, dim=1)
    return quiet + 0.08 * own[:, :, None]


@pytest.fixture
def subject():
    """Clips of classes 1 and 2, attacked to be named as each other; crops of all three."""
    labels = torch.tensor([1, 2] * 20)
    clean = voices(labels, 1)
    towards = voices(3 - labels, 2)
    attacked = subjects.Attacked(
        name="PGD waveform ε 0.002",
        attack="pgd",
        level="raw",
        made=50,
        x=towards,
        clean=clean,
        labels=labels,
        speakers=tuple("abc"[label] for label in labels),
    )
    tested = torch.tensor([0, 1, 2] * 4)
    return subjects.Subject(
        name="toy",
        model_name="toy",
        model=toy_model(),
        model_id="toy",
        layer="pool",
        layers=("pool",),
        clean=voices(tested, 3),
        labels=tested,
        speakers=tuple("abc"[label] for label in tested),
        crops=voices(torch.tensor([0, 1, 2] * 4), 4),
        seen=("a", "b"),
        attacks=(attacked,),
        left_out=("UAP waveform ε 0.002",),
        seed=1,
    )


def test_the_oracle_saves_what_no_honest_candidate_can(subject):
    # one candidate is one change for all: it cannot move two classes towards each other's place
    alone = voices(torch.tensor([0]), 4)
    (row,) = defended.study_oracle(replace(subject, crops=alone))
    assert row["fooled"] == 40
    assert row["honest"]["value"] <= 0.5
    assert row["honest_descent"]["value"] <= 0.5
    assert row["oracle_stronger_once"]["value"] == 1
    assert row["oracle_stronger"]["value"] == 1
    assert row["classes_with_candidate"] == 0


def test_the_oracle_looks_at_the_pair(subject):
    (attacked,) = subject.attacks
    shuffled = replace(attacked, clean=attacked.clean.flip(0))  # each the original of the other
    (row,) = defended.study_oracle(replace(subject, attacks=(shuffled,)))
    assert row["oracle_stronger_once"]["value"] == 0


def test_the_flipped_sign_counts_too(subject):
    (attacked,) = subject.attacks
    change = attacked.clean - attacked.x
    assert defended.oracle_rights(subject, attacked, change)[0].all()
    first, either = defended.oracle_rights(subject, attacked, -change)
    assert not first.any()
    assert either.all()


def test_directions_raise_front_and_lower_tail(subject):
    settings = PoolSettings(front=1, tail=1)
    clean = voices(torch.tensor([1, 2]), 7)
    found = defended.paired_directions(subject, clean, settings)
    order = NipPool.fit(
        subject.model, [Batch(clean)], layer="pool", model_id="toy", settings=PoolSettings(1, 1)
    ).order.long()
    for item in range(2):
        assert (found[item, order[item, 0]] > 0).all()
        assert (found[item, order[item, -1]] < 0).all()
        assert not found[item, order[item, 1:-1]].any()


def test_steps_of_script_and_paper():
    directions = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1))
    script = defended.of_script(directions, x)
    assert script.square().mean(dim=(1, 2)).sqrt().tolist() == pytest.approx([0.001] * 2)
    paper = defended.of_paper(directions, x).flatten(1)
    span = paper.amax(dim=1) - paper.amin(dim=1)
    assert torch.allclose(span, x.mean(dim=(1, 2)))


def test_sweeps_cover_each_setting_once_and_stay_beside_noise(subject):
    rows = defended.study_sweeps(subject)
    settings = [(row["sweep"], row["setting"]) for row in rows]
    assert len(set(settings)) == len(settings)
    assert ("k1 / k2", "5 / 1") in settings
    assert ("k1 / k2", "10 / 10") not in settings  # of twelve neurons
    drawn = next(row for row in rows if row["setting"] == "0.1")
    assert (drawn["candidates"], drawn["draws"]) == (1, 3)
    assert all(len(row["attacks"]) == 1 for row in rows)


def test_front_falls_and_tail_rises_where_an_attack_halves_both(subject):
    (attacked,) = subject.attacks
    order = influence.influence(subject, attacked.clean, attacked.labels).argsort(dim=1)
    x = attacked.clean.clone()
    for item, row in enumerate(order):
        x[item, row[[0, -1]]] /= 2
    found = influence.study_influence(replace(subject, attacks=(replace(attacked, x=x),)))
    (row,) = found["rows"]
    assert row["attack_true_both"]["value"] == 1
    assert row["excess_true_front"]["high"] < 0
    assert found["other_clip"]["pairs"] == 12
    assert found["curves"][attacked.name]["clean"][0] == 1


def test_nothing_moves_where_nothing_is_changed(subject):
    moved, curves = influence._moved(
        subject, subject.clean, subject.labels, {"attack": subject.clean}
    )
    assert not any(values.any() for values in moved.values())
    assert curves["attack_true"] == curves["clean"]


def test_template_and_matches_by_hand(subject):
    found = influence.study_template(subject)
    assert (found["classes"], found["items"]) == (3, 12)
    sizes = [g["remaining"] for g in found["intersections"]]
    assert sizes[0] == 2  # of twelve, five in front and five at the tail
    assert sizes == sorted(sizes, reverse=True)
    assert found["overlap"]["front"]["same_class"]["value"] >= ROWS
    assert found["overlap"]["front"]["by_chance"] == pytest.approx(25 / 12)
    assert [m["by_chance"] for m in found["matches"]] == pytest.approx([1 / 3] * 2)


def test_overlap_by_hand():
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1]], dtype=float)
    found = influence.overlap(mask, np.array([0, 0, 1, 1]), seed=0)
    assert found["same_class"]["value"] == 1
    assert found["other_class"]["value"] == 0.5
    assert found["by_chance"] == 1


def test_explained_variance_by_hand():
    classes = np.repeat([0, 1], 10)
    assert influence.explained(classes.astype(float), classes, seed=0)["share"] == 1
    alike = influence.explained(np.tile([0.0, 1.0], 10), classes, seed=0)
    assert alike["share"] == 0
    assert alike["p"] == 1
    assert influence.explained(np.zeros(20), classes, seed=0)["share"] is None


def test_distance_of_distributions_by_hand():
    far = influence._distance(np.zeros((4, 5)), np.ones((4, 5)), list("aabb"), seed=0)
    assert far["value"] == 1
    same = influence._distance(np.ones((4, 5)), np.ones((4, 5)), list("aabb"), seed=0)
    assert same["value"] == 0


def evaluated() -> dict:
    """Four attacks; a defence that saves more is more consistent, but for one adaptive cell."""

    def row(defence: str, dsr: float | None, tknc: float) -> dict:
        return {
            "defence": defence,
            "dsr": None if dsr is None else {"value": dsr, "low": 0, "high": 1},
            "tknc": tknc,
        }

    rows = [row(name, i / 10, i / 10) for i, name in enumerate("pqrst")]
    cells = [
        {
            "system": "toy",
            "set": f"attack{n}",
            "level": "raw",
            "protocol": "unaware",
            "defences": [*rows, row("noise as strong as p", 0.05 * n, 0.1), row("few", None, 0.9)],
        }
        for n in range(4)
    ]
    aware = {**cells[0], "protocol": "adaptive", "defences": [row("p", 1.0, 0.0)] * 50}
    return {"title": "toy", "seed": 1, "cells": [*cells, aware]}


def test_consistency_leaves_out_what_was_not_measured():
    found = influence.study_consistency(evaluated(), seed=0)
    assert len(found["points"]) == 24
    by_name = {c["over"]: c for c in found["correlations"] if c["rho"]}
    assert by_name["all cells, without matched noise"]["rho"]["value"] == pytest.approx(1)
    assert by_name["all cells, without matched noise"]["points"] == 20
    assert found["within_attacks"]["mean"]["value"] == pytest.approx(1)


def test_correlations_without_ranks_are_not_evaluated():
    results = evaluated()
    for cell in results["cells"]:
        cell["defences"] = [row for row in cell["defences"] if row["defence"] in "pq"]
    found = influence.study_consistency(results, seed=0)
    assert [c["rho"] for c in found["correlations"] if "noise alone" in c["over"]] == [None]
    assert found["within_attacks"]["mean"] is None


def test_from_a_study_to_the_page(subject, tmp_path, monkeypatch):
    some = list(defended.variants(subject))[:3]
    monkeypatch.setattr(defended, "variants", lambda subject: iter(some))
    results = {
        "seed": 1,
        "split_sha256": "f" * 64,
        "versions": {"torch": "x"},
        "threads": 1,
        "cpu_s": 60.0,
        "systems": {"toy": measure.study(subject, [*measure.STUDIES])},
        "consistency": influence.study_consistency(evaluated(), seed=0),
    }
    json.dumps(results, allow_nan=False)
    text = page.PAGE.made_from({"nip_studies": results}, partial=True)
    page.PAGE.draw({"nip_studies": results}, tmp_path)
    row = results["systems"]["toy"]["oracle"][0]
    assert f"| {page.percent(row['oracle_stronger'])} |" in text
    wrapped = " ".join(text.split())  # prose is wrapped
    assert "fewer than 30 examples that fool: UAP waveform ε 0.002" in wrapped
    assert page.tallies(results) in wrapped
    for name in ("nip_influence.png", "nip_tknc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text


def test_tally_counts_intervals_beside_zero():
    gains = [{"low": 0.1, "high": 0.2}, {"low": -0.1, "high": 0.2}, {"low": -0.2, "high": -0.1}]
    rows = [{"attacks": [{"gain": gain} for gain in gains]}]
    assert page.tally(rows) == {"cells": 3, "above": 1, "below": 1}


@pytest.fixture
def small(monkeypatch) -> ModuleType:
    monkeypatch.setattr(subjects, "MIN_SUCCESSES", 1)
    monkeypatch.setattr(subjects, "MOST_CANDIDATES", 32)
    return subjects


def test_sets_are_read_and_nothing_is_made(small, write_config, tmp_path):
    config = read_config(write_config(attacks=[{"attack": "fgsm", "eps": [0.05], "items": 4}]))
    with pytest.raises(InputError, match="no finished set of x"):
        small.read_subjects(config, tmp_path / "sets")
    Runner(config, tmp_path / "sets").run()
    (subject,) = small.read_subjects(config, tmp_path / "sets")
    (attacked,) = subject.attacks
    assert 0 < len(attacked.labels) <= attacked.made == 4
    assert attacked.name == "FGSM waveform ε 0.05"
    assert not subject.right(attacked.x, attacked.labels).any()
    assert subject.right(attacked.clean, attacked.labels).all()
    assert len(subject.crops) == 32


def test_a_pool_that_saw_a_test_item_is_refused(small, write_config, tmp_path, monkeypatch):
    config = read_config(write_config(attacks=[{"attack": "fgsm", "eps": [0.05], "items": 4}]))
    Runner(config, tmp_path / "sets").run()
    monkeypatch.setattr(
        small,
        "role_recordings",
        lambda config, subset, role: role_recordings(config, subset, "test"),
    )
    with pytest.raises(InputError, match="test items were seen when the pool was fitted"):
        small.read_subjects(config, tmp_path / "sets")
