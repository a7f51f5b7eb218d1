"""Score speaker embeddings by probabilistic linear discriminant analysis (PLDA).

The score is the log-likelihood ratio of "one speaker" to "two speakers", and it is differentiable.

Sources: Ioffe 2006 and Prince & Elder 2007 for the model; Garcia-Romero & Espy-Wilson 2011 for
length normalisation and the closed form of the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.core.finite import require_finite, require_finite_values
from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.errors import AudioError, InputError

__all__ = ["Plda", "PldaHead", "prepare"]

_KIND = "plda"


@dataclass(frozen=True, eq=False)
class Plda:
    """Fitted PLDA back end: the preparation of embeddings, and the model of prepared embeddings.

    An embedding is scaled to unit length (so raw and unit-length embeddings give the same score),
    centred, projected by linear discriminant analysis (LDA) if there is one, and scaled to unit
    length again. The result is modelled as ``mean + loading · h + noise`` with h ~ N(0, I) drawn
    once per speaker and noise ~ N(0, residual) drawn once per recording.

    Several recordings of one speaker are prepared separately and averaged, and the average is
    scored like one recording. SpeechBrain's ``mean_stat_per_model`` does the same, and it was the
    most effective method that Rajan et al. 2014 compared.

    Attributes:
        model_id: Hash of the model that made the embeddings.
        centre: (D,) float64 mean of the unit-length embeddings.
        lda: (D, K) float64 LDA projection; None means no projection, so that K = D.
        mean: (K,) float64 mean of the prepared embeddings.
        loading: (K, R) float64 variation between speakers, SpeechBrain's F.
        residual: (K, K) float64 positive definite covariance of the noise, SpeechBrain's Sigma.
        n_speakers: Number of speakers that it was fitted on.
        n_embeddings: Number of embeddings that it was fitted on.
        threshold: Ratio from which a claim is accepted: that at the equal error rate of other
            recordings; None if there were no other recordings.
        provenance: Content hashes of all recordings used, so that overlaps can be refused.
        failures: Errors of the recordings that were left out.
    """

    model_id: str
    centre: Tensor
    lda: Tensor | None
    mean: Tensor
    loading: Tensor
    residual: Tensor
    n_speakers: int
    n_embeddings: int
    threshold: float | None = None
    provenance: tuple[str, ...] = ()
    failures: tuple[AudioError, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            InputError: If a value is NaN or infinite.
        """
        names = ("centre", "lda", "mean", "loading", "residual")
        arrays = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        require_finite_values(arrays, of="the PLDA")
        require_finite(threshold=self.threshold)

    @property
    def dim(self) -> int:
        """Size K of prepared embeddings."""
        return self.loading.shape[0]

    @property
    def rank(self) -> int:
        """Number R of directions in which speakers differ."""
        return self.loading.shape[1]

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Axes along which noise has variance 1 and speakers vary independently (Ioffe 2006).

        Returns:
            Basis (K, R) and variances (R,) between speakers. Speakers do not differ along all other
            directions, so the ratio does not depend on those.
        """
        root = torch.linalg.cholesky(self.residual)
        white = torch.linalg.solve_triangular(root, self.loading, upper=False)
        left, singular, _ = torch.linalg.svd(white, full_matrices=False)
        return torch.linalg.solve_triangular(root.mT, left, upper=True), singular.square()

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Prepare embeddings (N, D); returns (N, K) with the device and dtype of the input."""
        lda = None if self.lda is None else self.lda.to(embeddings)
        return prepare(embeddings, self.centre.to(embeddings), lda)

    def score(self, embeddings: Tensor, voices: Tensor | Sequence[Tensor]) -> Tensor:
        """Score embeddings (B, D) against S enrolled speakers; see ``PldaHead``.

        Returns:
            (B, S) log-likelihood ratios.
        """
        scores: Tensor = PldaHead(self, voices).to(embeddings)(embeddings)
        return scores

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, speakers: Sequence[str]) -> Plda:
        """Return this back end with a threshold at the equal error rate of all pairs of recordings.

        A pair is one recording against another. Against speakers enrolled from several recordings,
        both the true speaker and impostors score higher, so this threshold accepts more of both.

        Args:
            embeddings: (N, D) embeddings of recordings that were not used for fitting.
            speakers: Speaker of each of the N recordings.

        Raises:
            InputError: If no speaker has two embeddings, or there is only one speaker.
        """
        rows = embeddings.double()
        scores = self.score(rows, rows).cpu().numpy() if len(rows) else rows.numpy()
        eer = all_pairs_eer(scores, speakers)
        if eer is None:
            raise InputError(
                f"got {len(speakers)} recordings of {len(set(speakers))} speakers for the "
                "threshold, "
                "expected at least two speakers, one of them with two recordings; add recordings"
            )
        return replace(self, threshold=eer.threshold)

    def to_json(self) -> dict[str, Any]:
        """Return a summary of the fit as JSON values."""
        return {
            "speakers": self.n_speakers,
            "embeddings": self.n_embeddings,
            "dimensions": self.dim,
            "rank": self.rank,
            "threshold": None if self.threshold is None else round(self.threshold, 6),
            "failed": [str(failure) for failure in self.failures],
            "model_id": self.model_id,
        }

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the back end to a file, whole or not at all.

        Args:
            path: File to write.
            force: Overwrite an existing file.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        tensors = {name: getattr(self, name) for name in ("centre", "mean", "loading", "residual")}
        if self.lda is not None:
            tensors["lda"] = self.lda
        meta = {
            "n_speakers": self.n_speakers,
            "n_embeddings": self.n_embeddings,
            "threshold": self.threshold,
            "provenance": list(self.provenance),
        }
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> Plda:
        """Read a back end.

        Args:
            path: File that ``save`` wrote.
            model_id: Hash of the model to use it with.

        Raises:
            StateError: If the file is not a PLDA back end for this model.
            HashMismatchError: If the file was changed after it was written.
        """
        state = load_state(path, kind=_KIND, model_id=model_id)
        with reading_state(path):
            tensors, meta = state.tensors, dict(state.meta)
            return Plda(
                model_id=model_id,
                centre=tensors["centre"],
                lda=tensors.get("lda"),
                mean=tensors["mean"],
                loading=tensors["loading"],
                residual=tensors["residual"],
                n_speakers=meta["n_speakers"],
                n_embeddings=meta["n_embeddings"],
                threshold=meta["threshold"],
                provenance=tuple(meta["provenance"]),
            )


class PldaHead(nn.Module):
    """Head that returns log-likelihood ratios of embeddings (B, D) to S enrolled speakers: (B, S).

    The ratio of "one speaker" to "two speakers" (natural logarithm) is the sum, over the axes of
    ``Plda.axes`` with variance ψ between speakers, of a quadratic form of the two coordinates u
    and v::

        ln (1 + ψ) − ½ ln (1 + 2ψ) − ½ ψ² / ((1 + ψ)(1 + 2ψ)) · (u² + v²) + ψ / (1 + 2ψ) · u v

    It equals SpeechBrain's ``fast_PLDA_scoring``, needs no matrix inverse, and is differentiable in
    the embeddings. The head has the dtype and device of ``voices``.
    """

    centre: Tensor
    lda: Tensor | None
    mean: Tensor
    basis: Tensor
    square: Tensor
    cross: Tensor
    voices: Tensor
    offsets: Tensor

    def __init__(self, plda: Plda, voices: Tensor | Sequence[Tensor]) -> None:
        """Enrol speakers.

        Args:
            plda: Fitted back end.
            voices: (S, D) with one embedding per speaker, or S tensors (D,) or (recordings, D),
                whose prepared embeddings are averaged.

        Raises:
            InputError: If there is no speaker, or an embedding does not have the back end's size D.
        """
        super().__init__()
        size = len(plda.centre)
        shapes = [tuple(v.shape) for v in voices]
        wrong = [s for s in shapes if len(s) not in (1, 2) or s[-1] != size or 0 in s]
        if wrong or not shapes:
            raise InputError(
                f"voices are {wrong[0] if wrong else 'none'}, expected ({size},) or (recordings, "
                f"{size}) for each speaker; enrol with the model that this PLDA was fitted for"
            )
        basis, between = plda.axes
        square = -between.square() / ((1 + between) * (1 + 2 * between))
        rows = (v.detach().to(plda.centre).reshape(-1, size) for v in voices)
        enrolled = torch.stack([plda.prepare(row).mean(dim=0) for row in rows])
        latent = (enrolled - plda.mean) @ basis
        constant = (between.log1p() - (2 * between).log1p() / 2).sum()
        buffers = {
            "centre": plda.centre,
            "lda": plda.lda,
            "mean": plda.mean,
            "basis": basis,
            "square": square / 2,
            "cross": between / (1 + 2 * between),
            "voices": latent,
            "offsets": constant + latent.square() @ (square / 2),
        }
        for name, tensor in buffers.items():
            # a copy, so that in-place changes to the head do not reach the back end
            self.register_buffer(name, None if tensor is None else tensor.clone().to(voices[0]))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the ratios (B, S) of embeddings (B, D)."""
        latent = (prepare(embeddings, self.centre, self.lda) - self.mean) @ self.basis
        own = latent.square() @ self.square
        return own[:, None] + self.offsets + (latent * self.cross) @ self.voices.mT


def prepare(embeddings: Tensor, centre: Tensor, lda: Tensor | None) -> Tensor:
    """Prepare embeddings for PLDA: unit length, centring, LDA, unit length; see ``Plda``.

    Args:
        embeddings: (N, D) embeddings.
        centre: (D,) mean to subtract.
        lda: (D, K) LDA projection; None means no projection.

    Returns:
        (N, K) prepared embeddings.
    """
    centred = nn.functional.normalize(embeddings, dim=-1) - centre
    return nn.functional.normalize(centred if lda is None else centred @ lda, dim=-1)
