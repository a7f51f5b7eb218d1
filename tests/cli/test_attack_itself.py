"""Attacks on a recording that is verified against itself, where no enrolment is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nip_audio import WaveformAdapter, read_audio
from nip_audio.attacks.registry import ATTACKS, make_attack, names_at
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError
from nip_audio.models.pretrained import ModelCard, PretrainedModel
from nip_audio.workflows.attack import attack_file
from nip_audio.workflows.files import AttackGoal

EPS = 0.002  # the command's own
CARD = {"name": "bowl", "files": {"hyperparams.yaml": "0" * 64}, "sample_rate_hz": 16000}
NAMES = [
    name
    for name in names_at("raw")
    if (ATTACKS[name].kind.white_box or name == "fakebob") and not name.endswith("-ala")
]
SETTINGS: dict[str, dict[str, object]] = {
    "eot": {"draws": 2},
    "pgd-l2": {"eps": EPS * 8000**0.5},
    "autoattack": {"steps": 5, "square_steps": 20},
    "cw": {"steps": 50, "binary_search_steps": 3, "initial_const": 1.0},
    "fakebob": {"steps": 10},
}


class Bowl(nn.Module):
    """Two layers: h = (x − centre) / (ε / 2), and (1, mean square of h): flat at the centre."""

    def __init__(self, centre: torch.Tensor, floor: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.floor = floor

    def forward(self, x, lengths=None):
        hidden = (x - self.centre) / (EPS / 2)
        bowl = nn.functional.relu(hidden.square().mean(dim=1) - self.floor)
        return torch.stack([torch.ones_like(bowl), bowl], dim=1)


def model_at(source: Path, floor: float = 0.0) -> PretrainedModel:
    network = Bowl(read_audio(source).samples, floor)
    model = InstrumentedModel(network, bounds=Bounds(-1.0, 1.0)).eval().requires_grad_(False)
    return PretrainedModel(ModelCard(Path("nowhere"), CARD), model)


@pytest.fixture
def source(write_sound, tone) -> Path:
    return write_sound("source.wav", tone(0.5))


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_is_stuck_at_the_recording_itself(source, tmp_path, name):
    pretrained, settings = model_at(source), dict(SETTINGS.get(name, {}))
    entry, eps = ATTACKS[name], settings.pop("eps", EPS)
    attack = make_attack(name, eps=eps if "eps" in entry.settings else None, settings=settings)
    results = [
        attack_file(pretrained, source, tmp_path / out, attack, AttackGoal(0.7), WaveformAdapter())
        for out in ("a.wav", "b.wav")
    ]
    first, again = results
    assert first.score_before == pytest.approx(1.0)
    assert first.fools
    assert first.score_after < 0.7
    assert first.aim == "no longer verified against the recording itself"
    if attack.limit is not None:
        assert first.linf <= EPS + 1 / 65536
    assert first.written_sha256 == again.written_sha256


def test_the_goal_knows_that_it_starts_at_a_maximum(source):
    pretrained, samples = model_at(source), read_audio(source).samples
    objective = AttackGoal(0.7).objective(pretrained, samples)
    assert objective.stationary_start
    x = samples[None].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective.scores(Batch(x)).sum(), x)
    assert gradient.eq(0).all()


def test_a_model_without_gradient_around_the_recording_is_an_error(source, tmp_path):
    attack, out = make_attack("fgsm", eps=EPS), tmp_path / "a.wav"
    with pytest.raises(AttackError, match="no gradient at this input, nor close to it"):
        attack_file(model_at(source, 9.0), source, out, attack, AttackGoal(0.7), WaveformAdapter())
    assert not out.exists()


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_the_command_needs_no_enrolment(run, monkeypatch, source, tmp_path, name):
    pretrained = model_at(source)
    monkeypatch.setattr("nip_audio.cli._inputs.load_model", lambda *_: pretrained)
    code, out, err = run(
        "attack", source, "--attack", name, "--threshold", 0.7, "--out", tmp_path / "adv", "--json"
    )
    assert code == 0, err
    (result,) = json.loads(out)["written"]
    assert result["fools"]
    assert result["linf"] <= EPS + 1 / 65536
    written = read_audio(tmp_path / f"adv/source.{name}.wav").samples
    assert not np.array_equal(written, read_audio(source).samples)


def test_the_command_says_if_there_is_no_gradient(run, monkeypatch, source, tmp_path):
    pretrained = model_at(source, 9.0)
    monkeypatch.setattr("nip_audio.cli._inputs.load_model", lambda *_: pretrained)
    code, _, err = run("attack", source, "--threshold", 0.7, "--out", tmp_path / "adv")
    assert code == 65
    assert "the system gives no gradient at this input, nor close to it" in " ".join(err.split())
    assert not list(tmp_path.glob("adv/*"))
