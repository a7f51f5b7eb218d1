"""Fit the detector of a purifier's response: what it learns from, and that it goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import State
from nip_audio.errors import CalibrationError
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening import learning, lessons
from nip_audio.screening.changes import CHANGES
from nip_audio.screening.learning import LESSONS, learn_response, response_config
from nip_audio.screening.lessons import ATTACKS, PURIFIED, AttackLesson
from nip_audio.screening.probes import Place, ResponseProbe

RATE_HZ = 16_000
FEW = ("none", "white", "gain", "8 kHz")
PGD = AttackLesson("pgd", "reject", (0.02, 0.04), {"steps": 2})
FGSM = AttackLesson("fgsm", "accept", (0.02, 0.04), share=0.5)
OWNERS = [f"s{i % 6}" for i in range(20)]


@pytest.fixture(scope="module")
def windows(voice) -> list[torch.Tensor]:
    return [torch.from_numpy(voice(i % 6, i // 6, 0.6)) for i in range(20)]


@pytest.fixture
def probe(embedding_model) -> ResponseProbe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = InverseNet(1, width=4)
        torch.nn.init.normal_(net.out.weight, std=0.1)
    purifier = GuidedNip(
        net.eval().requires_grad_(False), bounds=embedding_model.input_bounds, training={}
    )
    config = NccrConfig(("frames.2",), (Noise("gaussian", "raw", 0.004),), 1)
    return ResponseProbe(config, names=False, purifier=purifier, window_s=0.6)


@pytest.fixture
def few_lessons(monkeypatch):
    monkeypatch.setattr(learning, "CHANGES", {name: CHANGES[name] for name in FEW})
    monkeypatch.setattr(learning, "ATTACKS", (PGD, FGSM))
    monkeypatch.setattr(learning, "_EPOCHS", 60)
    # a few steps move a network of random weights little farther than harmless changes do
    monkeypatch.setattr(learning, "_MOVED", 0.0)


@pytest.fixture
def learn(embedding_model, probe, windows, few_lessons):  # noqa: ARG001
    pretrained = SimpleNamespace(model=embedding_model, model_id="tiny")

    def call(*, owners=OWNERS, seed=0, **settings):
        usual = {"file_of": range(20), "keep_outliers": True, "sample_rate_hz": RATE_HZ}
        return learn_response(
            pretrained, probe, windows, owners, seed=seed, **usual | settings
        )[0]  # fmt: skip

    return call


@pytest.fixture
def calls(monkeypatch):
    """Number of batches that were measured."""
    made, measure = [], learning.measure_windows

    def counted(*args, **settings):
        made.append(len(args[2]))
        return measure(*args, **settings)

    monkeypatch.setattr(learning, "measure_windows", counted)
    return made


def same(first: State, other: State) -> bool:
    return first.meta == other.meta and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in first.tensors.items()
    )


def test_learns_from_every_lesson(learn):
    done: list[str] = []
    learnt = learn(progress=done.append)
    assert done == [*FEW, PURIFIED, PGD.name, FGSM.name]
    detector = learnt.detector
    harmless = [*FEW, PURIFIED]
    assert list(detector.scores) == harmless
    kinds = {"none": "level", "white": "noise", "gain": "level", "8 kHz": "telephone"}
    assert detector.kinds == kinds | {PURIFIED: "codec"}
    assert detector.files == 20
    assert list(learnt.distances) == done
    for name in harmless:
        assert len(learnt.distances[name]) == 20
        np.testing.assert_array_equal(detector.scores[name], learnt.distances[name])
    assert 0 < len(learnt.distances[FGSM.name]) <= 10
    for found in learnt.distances.values():
        assert (np.diff(found) >= 0).all()
        assert found.min() >= 0
    families = set(detector.examples.families)
    assert families == {*harmless, "attack"}
    assert len(detector.examples.names) == sum(map(len, learnt.distances.values()))
    spectra, owners = learnt.spectra(narrow=True)
    assert (len(spectra), owners) == (20, OWNERS)
    assert len(learnt.spectra(narrow=False)[0]) == 4 * 20


def test_a_front_end_that_cannot_be_inverted_teaches_nothing_purified(learn, monkeypatch):
    monkeypatch.setattr(lessons, "can_resynthesize", lambda front_end: False)
    detector = learn().detector
    assert set(detector.scores) == set(detector.kinds) == set(FEW)
    assert detector.threshold(0.05, Place()) > 0


def test_thresholds_are_of_speakers_that_were_not_heard(learn):
    """The final network has heard them all and mistakes fewer."""
    learnt = learn()
    detector = learnt.detector
    none = [f == "none" for f in detector.examples.families]
    heard = detector.network.distance(detector.examples.rows[none])
    assert detector.distances.mean() > np.logaddexp(0, heard).mean()


def test_one_seed_gives_one_detector(learn):
    first, again, other = (learn(seed=seed).detector.to_state("tiny") for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("stopped", [1, 5])
def test_an_interrupted_fit_goes_on_without_measuring_again(stopped, learn, calls, tmp_path):
    whole = learn()
    full = list(calls)
    calls.clear()
    done: list[str] = []

    def interrupt(lesson: str) -> None:
        done.append(lesson)
        if len(done) == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(kept=tmp_path, progress=interrupt)
    before = len(calls)
    assert 0 < before < len(full)
    resumed = learn(kept=tmp_path)
    assert calls == full
    assert same(resumed.detector.to_state("tiny"), whole.detector.to_state("tiny"))
    learn(kept=tmp_path)
    assert calls == full  # nothing is left to measure
    learn(kept=tmp_path, seed=5)
    assert len(calls) > len(full)  # of another fit, everything


def test_too_few_speakers_are_refused_before_anything_is_measured(learn, calls):
    with pytest.raises(CalibrationError, match="of 4 speakers or files, expected at least 5"):
        learn(owners=[f"s{i % 4}" for i in range(20)])
    assert not calls


def test_no_attack_moves_the_model(learn, monkeypatch):
    weak = (replace(PGD, eps=(1e-7, 1e-7)), replace(FGSM, eps=(1e-7, 1e-7)))
    monkeypatch.setattr(learning, "ATTACKS", weak)
    with pytest.raises(CalibrationError, match="no attack moved .* use `clean_only=True`"):
        learn()


def test_an_attack_that_moves_nothing_is_no_lesson(learn, monkeypatch):
    weak = replace(FGSM, eps=(1e-7, 1e-7))
    monkeypatch.setattr(learning, "ATTACKS", (PGD, weak))
    learnt = learn()
    assert PGD.name in learnt.distances
    assert weak.name not in learnt.distances


def test_measured_lessons_survive_their_file():
    rows = learning._Rows(
        np.random.default_rng(0).normal(size=(2, 3)), np.eye(2), (4, 7), ("a µ-law", "b ±1")
    )
    read = learning._Rows.load(rows.dump())
    np.testing.assert_array_equal(read.rows, rows.rows)
    np.testing.assert_array_equal(read.spectra, rows.spectra)
    assert (read.places, read.names) == (rows.places, rows.names)
    empty = learning._Rows(np.zeros((0, 0)), np.zeros((0, 0)), (), ())
    assert learning._Rows.load(empty.dump()).places == ()


def test_lessons_are_the_changes_and_the_attacks():
    assert (*CHANGES, PURIFIED, *(attack.name for attack in ATTACKS)) == LESSONS
    assert len(set(LESSONS)) == len(LESSONS)


def test_the_second_largest_noise_is_measured():
    noises = tuple(Noise("gaussian", "raw", scale) for scale in (0.001, 0.004, 0.008))
    config = NccrConfig(("frames.2",), noises, 3)
    assert response_config(config) == NccrConfig(("frames.2",), noises[1:2], 1)
    assert response_config(replace(config, noises=noises[:1])).noises == noises[:1]


def test_thresholds_follow_the_lessons(learn):
    detector = learn().detector
    wide = max(detector.scores[name].max() for name in FEW[:3])
    narrow = detector.scores["8 kHz"].max()
    rate = 1 / 21
    assert detector.threshold(rate, Place()) == max(math.log(2), wide)
    assert detector.threshold(rate, Place(narrow=True)) == max(math.log(2), narrow)


def test_files_that_look_attacked_are_left_out_and_the_rest_is_learnt(
    embedding_model, probe, windows, few_lessons, monkeypatch
):
    pretrained = SimpleNamespace(model=embedding_model, model_id="tiny")
    settings = {"file_of": [i // 2 for i in range(20)], "sample_rate_hz": RATE_HZ, "seed": 0}
    monkeypatch.setattr(learning, "LOOKS_ATTACKED", np.inf)
    every, left_out = learn_response(pretrained, probe, windows, OWNERS, **settings)
    assert not left_out
    worst = int(every.recorded.argmax())
    monkeypatch.setattr(learning, "LOOKS_ATTACKED", float(every.recorded.max()))
    fewer, left_out = learn_response(pretrained, probe, windows, OWNERS, **settings)
    assert left_out == {worst // 2: every.recorded.max()}
    assert (every.detector.files, fewer.detector.files) == (10, 9)
    assert len(fewer.recorded) == len(fewer.owners) == 18
    for name, scores in fewer.detector.scores.items():
        assert len(scores) == len(every.detector.scores[name]) - 2
        assert len(fewer.harmless[name]) == 18
    same, left_out = learn_response(
        pretrained, probe, windows, OWNERS, keep_outliers=True, **settings
    )
    assert not left_out
    np.testing.assert_array_equal(same.recorded, every.recorded)
