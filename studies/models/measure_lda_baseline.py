r"""Measure a simple baseline: linear discriminant analysis (LDA) of the long-term spectrum.

    python -m studies.models.measure_lda_baseline --manifest RUN/save/test.csv --crop_s 3 \
        --data_folder /path/to/LibriSpeech --results studies/results/lda_30.json

Each crop is described by two numbers per band: mean and standard deviation over time of log-mel
decibels, after removing the level. LDA is fitted to overlapping crops of the ``train`` role, each
once clean and once with white noise at 5 to 45 dB SNR, and tested like the networks. The manifest
``train.csv`` lies beside that of the test clips. No setting is tuned; the shrinkage is Ledoit and
Wolf's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from nip_audio import ReadSettings
from nip_audio.audio.features import LogMel
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.evaluation.identification import (
    WHITE_NOISES,
    accuracy,
    correct_crops_by,
    read_crops,
)
from studies._lib.command import command, run, write_results
from studies.models.measure_identification import by_session

SEED = 1234
N_MELS = 64
HOP_S = 0.5


def spectrum(features: LogMel, x: Tensor) -> np.ndarray:
    """Return mean and standard deviation of each band, (2 · bands,)."""
    levels = features(x[None])[0][0]
    levels = levels - levels.mean()
    return torch.cat([levels.mean(dim=1), levels.std(dim=1)]).numpy()


def main() -> None:
    """Fit and test the baseline, and write the results."""
    parser = command(__doc__, needed=("manifest", "data_folder", "results"))
    parser.add_argument("--crop_s", type=float)
    options = parser.parse_args()
    features = LogMel(n_mels=N_MELS, low_db=-100.0, high_db=60.0)
    generator = torch.Generator().manual_seed(SEED)
    settings = ReadSettings(min_duration_s=0.1)

    def read(manifest: Path) -> list[Recording]:
        return read_recordings(manifest, data_root=options.data_folder)

    trained = read(options.manifest.with_name("train.csv"))
    size = round((options.crop_s or 2.0) * settings.sample_rate_hz)
    vectors, speakers = [], []
    for recording in read_crops(trained, settings, crop_s=None):
        x = recording.samples
        for start in range(0, max(len(x) - size, 0) + 1, round(HOP_S * settings.sample_rate_hz)):
            crop = x[start : start + size]
            snr_db = 5 + 40 * torch.rand((), generator=generator)
            rms = crop.square().mean().sqrt() * 10 ** (-snr_db / 20)
            noise = rms * torch.randn(crop.shape, generator=generator)
            vectors += [spectrum(features, crop), spectrum(features, (crop + noise).clamp(-1, 1))]
            speakers += [recording.speaker] * 2
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(vectors, speakers)
    crops = read_crops(read(options.manifest), settings, crop_s=options.crop_s)
    results: dict[str, Any] = {"seed": SEED, "crop_s": options.crop_s, "n_mels": N_MELS}
    for group, some in by_session(crops, trained).items():
        results[group] = {"crops": len(some)}
        for name, level in WHITE_NOISES.items():
            right = correct_crops_by(
                lambda x: str(lda.predict([spectrum(features, x)])[0]),
                some,
                level,
                generator=torch.Generator().manual_seed(SEED),
            )
            results[group][name] = accuracy(right, some, seed=SEED).to_json()
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
