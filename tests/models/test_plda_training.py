from __future__ import annotations

import numpy as np
import pytest
import torch
from speechbrain.processing.PLDA_LDA import LDA, PLDA, StatObject_SB

from nip_audio.errors import InputError
from nip_audio.models.plda_training import fit_plda


def statistics(rows: np.ndarray, speakers: list[str]) -> StatObject_SB:
    ids = np.array([str(i) for i in range(len(rows))], dtype=object)
    owners = np.array(speakers, dtype=object)
    return StatObject_SB(owners, ids, ids.copy(), ids.copy(), np.ones((len(rows), 1)), rows.copy())


def speakers_of(*counts: int) -> list[str]:
    return [f"s{i}" for i, count in enumerate(counts) for _ in range(count)]


def test_equals_speechbrains_training_of_prepared_embeddings(six_dim_voices):
    embeddings, speakers = six_dim_voices
    plda = fit_plda(
        embeddings, speakers, model_id="m", rank=3, iterations=4, provenance=["b", "a", "b"]
    )
    units = torch.nn.functional.normalize(embeddings, dim=1)
    torch.testing.assert_close(plda.centre, units.mean(dim=0))
    prepared = torch.nn.functional.normalize(units - plda.centre, dim=1)
    torch.testing.assert_close(plda.prepare(embeddings), prepared)
    model = PLDA(rank_f=3, nb_iter=4)
    model.plda(statistics(prepared.numpy(), speakers))
    for got, expected in (
        (plda.mean, model.mean), (plda.loading, model.F), (plda.residual, model.Sigma)
    ):  # fmt: skip
        torch.testing.assert_close(got, torch.from_numpy(expected))
    assert (plda.n_speakers, plda.n_embeddings, plda.dim, plda.rank) == (12, 60, 6, 3)
    assert (plda.provenance, plda.threshold, plda.lda) == (("a", "b"), None, None)


def test_rank_is_by_default_what_the_data_allow(six_dim_voices):
    embeddings, speakers = six_dim_voices
    assert fit_plda(embeddings, speakers, model_id="m").rank == 6
    assert fit_plda(embeddings[:20], speakers[:20], model_id="m").rank == 3
    assert fit_plda(embeddings, speakers, model_id="m", lda_dim=4).rank == 4


def test_speakers_may_be_numbers_and_float32_is_taken(six_dim_voices):
    embeddings, speakers = six_dim_voices
    numbers = [int(s[1:]) for s in speakers]
    by_number = fit_plda(embeddings.float(), numbers, model_id="m")
    assert by_number.residual.dtype == torch.float64
    by_name = fit_plda(embeddings, speakers, model_id="m")
    torch.testing.assert_close(by_number.residual, by_name.residual, atol=1e-4, rtol=1e-4)


def fisher(rows: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of Sw⁻¹ Sb; LDA makes their sum, after projection, as large as can be."""
    means = torch.stack([rows[owners == o].mean(dim=0) for o in owners])
    between = means - rows.mean(dim=0)
    within = rows - means
    return torch.linalg.eigvals(torch.linalg.solve(within.mT @ within, between.mT @ between)).real


def test_lda_finds_the_directions_that_speechbrains_misses(generator):
    mix = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    owners = torch.arange(40).repeat_interleave(30)
    means = torch.zeros(40, 20, dtype=torch.float64)
    means[:, -3:] = 3.0 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(1200, 20, generator=generator, dtype=torch.float64)
    embeddings = 50.0 + (means[owners] + noise) @ mix
    speakers = [str(int(o)) for o in owners]
    plda = fit_plda(embeddings, speakers, model_id="m", lda_dim=3)
    centred = torch.nn.functional.normalize(embeddings, dim=1) - plda.centre
    best = fisher(centred, owners).topk(3).values.sum()
    assert fisher(centred @ plda.lda, owners).sum() > 0.95 * best
    theirs = LDA().do_lda(statistics(centred.numpy(), speakers), reduced_dim=3).stat1
    assert fisher(torch.from_numpy(theirs), owners).sum() < 0.75 * best


def test_lda_makes_do_with_fewer_embeddings_than_dimensions(generator):
    means = 3.0 * torch.randn(10, 1, 50, generator=generator, dtype=torch.float64)
    rows = (means + torch.randn(10, 3, 50, generator=generator, dtype=torch.float64)).flatten(0, 1)
    plda = fit_plda(rows, speakers_of(*[3] * 10), model_id="m", lda_dim=6)
    scores = plda.score(rows, means[:, 0])
    assert torch.equal(scores.argmax(dim=1), torch.arange(10).repeat_interleave(3))


ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
EIGHT = speakers_of(*[5] * 8)


@pytest.mark.parametrize(
    ("rows", "speakers", "options", "match"),
    [
        (ROWS[0], EIGHT, {}, r"embeddings are \(6,\) of .*, expected floating \(items, D\)"),
        (ROWS.long(), EIGHT, {}, "of torch.int64, expected floating"),
        (ROWS[:0], [], {}, "expected floating"),
        (ROWS, EIGHT[1:], {}, "got 39 speakers for 40 embeddings"),
        (
            ROWS.clone().fill_(float("nan")),
            EIGHT,
            {},
            "40 of 40 embeddings are NaN or infinite; leave",
        ),
        (ROWS, ["a"] * 40, {}, "all 40 embeddings are of one speaker, expected at least two"),
        (ROWS, [str(i) for i in range(40)], {}, "none of the 40 speakers has two .*crop_s"),
        (ROWS, EIGHT, {"lda_dim": 7}, "lda_dim is 7 for 8 speakers and 6 dim.*, expected 2–6"),
        (ROWS, EIGHT, {"lda_dim": 1}, "lda_dim is 1 .* expected 2–6"),
        (ROWS[:15], EIGHT[:15], {"lda_dim": 3}, "lda_dim is 3 for 3 speakers .* expected 2–2"),
        (ROWS[:10], EIGHT[:10], {"lda_dim": 2}, "expected no LDA; add speakers"),
        (ROWS, EIGHT, {"rank": 7}, "rank is 7 for 8 speakers and 6 dimensions, expected 1–6"),
        (ROWS, EIGHT, {"rank": 0}, "rank is 0 .* expected 1–6"),
        (ROWS, EIGHT, {"rank": 4, "lda_dim": 3}, "rank is 4 .* 3 dimensions, expected 1–3"),
        (ROWS[:8], speakers_of(2, 2, 2, 2), {}, "expected at least 10 .* to 3 or fewer"),
        (ROWS[:4], speakers_of(2, 2), {}, r"expected at least 8 embeddings; .* \(`crop_s`\)$"),
        (ROWS, EIGHT, {"iterations": 0}, "iterations are 0, expected at least 1"),
        (ROWS[::5].repeat_interleave(5, 0), EIGHT, {}, "differ in too few directions"),
        (
            ROWS[::5].repeat_interleave(5, 0),
            EIGHT,
            {"lda_dim": 3},
            "recordings per speaker, not copies",
        ),
    ],
)
def test_refuses_what_cannot_be_fitted(rows, speakers, options, match):
    with pytest.raises(InputError, match=match):
        fit_plda(rows, speakers, model_id="m", **options)
