"""Nothing is decided by a number that is NaN or infinite, wherever it comes from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio.audio.io import read_audio
from nip_audio.audio.manifest import walk_audio
from nip_audio.core.finite import require_finite
from nip_audio.core.metrics import auroc, detection_rate, equal_error_rate, min_dcf
from nip_audio.core.state import State, load_state, save_state
from nip_audio.core.strict_json import load_json
from nip_audio.detectors.conformal import conformal_p_value
from nip_audio.errors import AudioError, CalibrationError, EnrolmentError, InputError, StateError
from nip_audio.models.enrolment import Enrolment, VerificationResult, embed_audio
from nip_audio.models.identification import Candidate, EnrolledCandidate, OpenSetResult
from nip_audio.screening.calibration import Calibration, find_threshold
from nip_audio.screening.nccr_detector import NccrDetector

WRONG = [float("nan"), float("inf"), float("-inf")]

pytestmark = pytest.mark.parametrize("wrong", WRONG)


def test_a_number_is_named(wrong):
    require_finite(distance=0.0, threshold=None)
    with pytest.raises(InputError, match=f"false rate is {wrong}, expected a finite number"):
        require_finite(distance=0.0, false_rate=wrong)


def test_scores_of_trials(wrong):
    good = np.array([0.1, 0.9])
    for call in (
        equal_error_rate,
        min_dcf,
        auroc,
        lambda a, b: detection_rate(a, b, false_positive_rate=0.5),
    ):
        for pair in ((good, np.array([wrong, 0.2])), (np.array([0.2, wrong]), good)):
            with pytest.raises(InputError, match="scores holds values that are NaN or infinite"):
                call(*pair)


def test_a_p_value(wrong):
    with pytest.raises(InputError, match="distance is"):
        conformal_p_value([0.1, 0.2], wrong)
    with pytest.raises(CalibrationError, match="clean distance is not finite"):
        conformal_p_value([0.1, wrong], 0.1)


def test_verification_and_identification(wrong):
    assert VerificationResult(0.5, 0.4).accepted
    for values in ((wrong, 0.4), (0.5, wrong)):
        with pytest.raises(InputError, match="expected a finite number"):
            VerificationResult(*values)
    with pytest.raises(InputError, match="score is"):
        OpenSetResult((EnrolledCandidate("ann", wrong),), 0.4, "cosine", 1)
    with pytest.raises(InputError, match="threshold is"):
        OpenSetResult((EnrolledCandidate("ann", 0.5),), wrong, "cosine", 1)
    with pytest.raises(InputError, match="posterior is"):
        Candidate("ann", 0.5, wrong)


def test_enrolments_and_plda(wrong, plda):
    bad = torch.tensor([[0.5, wrong]])
    with pytest.raises(EnrolmentError, match="NaN or infinite in .ann."):
        Enrolment("m", ("ann",), (bad,), {"ann": ["00"]})
    with pytest.raises(InputError, match="the PLDA holds .* in .loading."):
        replace(plda, loading=plda.loading * wrong)
    with pytest.raises(InputError, match="threshold is"):
        replace(plda, threshold=wrong)


@pytest.mark.parametrize(
    "field", ["verification_threshold", "domain_distances", "consistencies", "scale"]
)
def test_calibrations(wrong, calibration, field):
    value = getattr(calibration, field)
    bad = np.append(value, wrong) if isinstance(value, np.ndarray) else wrong
    with pytest.raises(CalibrationError, match="the calibration holds values that are NaN"):
        replace(calibration, **{field: bad})


@pytest.mark.parametrize("part", ["center_", "scale_", "precision_"])
def test_the_detector_of_a_calibration(wrong, calibration, part, monkeypatch):
    estimator = calibration.detector.estimator
    bad = getattr(estimator, part).copy()
    bad.flat[0] = wrong
    monkeypatch.setattr(estimator, part, bad)
    with pytest.raises(CalibrationError, match="the calibration holds values that are NaN"):
        replace(calibration)


@pytest.mark.parametrize("what", ["distance", "threshold"])
def test_a_verdict(wrong, screener, folder, monkeypatch, what):
    file = screener.measurer(next(walk_audio(folder)))
    assert screener.judge.judge(file).distance is not None
    monkeypatch.setattr(NccrDetector, what, lambda *_: wrong)
    with pytest.raises(InputError, match=f"{what} is {wrong}, expected a finite number"):
        screener.judge.judge(file)


def test_files_of_state(wrong, tmp_path, calibration, pretrained):
    path = tmp_path / "a.state"
    save_state(path, State("thing", "m", {"x": torch.tensor([1.0, wrong])}, {}))
    with pytest.raises(StateError, match="a.state holds values that are NaN or infinite in .x.,"):
        load_state(path, kind="thing")
    good = tmp_path / "good.calibration"
    calibration.save(good)
    state = load_state(good, kind="calibration")
    tensors = dict(state.tensors)
    tensors["detector.precision"] = tensors["detector.precision"] * wrong
    bad = tmp_path / "bad.calibration"
    save_state(bad, replace(state, tensors=tensors))
    with pytest.raises(StateError, match="bad.calibration holds values that are NaN"):
        Calibration.load(bad, model_id=pretrained.model_id)


def test_json(wrong):
    assert load_json("[1e300, 2]") == [1e300, 2]
    for text in (json.dumps([wrong]), "[1e999]", '{"threshold": -1e400}'):
        with pytest.raises(ValueError, match="is not a JSON number|is too large"):
            load_json(text)


def test_thresholds(wrong, pretrained, calibration):
    with pytest.raises(InputError, match="threshold is .*, expected a finite number"):
        find_threshold(pretrained, calibration, wrong)


def test_an_embedding(wrong, pretrained, monkeypatch, write_sound, voice):
    samples = read_audio(write_sound(samples=voice(0, 0))).samples
    assert embed_audio(pretrained, samples).norm() == pytest.approx(1.0)
    monkeypatch.setattr(type(pretrained.model), "embed", lambda *_: torch.tensor([[1.0, wrong]]))
    with pytest.raises(AudioError, match="the model's embedding of it is zero, NaN or infinite"):
        embed_audio(pretrained, samples)
