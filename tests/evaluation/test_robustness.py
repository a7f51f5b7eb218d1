"""Ranks by NCCR: the numbers, their order, and what may not be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import walk_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import nccr_scalar
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError, LayerNotFoundError
from nip_audio.evaluation.nccr_ranks import agreement, rank_models
from nip_audio.evaluation.robustness import (
    LAST_TAP,
    LOGITS,
    measure_robustness,
    require_comparable,
)
from nip_audio.models.cards import ModelCard
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.measure import noise_generator
from tests.tolerance import depth_of, rounding

NOISE = Noise("uniform", "input", 0.03)


@pytest.fixture(scope="session")
def resnet() -> PretrainedModel:
    return load_pretrained("resnet34-libri30")


def named(model: PretrainedModel, name: str, **changes: object) -> PretrainedModel:
    data = {**model.card.data, "name": name, **changes}
    return replace(model, card=ModelCard(model.card.directory, data))


def test_each_rate_is_the_scalar_of_the_papers_section_4(resnet, folder):
    (other, recording, *_) = walk_audio(folder)
    adapter = WaveformAdapter()
    result = measure_robustness([resnet], [recording, other], adapter, noise=NOISE, draws=3, seed=5)
    audio = adapter.load(recording.path)
    expected = nccr_scalar(
        resnet.model,
        Batch(audio.samples[None]),
        layer="pool",
        noise=NOISE,
        draws=3,
        generator=noise_generator(5, audio.content_sha256),
    )
    assert result.tapped[LAST_TAP] == {"resnet34-libri30": "pool"}
    tolerance = rounding(depth_of(resnet.model))
    assert result.rates[LAST_TAP]["resnet34-libri30"][0] == pytest.approx(expected, rel=tolerance)
    assert result.speakers == ("s0", "lonely.flac")  # a file of nobody stands for itself


def test_logits_are_a_layer_of_every_model_with_a_head(resnet, folder):
    recordings = list(walk_audio(folder))[:2]
    result = measure_robustness(
        [resnet], recordings, WaveformAdapter(), noise=NOISE, layers=(LOGITS,), draws=2, seed=0
    )
    assert (result.rates[LOGITS]["resnet34-libri30"] > 0).all()
    model = resnet.model
    bare = type(model)(model.network, **(model.parts() | {"head": None, "labels": ()})).eval()
    embedder, reader = replace(resnet, model=bare), WaveformAdapter()
    with pytest.raises(InputError, match="only embeds"):
        measure_robustness([embedder], recordings, reader, noise=NOISE, layers=(LOGITS,), seed=0)
    found = measure_robustness([embedder], recordings, reader, noise=NOISE, draws=2, seed=0)
    assert list(found.rates) == [LAST_TAP]


def test_equal_models_hear_equal_noise_and_a_noisier_input_changes_more(resnet, folder):
    recordings = list(walk_audio(folder))[:3]
    models = [resnet, named(resnet, "twin")]
    weak, strong = (
        measure_robustness(
            models, recordings, WaveformAdapter(), noise=replace(NOISE, scale=s), draws=2, seed=0
        )
        for s in (0.01, 0.1)
    )
    for layer in (LAST_TAP, LOGITS):
        np.testing.assert_array_equal(*weak.rates[layer].values())
        assert (strong.rates[layer]["twin"] > weak.rates[layer]["twin"]).all()
    (first, _) = weak.ranking(LOGITS, seed=0)
    assert first.p_next == 1.0


def test_a_bad_file_is_a_failure_and_not_the_end(resnet, folder):
    (folder / "s0/broken.wav").write_text("no audio")
    seen = []
    result = measure_robustness(
        [resnet], walk_audio(folder), WaveformAdapter(), noise=NOISE, draws=1, seed=0,
        progress=seen.append,
    )  # fmt: skip
    assert len(result.files) == 10
    assert len(seen) == 11
    (failure,) = result.failures
    assert failure.code == "not_audio"
    assert result.to_json(seed=0)["failed"] == [str(failure)]


def test_a_distribution_needs_two_files(resnet, folder):
    with pytest.raises(InputError, match="1 files could be measured and 0 failed"):
        measure_robustness(
            [resnet], list(walk_audio(folder))[:1], WaveformAdapter(), noise=NOISE, seed=0
        )


def test_an_unknown_layer_is_named(resnet, folder):
    with pytest.raises(LayerNotFoundError, match="layer 'pol' does not exist"):
        measure_robustness(
            [resnet], walk_audio(folder), WaveformAdapter(), noise=NOISE, layers=("pol",), seed=0
        )


@pytest.mark.parametrize(
    ("changes", "noise", "text"),
    [
        ({"sample_rate_hz": 8000}, Noise("gaussian", "raw", 0.002), "works at 16000 Hz"),
        ({"features": {"n_mels": 32}}, NOISE, "in their inputs is not the same noise"),
        ({"name": "resnet34-libri30"}, NOISE, "none twice"),
    ],
)
def test_models_that_do_not_hear_the_same_noise_are_refused(resnet, changes, noise, text):
    other = named(resnet, **({"name": "other"} | changes))
    with pytest.raises(InputError, match=text):
        require_comparable([resnet, other], [noise])


def test_noise_in_the_waveform_is_the_same_for_any_front_end(resnet):
    other = named(resnet, "other", features={"n_mels": 32})
    require_comparable([resnet, other], [Noise("gaussian", "raw", 0.002)])
    with pytest.raises(InputError, match="at least one"):
        require_comparable([], [NOISE])


def test_the_least_change_ranks_first():
    rng = np.random.default_rng(0)
    still = rng.uniform(0.1, 0.2, 40)
    rates = {"wild": 3 * still, "still": still, "hardly": still * rng.uniform(0.99, 1.011, 40)}
    speakers = [f"s{i // 4}" for i in range(40)]
    first, second, third = rank_models(rates, speakers, seed=0)
    assert (third.model, third.rank, third.p_next) == ("wild", 3, None)
    assert {first.model, second.model} == {"still", "hardly"}
    assert first.p_next > 0.01
    assert second.p_next < 1e-6
    assert first.mean.low < first.mean.value < first.mean.high < third.mean.low
    assert first.quartiles == tuple(np.quantile(rates[first.model], [0.25, 0.5, 0.75]))
    with pytest.raises(InputError, match="expected 39 files per model"):
        rank_models(rates, speakers[1:], seed=0)


def test_files_are_resampled_where_all_are_of_one_speaker():
    values = np.arange(10.0)
    (only,) = rank_models({"m": values}, ["s"] * 10, seed=0)
    assert only.mean.low < values.mean() < only.mean.high


def test_agreement_is_one_where_less_change_means_more_accuracy():
    found = agreement({"a": 0.1, "b": 0.2, "c": 0.4}, {"c": 0.0, "a": 0.5, "b": 0.3})
    assert (found.spearman, found.kendall, found.same_order) == (
        pytest.approx(1.0),
        pytest.approx(1.0),
        True,
    )
    found = agreement({"a": 0.1, "b": 0.2, "c": 0.4}, {"a": 0.0, "b": 0.3, "c": 0.5})
    assert found.kendall == pytest.approx(-1.0)
    assert not found.same_order
    # a tie of accuracy is in no order, and contradicts none
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 0.5, "b": 0, "c": 0}).same_order


@pytest.mark.parametrize(
    ("nccr", "accuracy", "text"),
    [
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 1}, "give both"),
        ({"a": 1, "b": 2, "c": 3}, {"a": 0, "b": 0, "c": 0}, "values on one side are equal"),
        ({"a": 1, "b": 2}, {"a": 1, "b": 0}, "at least 3 pairs"),
    ],
)
def test_agreement_needs_ranks(nccr, accuracy, text):
    with pytest.raises(InputError, match=text):
        agreement(nccr, accuracy)


def test_measuring_changes_no_weight(resnet, folder):
    before = {k: v.clone() for k, v in resnet.model.state_dict().items()}
    measure_robustness(
        [resnet], list(walk_audio(folder))[:2], WaveformAdapter(), noise=NOISE, draws=1, seed=0
    )
    assert all(torch.equal(v, before[k]) for k, v in resnet.model.state_dict().items())
