from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.evaluation.config import SystemPlan
from nip_audio.evaluation.systems import batch_of, build_system
from nip_audio.models.plda import PldaHead


def test_enrolled_system_knows_its_speakers(system):
    assert system.model.labels == tuple(f"s{i}" for i in range(6))
    assert len(system.items) == 12
    assert len(system.calibrate) == 6
    assert {item.speaker for item in system.items} == set(system.model.labels)
    assert system.is_correct.mean() > 0.5
    scores = system.model.scores(batch_of([system.items[3]]))[0]
    torch.testing.assert_close(system.scores(system.items)[3], scores, atol=1e-4, rtol=1e-4)


def test_order_comes_from_the_seed_alone(system, config):
    same = build_system(config.systems[0], config)
    other = build_system(config.systems[0], replace(config, seed=99))
    names = [item.id for item in system.items]
    assert [item.id for item in same.items] == names
    assert [item.id for item in other.items] != names
    assert sorted(item.id for item in other.items) == sorted(names)


def test_crops_have_names_of_their_own(config):
    plan = replace(config.systems[0], crop_s=0.4)
    system = build_system(plan, config)
    assert len(system.items) == 24
    assert len({item.id for item in system.items}) == 24
    assert {len(item.samples) for item in system.items} == {6400}


def test_identity_depends_on_who_is_enrolled(system):
    assert system.identity != system.pretrained.model_id


def test_unknown_subset_lists_those_there_are(config):
    plan = replace(config.systems[0], subset="music")
    with pytest.raises(
        InputError, match=r"no recording with role test in 'music'; its subsets are \['voices'\]"
    ):
        build_system(plan, config)


def test_strangers_to_a_closed_set_are_an_error(config):
    plan = SystemPlan("y", "xvector-libri251", "voices")
    with pytest.raises(InputError, match="6 speakers of voices are unknown .* enrol: true"):
        build_system(plan, config)


def test_a_test_clip_that_is_also_enrolled_is_refused(config, tmp_path):
    """By content: the two roles name different files."""
    with config.split.open() as file:
        rows = list(csv.DictReader(file))
    copied = config.data_root / "voices/s0/copy.flac"
    copied.write_bytes((config.data_root / "voices/s0/take0.flac").read_bytes())
    rows.append(rows[3] | {"path": "voices/s0/copy.flac"})
    split = tmp_path / "split.csv"
    with split.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    try:
        with pytest.raises(InputError, match="1 test items were seen when the enrolment"):
            build_system(config.systems[0], replace(config, split=split))
    finally:
        copied.unlink()


def test_enrolled_speakers_are_compared_by_the_models_plda(system, config):
    """As another system, with its log-likelihood ratios and a gradient to the waveform."""
    plda = build_system(replace(config.systems[0], back_end="plda"), config)
    assert plda.identity != system.identity
    assert plda.model.output_kind == "llr"
    assert plda.is_correct.mean() > 0.5
    batch = batch_of([plda.items[0]])
    x = batch.x.clone().requires_grad_(True)
    scores = plda.model.scores(batch.with_x(x))
    assert isinstance(plda.model.head, PldaHead)
    torch.testing.assert_close(scores, plda.model.head(plda.model.embed(batch)))
    (gradient,) = torch.autograd.grad(plda.model.logits(scores).max(), x)
    assert float(gradient.abs().max()) > 0


def test_a_model_without_plda_says_how_to_fit_one(config):
    plan = replace(config.systems[0], model="resnet34-libri30", back_end="plda")
    with pytest.raises(InputError, match="comes without a PLDA.*fit-plda"):
        build_system(plan, config)
