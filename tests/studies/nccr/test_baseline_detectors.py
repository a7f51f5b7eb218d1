"""What every baseline detector promises, on small and on the shipped models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from nip_audio import load_pretrained
from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.detectors.baselines.intrinsic_dimension import IntrinsicDimension
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.errors import InputError, StateError
from studies.nccr.baseline_detectors import baseline_detectors
from tests.tolerance import depth_of, rounding

RATE_HZ = 16000
LAYERS = ("frames.1", "frames.4", "embedding")
NOISES = (Noise("gaussian", "raw", 0.01), Noise("gaussian", "input", 0.03))
LEARNING = {
    "feature squeezing",
    "model mutation, 20 mutants",
    "neuron boundary coverage",
    "Dissector",
    "Mahalanobis on activations",
    "local intrinsic dimensionality",
}


def detectors(layers: tuple[str, ...] = LAYERS) -> dict[str, Measure]:
    """All of them, with less to do."""
    found = baseline_detectors(layers, NccrConfig(layers, NOISES, 2), sample_rate_hz=RATE_HZ)
    for detector in found:
        if isinstance(detector, LabelChangeRate):
            detector.mutants, detector.judges = 3, 4
        if isinstance(detector, AttackCost):
            detector.step, detector.most = 1e-3, 4
        if isinstance(detector, IntrinsicDimension):
            detector.neighbours = 4
    return {detector.name: detector for detector in found}


NAMES = list(detectors())
EVERY = pytest.mark.parametrize("name", NAMES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def voices(voice) -> Callable[[int, float], list[Batch]]:
    def made(count: int, duration_s: float = 0.4) -> list[Batch]:
        return [Batch(torch.from_numpy(voice(i, i, duration_s))[None]) for i in range(count)]

    return made


@pytest.fixture
def fitted(tiny_model, voices) -> Callable[[str], Measure]:
    def made(name: str) -> Measure:
        return detectors()[name].fit(tiny_model, voices(8), generator=seeded())

    return made


def test_names_and_settings_tell_them_apart():
    found = baseline_detectors(LAYERS, NccrConfig(LAYERS, NOISES), sample_rate_hz=RATE_HZ)
    assert len({d.name for d in found}) == len(found) == 14
    texts = [json.dumps(d.settings(), allow_nan=False, sort_keys=True) for d in found]
    assert len(set(texts)) == len(found)
    assert all(d.source and d.passes >= 0 for d in found)


@EVERY
def test_sees_no_label_and_no_original(name):
    detector = detectors()[name]
    assert set(inspect.signature(detector.measure).parameters) == {"model", "item", "generator"}
    assert set(inspect.signature(detector.fit).parameters) == {"model", "clean", "generator"}
    assert set(inspect.signature(detector.suspicion).parameters) == {"rows"}


@EVERY
def test_equal_generators_give_equal_rows_and_the_global_one_is_left(
    fitted, tiny_model, voices, name
):
    before = torch.get_rng_state()
    item = voices(3)[2]
    rows = [fitted(name).measure(tiny_model, item, generator=seeded(1)) for _ in range(2)]
    assert np.array_equal(rows[0], rows[1])
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_rows_are_finite_and_of_one_length_whatever_the_item(fitted, tiny_model, voices, name):
    detector = fitted(name)
    loud = voices(1, 1.0)[0]
    items = [
        *voices(2, 0.4),
        *voices(1, 0.3),
        Batch(torch.zeros(1, 4800)),
        Batch(torch.zeros(1, RATE_HZ)),
        loud.with_x((50 * loud.x).clamp(-1, 1)),
        loud.with_x(loud.x.sign()),
    ]
    given = [item.x.clone() for item in items]
    rows = [detector.measure(tiny_model, item, generator=seeded()) for item in items]
    assert all(r.ndim == 1 and r.dtype == np.float64 for r in rows)
    stacked = np.stack(rows)
    assert np.isfinite(stacked).all()
    scores = detector.suspicion(stacked)
    assert scores.shape == (len(items),)
    assert np.isfinite(scores).all()
    assert all(torch.equal(item.x, x) for item, x in zip(items, given, strict=True))


@EVERY
def test_model_is_left_as_it_was(tiny_model, voices, hook_count, name):
    state = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    tiny_model.requires_grad_(True)
    detector = detectors()[name].fit(tiny_model, voices(8), generator=seeded())
    detector.measure(tiny_model, voices(1)[0], generator=seeded())
    assert all(torch.equal(v, state[k]) for k, v in tiny_model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in tiny_model.parameters())
    assert hook_count(tiny_model) == 0
    assert not tiny_model.training
    assert torch.is_grad_enabled()


@EVERY
def test_a_model_without_a_head_is_an_error_where_decisions_are_compared(
    embedding_model, voices, name
):
    detector = detectors()[name]
    if name == "MEH-FEST":
        detector.fit(embedding_model, [], generator=seeded())
        assert detector.measure(embedding_model, voices(1)[0], generator=seeded()).shape == (1,)
        return
    for call in (
        lambda: detector.measure(embedding_model, voices(1)[0], generator=seeded()),
        lambda: detector.fit(embedding_model, voices(8), generator=seeded()),
    ):
        with pytest.raises(InputError, match="only embeds; enrol speakers"):
            call()


@EVERY
def test_more_than_one_item_or_padding_is_an_error(fitted, tiny_model, name):
    detector = fitted(name)
    for batch in (Batch(torch.rand(2, 6400)), Batch(torch.rand(1, 6400), torch.tensor([5000]))):
        with pytest.raises(InputError, match=r"without padding; use Batch.item\(i\)"):
            detector.measure(tiny_model, batch, generator=seeded())


@EVERY
def test_values_that_are_no_numbers_are_an_error(fitted, tiny_model, voices, name):
    item = voices(1)[0]
    broken = item.with_x(torch.full_like(item.x, torch.nan))
    with pytest.raises(InputError, match="the item has values that are not finite"):
        fitted(name).measure(tiny_model, broken, generator=seeded())


@EVERY
def test_what_learns_says_that_it_was_not_fitted(tiny_model, voices, name):
    detector = detectors()[name]
    if name not in LEARNING:
        row = detector.measure(tiny_model, voices(1)[0], generator=seeded())
        detector.fit(tiny_model, voices(8), generator=seeded())
        assert np.array_equal(row, detector.measure(tiny_model, voices(1)[0], generator=seeded()))
        return
    with pytest.raises(StateError, match="is not fitted, expected a fitted measure; call fit"):
        detector.measure(tiny_model, voices(1)[0], generator=seeded())


@EVERY
def test_goes_to_another_process_and_back(fitted, tiny_model, voices, name):
    detector = fitted(name)
    copy = ForkingPickler.loads(ForkingPickler.dumps(detector))
    rows = [d.measure(tiny_model, voices(1)[0], generator=seeded()) for d in (detector, copy)]
    assert np.array_equal(rows[0], rows[1])
    assert copy.settings() == detector.settings()


def test_score_change_is_under_the_noise_of_nccr(tiny_model, voices):
    """Equal generators: what the answer does under the very draws that move the neurons."""
    config = NccrConfig(LAYERS, NOISES, 2)
    item = voices(1)[0]
    drawn = measure_nccr(tiny_model, item, config, generator=seeded(7))
    scores = tiny_model.score_embeddings(drawn.embedding[None])[0]
    named = int(scores.argmax())
    by_hand = [
        (tiny_model.score_embeddings(draws)[:, named] - scores[named]).abs().mean()
        for draws in drawn.draw_embeddings
    ]
    row = ScoreChange(config).measure(tiny_model, item, generator=seeded(7))
    np.testing.assert_allclose(row, by_hand, rtol=0, atol=rounding(depth_of(tiny_model)))


def shipped(name: str) -> tuple[InstrumentedModel, tuple[str, ...]]:
    enrolled = name.endswith(", enrolled")
    pretrained = load_pretrained(name.removesuffix(", enrolled"))
    model = pretrained.model
    if enrolled:
        voices = torch.randn(5, model.network.embedding.out_features, generator=seeded())
        model = model.with_head(CosineHead(voices), labels=tuple("abcde"))
    return model.eval(), pretrained.card.default_taps


@pytest.mark.parametrize(
    "name",
    [
        "audionet-libri251",
        "xvector-libri251",
        "xvector-libri251, enrolled",
        "resnet34-libri30",
        "deep-speaker-libri30",
    ],
)
def test_all_run_on_the_shipped_models(voices, hook_count, name):
    model, layers = shipped(name)
    clean = voices(6, 0.3)
    silence = Batch(torch.zeros(1, 4800))
    for detector in detectors(tuple(layers)).values():
        detector.fit(model, clean, generator=seeded())
        rows = [detector.measure(model, i, generator=seeded()) for i in (clean[0], silence)]
        assert np.isfinite(np.stack(rows)).all()
        assert detector.suspicion(np.stack(rows)).shape == (2,)
    assert hook_count(model) == 0
