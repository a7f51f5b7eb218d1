"""How a purifier answers: an attack is undone, noise is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Verification
from nip_audio.audio.io import read_audio
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.answer import ANSWER_NAMES, measure_answers
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import GaussianNoise
from tests.tolerance import assert_same_but_for_rounding

DEMO = "examples/enrolment/alba/alba-1.flac"


@pytest.fixture(scope="module")
def defended():
    pretrained = load_pretrained("xvector-libri251")
    path = pretrained.card.purifier_path
    assert path is not None
    return pretrained.model, GuidedNip.load(path, model_id=pretrained.model_id)


@pytest.fixture(scope="module")
def clips(request) -> Tensor:
    samples = read_audio(request.config.rootpath / DEMO).samples
    return samples[: 3 * 16_000].reshape(3, 16_000)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_an_attack_is_undone_and_noise_as_large_is_not(defended, clips):
    model, purifier = defended
    with torch.no_grad():
        voices = model.embed(Batch(clips))
    objective = Verification(model, voices.roll(1, 0), threshold=0.4, goal="accept")
    attack = GradientAttack("pgd", eps=0.002, steps=10)
    attacked = attack(objective, Batch(clips), generator=generator()).batch.x
    noise = 0.002 * torch.randn(clips.shape, generator=generator()).sign()
    kinds = {"clean": clips, "noise": clips + noise, "attacked": attacked}
    found = {
        kind: measure_answers(model, purifier, Batch(x), generator=generator())
        for kind, x in kinds.items()
    }
    for rows in found.values():
        assert rows.shape == (3, len(ANSWER_NAMES))
        assert np.isfinite(rows).all()
    distance = {kind: rows[:, 0] for kind, rows in found.items()}
    assert (distance["attacked"] > distance["noise"]).all()
    assert (distance["attacked"] > distance["clean"]).all()
    assert np.median(distance["attacked"]) > 2 * np.median(distance["noise"])


def test_answers_repeat_and_items_do_not_depend_on_each_other(defended, clips):
    model, purifier = defended
    first = measure_answers(model, purifier, Batch(clips), generator=generator())
    again = measure_answers(model, purifier, Batch(clips), generator=generator())
    assert np.array_equal(first, again)
    quiet = [0, 1, 2, *range(7, len(ANSWER_NAMES))]  # those without noise of their own
    alone = measure_answers(model, purifier, Batch(clips[1:2]), generator=generator())
    assert_same_but_for_rounding(
        torch.from_numpy(alone[0, quiet]).float(),
        torch.from_numpy(first[1, quiet]).float(),
        depth=30,
    )


def test_other_purifiers_and_padded_batches_are_refused(defended, clips):
    model, purifier = defended
    noise = GaussianNoise(snr_db=20, bounds=Bounds(-1.0, 1.0))
    with pytest.raises(InputError, match="works on raw"):
        measure_answers(model, noise, Batch(clips), generator=generator())
    padded = Batch(clips, torch.tensor([16_000, 12_000, 9_000]))
    with pytest.raises(InputError, match="items of one length"):
        measure_answers(model, purifier, padded, generator=generator())
