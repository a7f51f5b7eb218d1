"""A small ECAPA-TDNN in SpeechBrain's layout, to stand for a model of others."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["write_ecapa"]

SPEECHBRAIN = """
n_mels: 24
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 4
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
"""


def write_ecapa(folder: Path) -> Path:
    """Write the directory that SpeechBrain would, with random weights from a fixed seed."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier

    torch.manual_seed(0)
    net = ECAPA_TDNN(
        24,
        channels=[16, 16, 16, 16, 48],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=8,
        lin_neurons=12,
    )
    (folder / "hyperparams.yaml").write_text(SPEECHBRAIN)
    torch.save(net.state_dict(), folder / "embedding_model.ckpt")
    torch.save(Classifier(12, out_neurons=4).state_dict(), folder / "classifier.ckpt")
    names = "".join(f"'{name}' => {i}\n" for i, name in enumerate("abcd"))
    (folder / "label_encoder.txt").write_text(f"{names}{'=' * 16}\n'starting_index' => 0\n")
    return folder
