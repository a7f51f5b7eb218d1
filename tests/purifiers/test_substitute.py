from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.substitute import train_substitute

UNIT = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 12)
        self.drop = nn.Dropout(0.1)
        self.pool = nn.ReLU()

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.pool(self.drop(self.layer(x.mean(dim=2))))


def untrained(classes: int = 3) -> InstrumentedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return InstrumentedModel(Small(), head=nn.Linear(12, classes), bounds=UNIT)


def remote(batch: Batch) -> Tensor:
    """Names the loudest row."""
    return batch.x.mean(dim=2).argmax(dim=1)


@pytest.fixture
def batches() -> list[Batch]:
    return [Batch(torch.rand(32, 3, 4, generator=seeded(i))) for i in range(10)]


def test_it_learns_to_answer_alike(batches):
    losses: list[float] = []
    asked: list[int] = []

    def counted(batch: Batch) -> Tensor:
        asked.append(len(batch))
        return remote(batch)

    substitute = untrained()
    agreement = train_substitute(
        substitute,
        counted,
        iter(batches),
        epochs=25,
        lr=0.02,
        classes=3,
        generator=seeded(),
        progress=lambda epoch, loss: losses.append(loss),
    )
    assert agreement > 0.85
    assert len(losses) == 25
    assert losses[-1] < 0.5 * losses[0]
    assert asked == [32] * 10  # once an item, whatever the number of epochs
    assert not any(module.training for module in substitute.modules())


def test_its_pool_defends_a_model_whose_inside_is_unknown(batches):
    substitute = untrained()
    train_substitute(substitute, remote, batches, epochs=2, generator=seeded())
    settings = PoolSettings(front=1, tail=1, quorum=0.3)
    pool = NipPool.fit(substitute, batches, layer="pool", model_id="own", settings=settings)
    got = pool.purify(batches[0], generator=seeded())
    assert got.x.shape == batches[0].x.shape
    assert not torch.equal(got.x, batches[0].x)


def test_everything_is_drawn_from_the_generator(batches):
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        substitute = untrained()
        train_substitute(substitute, remote, batches, epochs=2, generator=seeded(seed))
        found.append(substitute.network.layer.weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_agreement_is_that_of_items_not_trained_on():
    """The remote contradicts itself on the batch held out: what was learned is wrong there."""
    batches = [Batch(torch.rand(64, 3, 4, generator=seeded(i))) for i in range(2)]
    order = torch.randperm(2, generator=seeded(4)).tolist()
    held = batches[order[0]]

    def answer(batch: Batch) -> Tensor:
        return (remote(batch) + int(batch is held)) % 3

    agreement = train_substitute(
        untrained(), answer, batches, epochs=150, lr=0.02, generator=seeded(4)
    )
    assert agreement < 0.2


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (torch.full((32,), 3), "predictions range from 3 to 3, expected 0 to 2"),
        (torch.full((32,), -1), "predictions range from -1 to -1, expected 0 to 2"),
        (torch.zeros(32, 3), r"are \(32, 3\) of torch.float32, expected \(32,\) integers"),
        (torch.zeros(32), "expected .32,. integers"),
        (torch.zeros(32, dtype=torch.bool), "expected .32,. integers"),
        (torch.zeros(31, dtype=torch.long), r"predictions are \(31,\)"),
    ],
)
def test_answers_that_are_no_classes_are_refused(batches, answers, text):
    with pytest.raises(InputError, match=text):
        train_substitute(untrained(), lambda batch: answers, batches, generator=seeded())


def test_nothing_to_train_on_or_with_is_refused(batches):
    with pytest.raises(InputError, match="got 0 batches, expected two"):
        train_substitute(untrained(), remote, [], generator=seeded())
    with pytest.raises(InputError, match="got 1 batches, expected two"):
        train_substitute(untrained(), remote, batches[:1], generator=seeded())
    with pytest.raises(InputError, match="no weights to train; unfreeze"):
        train_substitute(untrained().requires_grad_(False), remote, batches, generator=seeded())
    bare = InstrumentedModel(Small(), bounds=UNIT)
    with pytest.raises(InputError, match="the substitute only embeds"):
        train_substitute(bare, remote, batches, generator=seeded())
    with pytest.raises(InputError, match="has 4 classes, the remote model 3"):
        train_substitute(untrained(4), remote, batches, classes=3, generator=seeded())


@pytest.mark.parametrize("option", [{"epochs": 0}, {"lr": 0.0}, {"holdout": 1.0}])
def test_senseless_settings_are_refused(batches, option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is"):
        train_substitute(untrained(), remote, batches, generator=seeded(), **option)


def test_a_loss_that_is_not_finite_is_refused(batches):
    batches[0].x[:] = torch.nan
    with pytest.raises(InputError, match="not finite, expected a number; lower lr"):
        train_substitute(untrained(), remote, batches, holdout=0.1, generator=seeded(1))


def test_it_is_given_answers_and_nothing_else():
    names = list(inspect.signature(train_substitute).parameters)
    assert names[:3] == ["substitute", "answer", "batches"]
    assert not {"labels", "scores", "y", "clean"} & set(names)
