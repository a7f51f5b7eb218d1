"""How a purifier responds: an attack is undone, noise is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Verification
from nip_audio.audio.io import read_audio
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.response import measure_response, response_names, response_with_graph
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


CONFIG = NccrConfig(("frames.2", "frames.4"), (Noise("gaussian", "raw", 0.004),), 1)


def measured(defended, clips: Tensor):
    model, purifier = defended
    return measure_response(model, purifier, Batch(clips), CONFIG, generator=generator())


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
    found = {kind: measured((model.without_head(), purifier), x) for kind, x in kinds.items()}
    for rows in found.values():
        assert rows.shape == (3, len(response_names(CONFIG, head=False)))
        assert np.isfinite(rows).all()
    distance = {kind: rows[:, 0] for kind, rows in found.items()}
    assert (distance["attacked"] > distance["noise"]).all()
    assert (distance["attacked"] > distance["clean"]).all()
    assert np.median(distance["attacked"]) > 2 * np.median(distance["noise"])


def test_rows_repeat_and_do_not_depend_on_the_batch(defended, clips):
    first = measured(defended, clips)
    assert np.array_equal(first, measured(defended, clips))
    alone = measured(defended, clips[:1])  # the first item's noise is drawn first
    assert_same_but_for_rounding(
        torch.from_numpy(alone[0]).float(), torch.from_numpy(first[0]).float(), depth=30
    )


def test_margins_are_measured_where_there_is_a_head(defended, clips):
    model, _ = defended
    names = response_names(CONFIG, head=True)
    rows = measured(defended, clips)
    assert rows.shape == (3, len(names))
    with torch.no_grad():
        scores = model.logits(model.scores(Batch(clips)))
    best = scores.topk(2, dim=1).values
    margin = rows[:, names.index("margin, the item as it is")]
    np.testing.assert_allclose(margin, (best[:, 0] - best[:, 1]).numpy(), rtol=1e-3, atol=1e-3)


def test_the_graph_reaches_the_waveform(defended, clips):
    model, purifier = defended
    x = clips[:1].clone().requires_grad_()
    row = response_with_graph(model, purifier, Batch(x), CONFIG, generator=generator())
    (gradient,) = torch.autograd.grad(row.sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_other_purifiers_and_padded_batches_are_refused(defended, clips):
    model, purifier = defended
    noise = GaussianNoise(snr_db=20, bounds=Bounds(-1.0, 1.0))
    with pytest.raises(InputError, match="works on raw"):
        measured((model, noise), clips)
    padded = Batch(clips, torch.tensor([16_000, 12_000, 9_000]))
    with pytest.raises(InputError, match="items of one length"):
        measure_response(model, purifier, padded, CONFIG, generator=generator())
