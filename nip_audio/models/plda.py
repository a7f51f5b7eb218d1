"""PLDA back end: the log-likelihood ratio that two embeddings are of one voice, differentiable.

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

from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.errors import AudioError, InputError

__all__ = ["Plda", "PldaHead", "prepare"]

_KIND = "plda"


@dataclass(frozen=True, eq=False)
class Plda:
    """A fitted back end: how embeddings are prepared, and how prepared ones vary.

    An embedding is scaled to unit length (this toolkit compares directions: raw and unit-length
    embeddings give the same score), centred, projected by LDA if there is one, and scaled to unit
    length again. What comes out is taken for ``mean + loading · h + noise`` with h ~ N(0, I), one
    draw a speaker, and noise ~ N(0, residual), one draw a recording.

    Several recordings of one speaker are prepared one by one and averaged, and the average is
    scored like one recording: that is what SpeechBrain's ``mean_stat_per_model`` does, and the most
    effective of the ways that Rajan et al. 2014 compare.

    Attributes:
        model_id: Model that made the embeddings.
        centre: (D,) float64, mean of the unit-length embeddings.
        lda: (D, K) float64, or None: then K = D.
        mean: (K,) float64.
        loading: (K, R) float64, SpeechBrain's F.
        residual: (K, K) float64, positive definite, SpeechBrain's Sigma.
        n_speakers: Speakers it was fitted on.
        n_embeddings: Embeddings it was fitted on.
        threshold: Ratio at the equal error rate of other recordings, from which a claim is
            accepted; None if there were none.
        provenance: Content hashes of all recordings seen, for the refusal of overlaps.
        failures: Recordings left out.
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

    @property
    def dim(self) -> int:
        """Size K of prepared embeddings."""
        return self.loading.shape[0]

    @property
    def rank(self) -> int:
        """Directions R in which speakers differ."""
        return self.loading.shape[1]

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Axes along which noise has variance 1 and speakers vary independently (Ioffe 2006).

        Returns:
            (K, R) basis and (R,) variances between speakers. Along all other directions speakers do
            not differ, so that the ratio does not depend on them.
        """
        root = torch.linalg.cholesky(self.residual)
        white = torch.linalg.solve_triangular(root, self.loading, upper=False)
        left, singular, _ = torch.linalg.svd(white, full_matrices=False)
        return torch.linalg.solve_triangular(root.mT, left, upper=True), singular.square()

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Prepare embeddings: (N, D) → (N, K), on the device and in the dtype of the input."""
        lda = None if self.lda is None else self.lda.to(embeddings)
        return prepare(embeddings, self.centre.to(embeddings), lda)

    def score(self, embeddings: Tensor, voices: Tensor | Sequence[Tensor]) -> Tensor:
        """Score embeddings against voices: (B, D) → (B, S); see ``PldaHead``."""
        scores: Tensor = PldaHead(self, voices).to(embeddings)(embeddings)
        return scores

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, speakers: Sequence[str]) -> Plda:
        """Return this back end with the threshold at the equal error rate of all pairs.

        A pair is one recording against one. Voices enrolled from several recordings score higher,
        strangers against them too: the threshold then accepts more of both.

        Args:
            embeddings: (N, D) of recordings that it was not fitted on.
            speakers: N names.

        Raises:
            InputError: If no speaker has two embeddings, or there is only one speaker.
        """
        rows = embeddings.double()
        scores = self.score(rows, rows).cpu().numpy() if len(rows) else rows.numpy()
        eer = all_pairs_eer(scores, speakers)
        if eer is None:
            raise InputError(
                f"{len(speakers)} recordings of {len(set(speakers))} speakers give no threshold, "
                "expected two speakers or more, and two recordings of one of them"
            )
        return replace(self, threshold=eer.threshold)

    def to_json(self) -> dict[str, Any]:
        """Return what it was fitted on, as plain values."""
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
        """Write atomically."""
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
        """Read, refusing a back end fitted for another model."""
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
    """Log-likelihood ratios of embeddings to enrolled voices: (B, D) → (B, S), natural logarithm.

    The ratio of "one speaker" to "two speakers" is, along each axis of ``Plda.axes`` with variance
    ψ between speakers, a quadratic form of the two coordinates u and v::

        ln (1 + ψ) − ½ ln (1 + 2ψ) − ½ ψ² / ((1 + ψ)(1 + 2ψ)) · (u² + v²) + ψ / (1 + 2ψ) · u v

    It equals SpeechBrain's ``fast_PLDA_scoring``, needs no inverse, and is differentiable in the
    embeddings. The head has the dtype and the device of the voices.
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
        """Enrol voices.

        Args:
            plda: Back end.
            voices: (S, D) one embedding a speaker, or S tensors of (D,) or (recordings, D), whose
                prepared embeddings are averaged.

        Raises:
            InputError: If there is no voice, or one is not of the back end's D.
        """
        super().__init__()
        size = len(plda.centre)
        shapes = [tuple(v.shape) for v in voices]
        wrong = [s for s in shapes if len(s) not in (1, 2) or s[-1] != size or 0 in s]
        if wrong or not shapes:
            raise InputError(
                f"voices are {wrong[0] if wrong else 'none'}, expected ({size},) or (recordings, "
                f"{size}) each; enrol with the model that this PLDA was fitted for"
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
            # a copy: what is done to the head in place is not done to the back end
            self.register_buffer(name, None if tensor is None else tensor.clone().to(voices[0]))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score."""
        latent = (prepare(embeddings, self.centre, self.lda) - self.mean) @ self.basis
        own = latent.square() @ self.square
        return own[:, None] + self.offsets + (latent * self.cross) @ self.voices.mT


def prepare(embeddings: Tensor, centre: Tensor, lda: Tensor | None) -> Tensor:
    """Unit length, centre, LDA, unit length: (N, D) → (N, K); see ``Plda``."""
    centred = nn.functional.normalize(embeddings, dim=-1) - centre
    return nn.functional.normalize(centred if lda is None else centred @ lda, dim=-1)
