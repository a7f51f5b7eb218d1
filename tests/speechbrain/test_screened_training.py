"""The mixin, before SpeechBrain's real ``Brain``."""

from __future__ import annotations

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.epoch_loop import EpochCounter

from nip_audio.errors import InputError
from nip_audio.speechbrain.data_stage import without
from nip_audio.speechbrain.screened_training import ScreenedTraining


class Brain(ScreenedTraining, sb.Brain):
    def __init__(self, **hparams):
        super().__init__(
            modules={"model": torch.nn.Linear(1, 1)},
            opt_class=lambda p: torch.optim.SGD(p, lr=0.1),
            hparams=hparams,
            run_opts={"device": "cpu"},
        )
        self.seen = {sb.Stage.TRAIN: [], sb.Stage.VALID: []}

    def compute_forward(self, batch, stage):
        self.seen[stage] += batch.id
        return self.modules.model(batch.x.data[:, None].float())

    def compute_objectives(self, out, batch, stage):
        return out.square().mean()


@pytest.fixture
def dataset():
    found = DynamicItemDataset({name: {"x": float(i)} for i, name in enumerate("abcdef")})
    found.set_output_keys(["id", "x"])
    return found


def drop_b(dataset):
    return without(dataset, {"b"})


def fit(brain, train, **options):
    brain.fit(EpochCounter(2), train, train, progressbar=False, **options)


def test_it_trains_on_what_is_let_through(dataset):
    brain = Brain(screening=drop_b)
    fit(brain, dataset, train_loader_kwargs={"batch_size": 2})
    assert brain.seen[sb.Stage.TRAIN] == list("acdef") * 2
    assert brain.seen[sb.Stage.VALID] == list("abcdef") * 2


@pytest.mark.parametrize("hparams", [{}, {"screening": None}])
def test_without_a_stage_nothing_changes(dataset, hparams):
    brain = Brain(**hparams)
    fit(brain, dataset)
    assert brain.seen[sb.Stage.TRAIN] == list("abcdef") * 2


def test_what_would_train_on_something_else_is_an_error(dataset):
    sampler = torch.utils.data.SequentialSampler(dataset)
    with pytest.raises(InputError, match="the sampler was made for the set before it was"):
        fit(Brain(screening=drop_b), dataset, train_loader_kwargs={"sampler": sampler})
    with pytest.raises(InputError, match="the training set is a list, expected a Dynamic"):
        fit(Brain(screening=drop_b), [1, 2])
