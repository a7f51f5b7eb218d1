from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from speechbrain.processing.PLDA_LDA import Ndx, StatObject_SB, fast_PLDA_scoring

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import equal_error_rate
from nip_audio.errors import HashMismatchError, InputError, OutputError, StateError
from nip_audio.models.plda import Plda, PldaHead
from nip_audio.models.plda_training import fit_plda
from tests.tolerance import assert_same_but_for_rounding, depth_of

BY_HAND = Plda(
    model_id="m",
    centre=torch.zeros(1, dtype=torch.float64),
    lda=None,
    mean=torch.zeros(1, dtype=torch.float64),
    loading=torch.ones(1, 1, dtype=torch.float64),
    residual=torch.ones(1, 1, dtype=torch.float64),
    n_speakers=2,
    n_embeddings=4,
)


def as_speechbrain(rows: torch.Tensor) -> StatObject_SB:
    ids = np.array([f"{i:03}" for i in range(len(rows))], dtype=object)
    nothing = np.full(len(rows), None, dtype=object)
    return StatObject_SB(ids, ids.copy(), nothing, nothing, np.ones((len(rows), 1)), rows.numpy())


def by_speechbrain(plda: Plda, tests: torch.Tensor, voices: torch.Tensor) -> torch.Tensor:
    """Scores of prepared embeddings, (tests, voices)."""
    enrolled, tested = as_speechbrain(voices), as_speechbrain(tests)
    trials = Ndx(models=enrolled.modelset, testsegs=tested.segset)
    trials.trialmask[:] = True
    model = [t.numpy() for t in (plda.mean, plda.loading, plda.residual)]
    return torch.from_numpy(fast_PLDA_scoring(enrolled, tested, trials, *model).scoremat.T)


@pytest.fixture(params=[None, 4], ids=["no LDA", "LDA"])
def fitted(request, six_dim_voices) -> Plda:
    return fit_plda(*six_dim_voices, model_id="m", lda_dim=request.param, rank=3)


@pytest.fixture
def strangers(generator) -> torch.Tensor:
    return 2.0 + torch.randn(9, 6, generator=generator, dtype=torch.float64)


# One speaker: (a, b) has covariance ((2, 1), (1, 2)); two speakers: each has variance 2.
@pytest.mark.parametrize(
    ("voice", "test", "quadratic"),
    [
        ([[1.0]], 1.0, -1 / 3 + 1 / 2),
        ([[1.0]], -1.0, -1.0 + 1 / 2),
        ([[1.0], [-1.0]], 1.0, -1 / 3 + 1 / 4),  # averages to 0
        ([[7.0]], 0.1, -1 / 3 + 1 / 2),  # lengths do not matter
    ],
)
def test_ratio_of_two_gaussians_by_hand(voice, test, quadratic):
    head = PldaHead(BY_HAND, [torch.tensor(voice, dtype=torch.float64)])
    expected = quadratic - math.log(3) / 2 + math.log(2)
    got = head(torch.tensor([[test]], dtype=torch.float64))
    assert got.tolist() == [[pytest.approx(expected, abs=1e-12)]]


def test_ratio_equals_the_densities_it_stands_for(fitted, strangers):
    prepared = fitted.prepare(strangers)
    between = fitted.loading @ fitted.loading.mT
    total = between + fitted.residual
    joint = torch.cat([torch.cat([total, between], 1), torch.cat([between, total], 1)])
    normal = torch.distributions.MultivariateNormal
    one = normal(fitted.mean.repeat(2), joint)
    two = normal(fitted.mean, total)
    got = fitted.score(strangers, strangers)
    for i, j in ((0, 1), (3, 3), (8, 2)):
        a, b = prepared[i], prepared[j]
        expected = one.log_prob(torch.cat([a, b])) - two.log_prob(a) - two.log_prob(b)
        torch.testing.assert_close(got[i, j], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["64", "32"]
)
def test_scores_equal_speechbrains(fitted, strangers, six_dim_voices, dtype, tolerance):
    voices = six_dim_voices[0][::5]
    expected = by_speechbrain(fitted, fitted.prepare(strangers), fitted.prepare(voices))
    got = fitted.score(strangers.to(dtype), voices.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)
    assert expected.std() > 1


def test_several_recordings_are_averaged_as_speechbrain_does(fitted, strangers, six_dim_voices):
    recordings = six_dim_voices[0].reshape(12, 5, 6)
    server = as_speechbrain(fitted.prepare(recordings.flatten(0, 1)))
    server.modelset = np.array([f"{i // 5:03}" for i in range(60)], dtype=object)
    averages = torch.from_numpy(server.mean_stat_per_model().stat1)
    expected = by_speechbrain(fitted, fitted.prepare(strangers), averages)
    got = fitted.score(strangers, list(recordings))
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
    assert not torch.allclose(got, fitted.score(strangers, recordings.mean(dim=1)))


def test_gradient_in_the_embeddings(fitted, strangers):
    head = PldaHead(fitted, strangers[:3])
    torch.autograd.gradcheck(head, strangers[3:5].clone().requires_grad_(True))


def test_length_of_an_embedding_does_not_matter(fitted, strangers):
    lengths = torch.rand(9, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        fitted.score(lengths * strangers, strangers), fitted.score(strangers, 3 * strangers)
    )


def test_own_voice_scores_best_and_scores_are_symmetric(plda, six_dim_voices):
    embeddings, speakers = six_dim_voices
    scores = plda.score(embeddings, embeddings)
    torch.testing.assert_close(scores, scores.mT)
    names = np.array(speakers)
    same = names[:, None] == names[None, :]
    assert equal_error_rate(scores.numpy()[same], scores.numpy()[~same]).rate < 0.1


def test_head_is_a_copy_that_moves_without_the_back_end(plda, strangers):
    head = PldaHead(plda, strangers)
    head.float().centre.zero_()
    assert plda.centre.dtype == torch.float64
    assert plda.centre.abs().sum() > 0
    assert {b.dtype for b in head.buffers()} == {torch.float32}
    assert not list(head.parameters())


@pytest.mark.parametrize(
    ("voices", "shape"),
    [
        (torch.ones(2, 5), r"\(5,\)"),
        ([torch.ones(6), torch.ones(0, 6)], r"\(0, 6\)"),
        (torch.ones(6), r"\(\)"),
        (torch.ones(1, 2, 3, 6), r"\(2, 3, 6\)"),
        ([], "none"),
    ],
)
def test_head_refuses_voices_of_another_model(plda, voices, shape):
    with pytest.raises(InputError, match=f"voices are {shape}, expected \\(6,\\) or .*; enrol"):
        PldaHead(plda, voices)


def test_enrolled_closed_set_system(tiny_model, plda, strangers):
    head = PldaHead(plda, strangers[:3].float())
    system = tiny_model.with_head(head, labels=("x", "y", "z"), output_kind="llr")
    batch = Batch(torch.rand(2, 8000) - 0.5)
    scores = system.scores(batch)
    expected = plda.score(tiny_model.embed(batch), strangers[:3])
    assert_same_but_for_rounding(scores, expected, depth=depth_of(system))
    assert torch.equal(system.logits(scores), scores)  # not times the cosines' scale of 10
    assert tiny_model.scale == 10.0


def test_threshold_is_the_eer_point_of_all_pairs(plda, six_dim_voices):
    embeddings, speakers = six_dim_voices[0][:20], six_dim_voices[1][:20]
    ratios = plda.score(embeddings, embeddings)
    pairs = [(i, j) for i in range(20) for j in range(i)]
    same = np.array([ratios[p] for p in pairs if speakers[p[0]] == speakers[p[1]]])
    other = np.array([ratios[p] for p in pairs if speakers[p[0]] != speakers[p[1]]])
    calibrated = plda.calibrate(embeddings.float(), speakers)
    expected = equal_error_rate(same, other).threshold
    assert calibrated.threshold == pytest.approx(expected, abs=1e-3)
    assert plda.threshold is None


@pytest.mark.parametrize("speakers", [["a", "b", "c"], ["a", "a", "a"], []])
def test_calibration_needs_both_kinds_of_pairs(plda, strangers, speakers):
    with pytest.raises(InputError, match="for the threshold, expected at least two speakers"):
        plda.calibrate(strangers[: len(speakers)], speakers)


def test_round_trip_bound_to_the_model(tmp_path, fitted, strangers):
    full = replace(fitted, threshold=-3.5, provenance=("a" * 64, "b" * 64))
    full.save(tmp_path / "p")
    got = Plda.load(tmp_path / "p", model_id="m")
    for name in ("n_speakers", "n_embeddings", "threshold", "provenance", "dim", "rank"):
        assert getattr(got, name) == getattr(full, name)
    assert (got.lda is None) == (fitted.lda is None)
    assert torch.equal(got.score(strangers, strangers), fitted.score(strangers, strangers))
    with pytest.raises(StateError, match="was made for model m, .* make a new plda"):
        Plda.load(tmp_path / "p", model_id="other")
    with pytest.raises(OutputError, match="exists already"):
        full.save(tmp_path / "p")


def test_changed_file_is_refused(tmp_path, plda):
    plda.save(tmp_path / "p")
    data = bytearray((tmp_path / "p").read_bytes())
    data[-1] ^= 1
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(HashMismatchError, match="was changed"):
        Plda.load(tmp_path / "p", model_id="tiny")
