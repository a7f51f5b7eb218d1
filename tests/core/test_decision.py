from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.decision import (
    embedding_distances,
    evidence_names,
    evidence_vector,
    logit_changes,
)
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError

CONFIG = NccrConfig(
    layers=("frames.1", "embedding"),
    noises=(Noise("gaussian", "raw", 0.01), Noise("mask", "input", 0.2)),
    draws=2,
)


def result(clean: list[float], noisy: list[list[list[float]]]) -> NccrResult:
    draws = torch.tensor(noisy)
    ones = torch.ones(*draws.shape[:2], 1)
    return NccrResult(ones, ones, torch.tensor(clean), draws, torch.zeros(1))


@pytest.fixture
def same() -> InstrumentedModel:
    """Scores are the embedding's own values, doubled to logits."""
    return InstrumentedModel(
        nn.Identity(),
        head=nn.Identity(),
        output_kind="cosine",
        scale=2.0,
        bounds=Bounds(-1.0, 1.0),
    )


def test_changes_by_hand(same):
    """Class 0 leads by 0.5; the draws' mean is (0.6, 0.7, 0.1): 1 takes over."""
    measured = result([1.0, 0.5, 0.0], [[[0.7, 0.9, 0.1], [0.5, 0.5, 0.1]]])
    expected = torch.tensor([[2 * 0.4, 2 * 0.2, 2 * -0.1]])
    torch.testing.assert_close(logit_changes(same, measured), expected)


def test_the_next_class_may_be_another_one_under_noise(same):
    measured = result([1.0, 0.5, 0.0], [[[1.0, 0.2, 0.6]]])
    expected = torch.tensor([[0.0, 2 * 0.1, 2 * 0.4]])
    torch.testing.assert_close(logit_changes(same, measured), expected)


def test_no_noise_no_change_and_the_whole_lead_is_kept(same):
    measured = result([1.0, 0.5, 0.0], [[[1.0, 0.5, 0.0]]])
    torch.testing.assert_close(logit_changes(same, measured), torch.tensor([[0.0, 0.0, 1.0]]))


def test_a_bare_embedding_model_has_no_decision(embedding_model, generator):
    item = torch.rand(1, 8000, generator=generator) - 0.5
    measured = measure_nccr(embedding_model, Batch(item), CONFIG, generator=generator)
    vector = evidence_vector(embedding_model, measured)
    assert torch.equal(vector[: -len(CONFIG.noises)], measured.vector)
    assert torch.equal(vector[-len(CONFIG.noises) :], embedding_distances(measured))
    with pytest.raises(InputError, match="only embeds"):
        logit_changes(embedding_model, measured)


def test_turns_by_hand():
    """Draws turn the embedding by 60° and by 90°, and by nothing."""
    draws = [[[0.5, 3**0.5 / 2, 0.0], [0.0, 2.0, 0.0]], [[3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]
    torch.testing.assert_close(
        embedding_distances(result([2.0, 0.0, 0.0], draws)), torch.tensor([0.75, 0.0])
    )


@pytest.mark.parametrize("head", [True, False])
def test_every_entry_has_a_name(tiny_model, embedding_model, generator, head):
    model = tiny_model if head else embedding_model
    item = Batch(torch.rand(1, 8000, generator=generator) - 0.5)
    vector = evidence_vector(model, measure_nccr(model, item, CONFIG, generator=generator))
    names = evidence_names(CONFIG, head=head)
    assert len(names) == len(vector) == len(set(names))
