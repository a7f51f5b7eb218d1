r"""Fit PLDA to the x-vector's training speakers; compare it with the cosine on unknown speakers.

    python -m studies.xvector.measure_plda --model xvector-libri251 \
        --data_folder /path/to/LibriSpeech \
        --split_file /path/to/LibriSpeech/split.csv --work_folder results/plda \
        --results studies/results/xvector_plda.json

PLDA is fitted on the ``train`` role of the 251 speakers, cut into crops, since each has only one
recording. Length of crops and number of dimensions are chosen by the EER on the ``calibrate`` role
of the unknown speakers, who are enrolled from their ``train`` role. The ``test`` role is scored
once with this choice, and once with the PLDA shipped beside the model.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from nip_audio import CosineHead, WaveformAdapter, embed_audio, enrol, load_pretrained
from nip_audio.audio.crops import cut
from nip_audio.core.state import file_sha256
from nip_audio.models.plda import Plda, PldaHead
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.pretrained import PretrainedModel
from studies._lib.command import command, run, write_results
from studies.xvector.detection import SEED, Clip
from studies.xvector.measure import embed_clips, enrolled_eer, read_role

CROPS_S = (1.0, 2.0)
LDA_DIMS = (25, 50, 100, 150, None)


def embed_crops(
    pretrained: PretrainedModel, clips: list[Clip], crop_s: float
) -> tuple[torch.Tensor, list[str]]:
    """Embed crops of recordings, and return them with their speakers."""
    crops = [(c.speaker, piece) for c in clips for piece in cut(c.audio, crop_s)]
    embeddings = torch.stack([embed_audio(pretrained, piece) for _, piece in crops])
    return embeddings, [speaker for speaker, _ in crops]


def main() -> None:
    """Choose the PLDA on ``calibrate``, measure it on ``test``, and write the results."""
    parser = command(__doc__, needed=("data_folder", "split_file", "work_folder", "results"))
    parser.add_argument("--model", default="xvector-libri251")
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    read = partial(read_role, options)
    known, enrolled = read("train-clean-100", "train"), read("test-clean", "train")
    calibrate, test = read("test-clean", "calibrate"), read("test-clean", "test")
    voices = enrol(pretrained, [c.recording for c in enrolled], WaveformAdapter())
    chosen_on = embed_clips(pretrained, calibrate)
    grid: list[dict[str, Any]] = []
    best: tuple[float, Plda] | None = None
    for crop_s in CROPS_S:
        embeddings, speakers = embed_crops(pretrained, known, crop_s)
        for dim in LDA_DIMS:
            plda = fit_plda(embeddings, speakers, model_id=pretrained.model_id, lda_dim=dim)
            head = PldaHead(plda, voices.embeddings)
            eer = enrolled_eer(head, chosen_on, calibrate, voices, enrolled)["all"]["value"]
            grid.append({"crop_s": crop_s, "lda_dim": dim, "calibrate_eer": eer})
            if best is None or eer < best[0]:
                best = eer, plda
    assert best is not None  # noqa: S101 - the grid is not empty

    tested = embed_clips(pretrained, test)

    def measured(head: torch.nn.Module) -> dict[str, Any]:
        return enrolled_eer(head, tested, test, voices, enrolled)

    shipped = pretrained.card.plda_path
    results = {
        "model": pretrained.card.name,
        "model_id": pretrained.model_id,
        "seed": SEED,
        "grid": grid,
        "cosine": measured(CosineHead(voices.voices)),
        "plda": measured(PldaHead(best[1], voices.embeddings)),
        "shipped_plda": shipped
        and measured(PldaHead(Plda.load(shipped, model_id=pretrained.model_id), voices.embeddings))
        | {"sha256": file_sha256(shipped)},
    }
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
