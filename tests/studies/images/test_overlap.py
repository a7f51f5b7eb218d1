"""Neurons that NIP, CAS and SNS share."""

import torch

from studies.images.overlap import CHOSEN, of_cas, of_nip, of_sns, outputs, shared


def test_shared_neurons_by_hand():
    first = torch.tensor([[0, 1, 2], [0, 1, 2]])
    second = torch.tensor([[2, 1, 5], [3, 4, 5]])
    third = torch.tensor([[2, 6, 7], [0, 4, 5]])
    assert shared(first, second, neurons=8).tolist() == [2, 0]
    assert shared(second, third, neurons=8).tolist() == [1, 2]
    assert shared(first, second, third, neurons=8).tolist() == [1, 0]


def test_sns_takes_what_the_attack_moves_most():
    benign = torch.zeros(1, 20)
    attacked = torch.arange(20.0)[None] * torch.tensor([-1.0, 1.0]).repeat(10)
    assert set(of_sns(benign, attacked)[0].tolist()) == set(range(10, 20))


def test_cas_weighs_by_the_class_that_its_classifier_predicts():
    """Three classes that use ten neurons each."""
    known = torch.cat([torch.eye(3)] * 30).repeat_interleave(10, dim=1)
    known += 0.01 * torch.rand(known.shape, generator=torch.Generator().manual_seed(0))
    chosen = of_cas(known, torch.arange(3).repeat(30), known[:3])
    assert [set(row) for row in chosen.tolist()] == [set(range(n, n + 10)) for n in (0, 10, 20)]


def test_each_selects_ten_of_a_models_neurons(system):
    pixels = system.test.pixels[:4]
    layer = system.pretrained.card.default_taps[-1]
    phi = outputs(system, layer, pixels)
    chosen = of_nip(system, layer, pixels)
    assert chosen.shape == (4, CHOSEN)
    assert all(len(set(row)) == CHOSEN for row in chosen.tolist())
    assert phi.shape[0] == 4
    assert int(chosen.max()) < phi.shape[1]
