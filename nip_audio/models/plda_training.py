"""Fit a PLDA (probabilistic linear discriminant analysis) back end to embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh
from sklearn.covariance import ledoit_wolf
from speechbrain.processing.PLDA_LDA import PLDA, StatObject_SB
from torch import Tensor

from nip_audio.errors import InputError
from nip_audio.models.plda import Plda, prepare

__all__ = ["fit_plda"]

Array = NDArray[np.float64]


def fit_plda(
    embeddings: Tensor,
    speakers: Sequence[object],
    *,
    model_id: str,
    lda_dim: int | None = None,
    rank: int | None = None,
    iterations: int = 10,
    provenance: Iterable[str] = (),
) -> Plda:
    """Fit PLDA to embeddings with SpeechBrain's implementation.

    Deviation: SpeechBrain's LDA is not used. It applies an eigenvalue routine for symmetric
    matrices to the asymmetric Sw⁻¹Sb, so its directions are not those of LDA, and it does not
    detect a singular Sw. Here the symmetric problem Sb v = λ Sw v is solved, with Sw shrunk as in
    Ledoit & Wolf 2004. Then Sw is regular even with fewer embeddings than dimensions, and is shrunk
    less the more embeddings there are.

    Args:
        embeddings: (N, D) embeddings of any floating dtype and any length.
        speakers: Speaker of each embedding; speakers are told apart by ``str``.
        model_id: Hash of the model that made the embeddings.
        lda_dim: Dimensions that LDA keeps, from 2 to speakers − 1; None means no LDA.
        rank: Number of directions in which speakers differ; None means as many as possible.
        iterations: Iterations of expectation maximisation.
        provenance: Content hashes of the recordings that were embedded.

    Returns:
        The fitted back end, in float64 on the CPU.

    >>> rng = torch.Generator().manual_seed(0)
    >>> voices = torch.randn(20, 1, 8, generator=rng)
    >>> recordings = voices + 0.3 * torch.randn(20, 4, 8, generator=rng)
    >>> names = [name for name in range(20) for _ in range(4)]
    >>> plda = fit_plda(recordings.flatten(0, 1), names, model_id="some model")
    >>> ratios = plda.score(recordings[:2, 0], recordings[:2, 1:])  # one to test, three enrolled
    >>> (ratios > 0).tolist()
    [[True, False], [False, True]]

    Raises:
        InputError: If the embeddings are malformed, or too few for the requested sizes.
    """
    if embeddings.dim() != 2 or not embeddings.is_floating_point() or 0 in embeddings.shape:
        raise InputError(
            f"embeddings are {tuple(embeddings.shape)} of {embeddings.dtype}, expected floating "
            "(items, D); stack one embedding per row"
        )
    if len(speakers) != len(embeddings):
        raise InputError(
            f"got {len(speakers)} speakers for {len(embeddings)} embeddings, expected one each"
        )
    rows = embeddings.detach().cpu().double()
    if not bool(rows.isfinite().all()):
        bad = int((~rows.isfinite()).any(dim=1).sum())
        raise InputError(f"{bad} of {len(rows)} embeddings are NaN or infinite; leave those out")
    names, owners, counts = np.unique(
        np.array([str(s) for s in speakers]), return_inverse=True, return_counts=True
    )
    dim, rank = _sizes(rows.shape[1], counts, lda_dim, rank)
    if iterations < 1:
        raise InputError(f"iterations are {iterations}, expected at least 1")
    units = torch.nn.functional.normalize(rows, dim=1)
    centre = units.mean(dim=0)
    lda = None
    if lda_dim is not None:
        lda = torch.from_numpy(_lda((units - centre).numpy(), owners, dim))
    prepared = prepare(rows, centre, lda).numpy()
    within = np.linalg.eigvalsh(np.cov(_deviations(prepared, owners), rowvar=False, bias=True))
    if within[0] <= 1e-10:  # embeddings have unit length, so variances sum to at most 1
        raise InputError(_TOO_ALIKE)
    model = PLDA(rank_f=rank, nb_iter=iterations)
    model.plda(_statistics(prepared, names[owners]))
    mean, loading, residual = (
        torch.from_numpy(np.ascontiguousarray(a)) for a in (model.mean, model.F, model.Sigma)
    )
    return Plda(
        model_id=model_id,
        centre=centre,
        lda=lda,
        mean=mean,
        loading=loading,
        residual=(residual + residual.mT) / 2,
        n_speakers=len(names),
        n_embeddings=len(rows),
        provenance=tuple(sorted(set(provenance))),
    )


_TOO_ALIKE = (
    "the embeddings of one speaker differ in too few directions to fit PLDA; use more different "
    "recordings per speaker, not copies"
)


def _sizes(
    size: int, counts: NDArray[np.intp], lda_dim: int | None, rank: int | None
) -> tuple[int, int]:
    """Check that the data suffices for the requested sizes; return dimensions and rank."""
    total, speakers = int(counts.sum()), len(counts)
    if speakers < 2:
        raise InputError(
            f"all {total} embeddings are of one speaker, expected at least two speakers; PLDA "
            "learns how speakers differ, so add recordings of others"
        )
    if counts.max() < 2:
        raise InputError(
            f"none of the {speakers} speakers has two embeddings, but PLDA learns how one voice "
            "varies; add recordings of each, or cut them into clips (`crop_s=2.5`)"
        )
    most = min(size, speakers - 1)
    if lda_dim is not None and not 2 <= lda_dim <= most:
        raise InputError(
            f"lda_dim is {lda_dim} for {speakers} speakers and {size} dimensions, expected "
            + (f"2–{most}" if most >= 2 else "no LDA; add speakers")
        )
    dim = lda_dim or size
    if total - speakers < dim:
        most = min(most, total - speakers)
        raise InputError(
            f"got {total} embeddings of {speakers} speakers for {dim} dimensions, expected at "
            "least "
            f"{dim + speakers} embeddings; add recordings, cut them into clips (`crop_s`)"
            + (f", or reduce the dimensions to {most} or fewer (`lda_dim`)" if most >= 2 else "")
        )
    most = min(dim, speakers - 1)
    if rank is not None and not 1 <= rank <= most:
        raise InputError(
            f"rank is {rank} for {speakers} speakers and {dim} dimensions, expected 1–{most}"
        )
    return dim, most if rank is None else rank


def _means(rows: Array, owners: NDArray[np.intp]) -> Array:
    """Return the mean embedding of each row's speaker, (N, D)."""
    sums = np.zeros((int(owners.max()) + 1, rows.shape[1]))
    np.add.at(sums, owners, rows)
    means: Array = (sums / np.bincount(owners)[:, None])[owners]
    return means


def _deviations(rows: Array, owners: NDArray[np.intp]) -> Array:
    return rows - _means(rows, owners)


def _lda(centred: Array, owners: NDArray[np.intp], dim: int) -> Array:
    """Return the LDA directions (D, dim) of centred embeddings (N, D)."""
    within, _ = ledoit_wolf(_deviations(centred, owners), assume_centered=True)
    means = _means(centred, owners)
    try:
        _, vectors = eigh(means.T @ means / len(means), within)
    except LinAlgError as err:
        raise InputError(_TOO_ALIKE) from err
    return np.ascontiguousarray(vectors[:, ::-1][:, :dim])


def _statistics(rows: Array, names: NDArray[np.str_]) -> StatObject_SB:
    ids = np.array([str(i) for i in range(len(rows))], dtype=object)
    nothing = np.full(len(rows), None, dtype=object)
    return StatObject_SB(
        modelset=names.astype(object),
        segset=ids,
        start=nothing,
        stop=nothing,
        stat0=np.ones((len(rows), 1)),
        stat1=rows,
    )
