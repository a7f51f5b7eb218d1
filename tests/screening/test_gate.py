"""A calibration as the gate of a purifier."""

from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import CalibrationError, InputError
from nip_audio.evaluation.config import GatePlan
from nip_audio.evaluation.defences import applies, make_defences
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.gate import CalibratedGate


@pytest.fixture(scope="module")
def calibration(pretrained):
    return Calibration.load(pretrained.card.calibration_path, model_id=pretrained.model_id)


@pytest.fixture(scope="module")
def clips(voice):
    return [torch.from_numpy(voice(who, 0, s)) for who, s in ((1, 1.5), (2, 2.0), (3, 1.0))]


def test_neither_company_nor_padding_changes_an_answer(pretrained, calibration, clips):
    gate = CalibratedGate(pretrained, calibration)
    together = gate.distances(Batch.collate(clips))
    alone = [gate.distances(Batch(clip[None]))[0] for clip in clips]
    assert together == alone
    assert len(set(together)) == len(clips)


def test_flagged_is_farther_than_the_rate_allows(pretrained, calibration, clips):
    batch = Batch.collate(clips)
    for rate in (0.01, 0.5, 0.99):
        gate = CalibratedGate(pretrained, calibration, false_positive_rate=rate)
        limit = calibration.threshold(rate)
        expected = [distance > limit for distance in gate.distances(batch)]
        assert gate.flags(batch).tolist() == expected
    with pytest.raises(CalibrationError, match="are needed"):
        CalibratedGate(pretrained, calibration, false_positive_rate=1e-6)


def test_in_a_configuration_a_gate_stands_before_any_purifier(pretrained, calibration):
    path = pretrained.card.calibration_path
    plan = {"name": "median", "gate": GatePlan(path, 0.05)}
    found = make_defences([plan], pretrained, pretrained.model, [])
    names = [name for name in found if "gated by response at 0.05" in name]
    assert names == [
        "median 3, gated by response at 0.05",
        "noise as strong as median 3, gated by response at 0.05",
    ]
    assert applies(found[names[0]], "raw")
    assert not applies(found[names[0]], "input")
    with pytest.raises(InputError, match="were seen when the defence median 3, gated"):
        make_defences([plan], pretrained, pretrained.model, calibration.seen[:2])


def test_what_works_inside_the_network_cannot_be_gated(pretrained):
    plan = {"name": "sap", "gate": GatePlan(pretrained.card.calibration_path)}
    with pytest.raises(InputError, match="cannot be gated"):
        make_defences([plan], pretrained, pretrained.model, [])
