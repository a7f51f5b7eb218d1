"""The study of NCCR detection on synthetic voices: what is told apart is checked, not how well."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from nip_audio.attacks.registry import make_attack
from nip_audio.audio.meh_fest import MehFest
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.detectors.baselines.coverage import BoundaryCoverage
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import conformal_threshold
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import NccrMeasure
from nip_audio.detectors.perceptron import AttackPerceptron
from nip_audio.errors import CalibrationError
from nip_audio.evaluation import detector_judges
from nip_audio.evaluation.config import AttackPlan
from nip_audio.evaluation.controls import CONTROLS
from nip_audio.evaluation.detector_judges import (
    CLEAN_ONLY,
    RATES,
    Known,
    Part,
    RowJudge,
    clean_judge,
    published_judge,
    trained_judge,
)
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.systems import EvaluatedSystem, Item
from studies._lib.records import plain, read_record
from studies.nccr import detection_study
from studies.nccr.detection_study import (
    COMBINE,
    L0_SCALAR,
    L2_SCALAR,
    MAIN,
    PUBLISHED,
    TOLERATED,
    Counts,
    DetectionStudy,
    StudiedCell,
    items_of,
)
from studies.nccr.results import DetectionCell, DetectionResults

LAYERS = ("frames.0", "embedding")
CONFIG = NccrConfig(LAYERS, (Noise("gaussian", "raw", 0.001), Noise("gaussian", "raw", 0.004)), 1)
MEASURE = NccrMeasure(CONFIG)


def known(rows: np.ndarray, speakers: int = 10) -> Known:
    return Known(rows, tuple(f"s{i % speakers}" for i in range(len(rows))))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_clean_judge_keeps_its_false_positive_rate_on_new_speakers(rng):
    clean = known(rng.normal(size=(400, 4)))
    judge = clean_judge("j", "m", clean, make_pipeline(CleanDistance()))
    new = rng.normal(size=(4000, 4))
    assert judge.flagged(new, 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert judge.flagged(new, 0.01).mean() == pytest.approx(0.01, abs=0.01)
    assert judge.flagged(np.full((1, 4), 9.0), 0.01).all()


def test_copies_are_clean_but_do_not_count_for_the_threshold(rng):
    clean, copies = known(rng.normal(size=(200, 3))), known(rng.normal(6, 1, size=(100, 3)))
    strict = clean_judge("j", "m", clean, make_pipeline(CleanDensity()))
    tolerant = clean_judge("j", "m", clean, make_pipeline(CleanDensity()), copies=copies)
    assert strict.flagged(copies.rows, 0.05).mean() > 0.9
    assert tolerant.flagged(copies.rows, 0.05).mean() < 0.2
    assert tolerant.flagged(clean.rows, 0.05).mean() < 0.1


def test_a_trained_judge_finds_its_attack_and_keeps_its_rate(rng):
    def rows(center: float, count: int) -> np.ndarray:
        rates = np.exp(rng.normal(center, 1, size=(count, 3)))
        return np.column_stack([rates, rng.normal(size=count), np.full(count, 100.0)])

    clean, attacked = known(rows(0, 300)), known(rows(3, 200))
    judge = trained_judge("j", "m", clean, attacked, signed=1, knows="own")
    assert judge.flagged(rows(3, 200), 0.05).mean() > 0.8
    assert judge.flagged(rows(0, 2000), 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_each_part_compares_with_the_rows_held_out_from_it():
    """Scores of the second part are ten times as large: what counts is the place among its own."""
    first = Part(lambda rows: rows[:, 0], np.arange(1.0, 61.0))
    second = Part(lambda rows: 10 * rows[:, 0], np.arange(10.0, 410.0, 10.0))
    judge = RowJudge("j", "k", "m", first.score, (first, second))
    expected = np.array([101, 1 + 31 + 11, 1]) / 101
    np.testing.assert_allclose(judge.p_values(np.array([[0.5], [30.0], [99.0]])), expected)
    np.testing.assert_array_equal(judge.flagged(np.array([[60.0], [61.0]]), 0.01), [False, True])


def test_a_judge_of_one_part_flags_above_the_conformal_threshold(rng):
    part = Part(lambda rows: rows[:, 0], rng.normal(size=251))
    judge = RowJudge("j", "k", "m", part.score, (part,))
    rows = np.concatenate([rng.normal(size=2000), part.clean])[:, None]
    for rate in RATES:
        above = rows[:, 0] > conformal_threshold(part.clean, rate)
        np.testing.assert_array_equal(judge.flagged(rows, rate), above)


def test_too_few_clean_rows_for_a_rate_are_refused(rng):
    part = Part(lambda rows: rows[:, 0], rng.normal(size=98))
    with pytest.raises(CalibrationError, match="at least 99 are needed"):
        RowJudge("j", "k", "m", part.score, (part,))


def test_a_published_judge_takes_the_published_score(rng):
    clean = rng.uniform(0, 1, size=(200, 2))
    measure = ScoreChange(CONFIG)
    judge = published_judge(measure, clean)
    np.testing.assert_array_equal(judge.score(clean), clean.mean(axis=1))
    assert judge.flagged(clean, 0.05).mean() <= 0.05


@pytest.fixture
def many(system: EvaluatedSystem) -> EvaluatedSystem:
    """The system with 210 short calibration clips of its six voices, half of each take."""
    made = []
    for number in range(210):
        item = system.calibrate[number % 6]
        generator = torch.Generator().manual_seed(number)
        start = int(torch.randint(len(item.samples) - 4800, (1,), generator=generator))
        clip = item.samples[start : start + 4800] * (0.5 + 0.5 * torch.rand(1, generator=generator))
        made.append(Item(f"{item.id}.{number}", item.speaker, clip, item.content_sha256))
    return replace(system, calibrate=tuple(made))


def test_rows_are_measured_once_and_depend_on_the_clip_alone(many, tmp_path, monkeypatch):
    clips = [item.samples for item in many.calibrate[:3]]
    bank = RowBank(many, tmp_path, seed=1)
    first = bank.rows(MEASURE, clips)
    alone = bank.rows(MEASURE, clips[2:])
    np.testing.assert_array_equal(alone.rows[0], first.rows[2])
    assert first.seconds > 0

    def broken(*args: object, **kwargs: object) -> np.ndarray:
        raise AssertionError("measured again")

    monkeypatch.setattr(NccrMeasure, "measure", broken)
    again = RowBank(many, tmp_path, seed=1).rows(MEASURE, clips)
    np.testing.assert_array_equal(again.rows, first.rows)
    for other in (RowBank(many, tmp_path, seed=2), RowBank(many, tmp_path / "else", seed=1)):
        with pytest.raises(AssertionError, match="measured again"):
            other.rows(MEASURE, clips)


def test_what_a_measure_was_fitted_to_is_part_of_its_rows(many, tmp_path):
    clips = [item.samples for item in many.calibrate]
    bank = RowBank(many, tmp_path, seed=1)
    measure = BoundaryCoverage(LAYERS)
    few = bank.rows(measure, clips[40:44], fitted_to=clips[:4])
    more = bank.rows(measure, clips[40:44], fitted_to=clips[:40])
    assert (few.rows != more.rows).any()


class SmallStudy(DetectionStudy):
    def baselines(self):
        return (ScoreChange(CONFIG), BoundaryCoverage(LAYERS))


@pytest.fixture(scope="module")
def measured_rows(tmp_path_factory) -> Path:
    """Rows depend on the clip alone: what one test has measured another need not."""
    return tmp_path_factory.mktemp("rows")


@pytest.fixture
def study(many: EvaluatedSystem, measured_rows, tmp_path, monkeypatch) -> SmallStudy:
    monkeypatch.setattr(detector_judges, "AttackPerceptron", partial(AttackPerceptron, max_iter=20))
    chosen = [c for c in CONTROLS if c.name in (*TOLERATED, "0.1 s later")]
    monkeypatch.setattr(detection_study, "CONTROLS", chosen)
    return SmallStudy(
        system=many,
        bank=RowBank(many, measured_rows, seed=1),
        measure=MEASURE,
        quiet=MehFest(sample_rate_hz=16000),
        own={
            "FGSM": (AttackPlan("fgsm", eps=(0.01,), items=40, batch=40),),
            "PGD": (AttackPlan("pgd", eps=(0.01,), items=40, batch=40, settings={"steps": 2}),),
        },
        out=tmp_path / "own",
        counts=Counts(examples=8, baseline_examples=6, baseline_clean=8, controls=2, rounds=10),
        seed=1,
    )


def test_results_hold_every_part(study, many):
    attacked = replace(many, calibrate=())
    items = [i for i, right in zip(many.items, many.is_correct, strict=True) if right]
    plan = AttackPlan("fgsm", eps=(0.05,), items=8, batch=8)
    made = study._made(attacked, items[:8], plan, make_attack("fgsm", eps=0.05), what="cell")
    assert any(example.fooled for example in made.examples)
    row = DetectionCell("FGSM 0.05", 8, 0, attack="fgsm", eps=0.05)
    strangers = {"strangers": items_of(many.items[:3])}
    results = study.results([StudiedCell(row, made, against=True)], strangers)
    assert read_record(DetectionResults, json.loads(json.dumps(plain(results)))).clean
    knows = results.judges
    assert knows[CLEAN_ONLY] == "clean clips"
    assert "FGSM, PGD" in knows[COMBINE]
    assert knows["NCCR, perceptron on PGD"] == "own PGD on clean clips"
    assert knows["NCCR and decision, perceptron on PGD"] == "own PGD on clean clips"
    assert {PUBLISHED, L2_SCALAR, L0_SCALAR} <= set(knows)
    assert not any("own" in told for name, told in knows.items() if "clean only" in name)
    (cell,) = results.cells
    assert cell.examples == sum(example.fooled for example in made.examples)
    assert set(cell.judges) == set(results.judges)
    assert all(0 <= judged.auroc.value <= 1 for judged in cell.judges.values())
    assert set(cell.roc) == {CLEAN_ONLY, COMBINE}
    assert cell.roc[COMBINE][-1] == 1.0
    assert results.false_positives["strangers"].clips == 3
    against = results.baselines
    mine = against.judges[CLEAN_ONLY].mean.value
    for name, judged in against.judges.items():
        if name != CLEAN_ONLY:
            ahead = judged.beaten_by[CLEAN_ONLY].value
            assert ahead == pytest.approx(mine - judged.mean.value)
    assert "|Δscore| under noise, two-sided" in against.judges


def test_an_attacker_who_knows_the_detector_is_counted_with_what_is_flagged(study):
    plan = AttackPlan(
        "pgd-e2e", eps=(0.02,), items=2, batch=2, settings={"steps": 2, "restarts": 1}
    )
    rows = study.adaptive(plan)
    assert {row.judge for row in rows} == set(MAIN)
    for row in rows:
        assert row.attempts == 2
        assert (row.flagged is None) == (row.success.value == 0)
