"""Triplets by hand."""

from __future__ import annotations

import pytest
import torch

from nip_audio.training.triplet import triplet_loss


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def cosine(degrees: float) -> float:
    return float(torch.tensor(degrees).deg2rad().cos())


def test_the_farthest_of_the_same_and_the_nearest_of_another_voice_count():
    embeddings = unit(0, 10, 60, 80) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # norms do not
    labels = torch.tensor([0, 0, 0, 1])
    got = triplet_loss(embeddings, labels, margin=0.2).item()
    anchors = [
        cosine(80) - cosine(60) + 0.2,
        cosine(70) - cosine(50) + 0.2,
        cosine(20) - cosine(60) + 0.2,
    ]  # the last item has no positive
    assert got == pytest.approx(sum(max(0.0, one) for one in anchors) / 3, abs=1e-6)


def test_voices_that_are_told_apart_cost_nothing():
    labels = torch.tensor([0, 0, 1, 1])
    assert triplet_loss(unit(0, 5, 90, 95), labels, margin=0.2).item() == 0.0


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0]])
def test_without_a_triplet_there_is_no_loss_and_a_finite_gradient(labels):
    embeddings = unit(0, 30, 60).requires_grad_(True)
    loss = triplet_loss(embeddings, torch.tensor(labels), margin=0.2)
    loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad.eq(0).all()
