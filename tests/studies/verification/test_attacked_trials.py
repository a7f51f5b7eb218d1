from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from nip_audio.attacks.base import Attack
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.audio.manifest import Recording
from nip_audio.core.model import CosineHead
from nip_audio.errors import HashMismatchError, InputError, OutputError
from nip_audio.evaluation.identification import Crop
from studies.verification.attacked_trials import TrialAttack
from studies.verification.trials import Trial, Verifier, clips_of, is_target

EPS = 0.002


@dataclass(frozen=True)
class Counting(Attack):
    """PGD that counts its batches and may give up before one of them."""

    steps: int = 2
    white_box: ClassVar[bool] = True
    norm: ClassVar[str] = "linf"
    calls: ClassVar[list[int]] = []
    most: ClassVar[int] = 1000

    @property
    def name(self):
        return "counting"

    def _run(self, system, *, generator):
        if len(self.calls) >= self.most:
            raise KeyboardInterrupt
        self.calls.append(len(system.batch))
        return GradientAttack("pgd", EPS, steps=self.steps)._run(system, generator=generator)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(Counting, "calls", [])
    monkeypatch.setattr(Counting, "most", 1000)


def clip(speaker: str, take: int) -> Crop:
    generator = torch.Generator().manual_seed(ord(speaker) * 10 + take)
    levels = (6000 * (torch.rand(4000, generator=generator) - 0.5)).round()
    path = Path(speaker) / f"{take}.wav"
    return Crop(Recording(path.as_posix(), path, speaker), levels / 32768, f"{speaker}{take}")


@pytest.fixture
def trials() -> list[Trial]:
    pairs = ["aa", "ab", "bb", "ba", "cc", "cb"]
    return [Trial(clip(claimed, 0), clip(own, 1)) for claimed, own in pairs]


@pytest.fixture
def attack(tiny_model, trials) -> TrialAttack:
    verifier = Verifier("cosine", tiny_model, "tiny", CosineHead)
    return TrialAttack(
        verifier=verifier, side="test", attack=Counting(), trials=trials, threshold=0.5, seed=1,
        batch=2,
    )  # fmt: skip


@pytest.mark.parametrize("contrary", [False, True])
@pytest.mark.parametrize("side", ["test", "enrolment"])
def test_targets_lose_and_impostors_gain_whichever_side_is_changed(
    attack, trials, side, contrary, tmp_path
):
    """And the other way round where that is asked for."""
    attack = replace(attack, side=side, contrary=contrary)
    made = attack.make(tmp_path)
    verifier, own = attack.verifier, is_target(trials)
    enrolled, tested = (verifier.embed(clips_of(trials, s)) for s in ("enrolment", "test"))
    changed = verifier.embed(made.clips)
    after = verifier.score(enrolled, changed) if side == "test" else verifier.score(changed, tested)
    gain = after - verifier.score(enrolled, tested)
    gain = -gain if contrary else gain
    assert (gain[own] < -1e-4).all()
    assert (gain[~own] > 1e-4).all()
    delta = (made.clips - clips_of(trials, side)).abs()
    assert 0.5 * EPS < delta.max() <= EPS + 0.5 / 32768 + 1e-6
    levels = made.clips * 32768
    assert torch.equal(levels, levels.round())  # as a 16-bit file would have it
    assert sorted(Counting.calls) == [1, 1, 2, 2]  # targets apart from impostors
    assert made.gradients == pytest.approx(2)
    assert made.queries >= 1.99
    assert made.seconds > 0


def test_an_interrupted_run_goes_on_where_it_stopped(attack, tmp_path, monkeypatch):
    whole = attack.make(tmp_path / "whole").clips
    Counting.calls.clear()
    monkeypatch.setattr(Counting, "most", 2)
    with pytest.raises(KeyboardInterrupt):
        attack.make(tmp_path / "parts")
    assert not attack.finished(tmp_path / "parts")
    monkeypatch.setattr(Counting, "most", 4)
    progress = []
    resumed = attack.make(tmp_path / "parts", progress=progress.append)
    assert torch.equal(resumed.clips, whole)
    assert len(Counting.calls) == 4
    assert attack.finished(tmp_path / "parts")
    assert sum(progress) == 6
    assert torch.equal(attack.make(tmp_path / "parts").clips, whole)
    assert len(Counting.calls) == 4


def test_more_trials_make_only_those(attack, trials, tmp_path):
    few = replace(attack, trials=trials[:4]).make(tmp_path).clips
    Counting.calls.clear()
    more = attack.make(tmp_path).clips
    assert Counting.calls == [1, 1]
    assert torch.equal(more[:4], few)


def test_whatever_it_depends_on_makes_it_anew(attack, tmp_path):
    attack.make(tmp_path)
    for changed in (
        {"threshold": 0.4},
        {"seed": 2},
        {"attack": Counting(steps=3)},
        {"verifier": replace(attack.verifier, identity="other")},
        {"side": "enrolment"},
        {"contrary": True},
    ):
        Counting.calls.clear()
        replace(attack, **changed).make(tmp_path)
        assert len(Counting.calls) == 4, changed


def test_a_changed_file_is_an_error(attack, tmp_path):
    attack.make(tmp_path)
    path = sorted(tmp_path.rglob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HashMismatchError, match="was changed after it was written"):
        attack.make(tmp_path)


def test_bad_requests_are_errors(attack, tmp_path):
    with pytest.raises(InputError, match="got 0 trials in batches of 2, expected ≥ 1 each"):
        replace(attack, trials=[])
    with pytest.raises(InputError, match="got 6 trials in batches of 0"):
        replace(attack, batch=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        attack.make(tmp_path / "file")
