"""Write small speaker models in the layout in which SpeechBrain publishes its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models import ECAPA_TDNN, ResNet, Xvector
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

LABELS = ("id10001", "o'brien", 'say "id"', "zoë")

_NETWORKS = {
    "ecapa": """
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: !ref <out_n_neurons>
""",
    "xvector": """
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: !ref <n_mels>
    activation: !name:torch.nn.LeakyReLU
    tdnn_blocks: 5
    tdnn_channels: [16, 16, 16, 16, 24]
    tdnn_kernel_sizes: [5, 3, 3, 1, 1]
    tdnn_dilations: [1, 2, 3, 1, 1]
    lin_neurons: 12

classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, 12]
    activation: !name:torch.nn.LeakyReLU
    lin_blocks: 1
    lin_neurons: 12
    out_neurons: !ref <out_n_neurons>
""",
    "resnet": """
embedding_model: !new:speechbrain.lobes.models.ResNet.ResNet
    input_size: !ref <n_mels>
    channels: [8, 8, 8, 8]
    strides: [1, 2, 2, 2]
    block_sizes: [1, 1, 1, 1]
    lin_neurons: 12

classifier: !new:speechbrain.lobes.models.ResNet.Classifier
    input_size: 12
    out_neurons: !ref <out_n_neurons>
""",
}
KINDS = tuple(_NETWORKS)

_YAML = """\
# ############################################################################
# Model: speaker verification
# ############################################################################

# Feature parameters
n_mels: 24

# Pretrain folder (HuggingFace)
pretrained_path: {path}

# Output parameters
out_n_neurons: 4

# Model params
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
{network}
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def _modules(kind: str) -> tuple[nn.Module, nn.Module]:
    if kind == "ecapa":
        network = ECAPA_TDNN.ECAPA_TDNN(
            24,
            channels=[16, 16, 16, 16, 48],
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=8,
            lin_neurons=12,
        )
        return network, ECAPA_TDNN.Classifier(12, out_neurons=4)
    if kind == "xvector":
        network = Xvector.Xvector(
            tdnn_channels=[16, 16, 16, 16, 24], lin_neurons=12, in_channels=24
        )
        return network, Xvector.Classifier([None, None, 12], lin_neurons=12, out_neurons=4)
    network = ResNet.ResNet(
        24, channels=[8] * 4, block_sizes=[1] * 4, strides=[1, 2, 2, 2], lin_neurons=12
    )
    return network, ResNet.Classifier(12, out_neurons=4)


def voices(count: int = 16, samples: int = 8000, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tones of four pitches with overtones and noise, (N, samples), and their labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    time_s = torch.arange(samples) / 16000
    pitch = (150 + 90 * labels + 5 * torch.rand(count, generator=generator))[:, None]
    tones = sum(torch.sin(2 * torch.pi * k * pitch * time_s) / k for k in (1, 2, 3, 5))
    return 0.1 * tones + 0.01 * torch.randn(count, samples, generator=generator), labels


def write_directory(kind: str, directory: Path, *, steps: int = 3) -> Path:
    """Train a network for some steps and write it as SpeechBrain publishes its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, classifier = _modules(kind)
        # batch statistics of 0 and 1 would hide a layer that is left out
        for module in [*network.modules(), *classifier.modules()]:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 0.5
        _train(network, classifier, steps)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hyperparams.yaml").write_text(
        _YAML.format(path=directory, network=_NETWORKS[kind])
    )
    torch.save(network.state_dict(), directory / "embedding_model.ckpt")
    torch.save(classifier.state_dict(), directory / "classifier.ckpt")
    write_labels(LABELS, directory)
    normalization = InputNormalization(norm_type="global", std_norm=False)
    normalization(torch.randn(4, 1, 12, generator=torch.Generator().manual_seed(3)), torch.ones(4))
    normalization._save(str(directory / "mean_var_norm_emb.ckpt"))
    return directory


def write_labels(labels: Iterable[object], directory: Path, *, first: int = 0) -> None:
    """Write labels as ``CategoricalEncoder`` does."""
    encoder = CategoricalEncoder(starting_index=first)
    for label in labels:
        encoder.add_label(label)
    encoder.save(directory / "label_encoder.txt")


def _train(network: nn.Module, classifier: nn.Module, steps: int) -> None:
    features = Fbank(n_mels=24)
    centre = InputNormalization(norm_type="sentence", std_norm=False)
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    wavs, labels = voices()
    for _ in range(steps):
        scores = classifier(network(centre(features(wavs), torch.ones(16))).reshape(16, 1, -1))
        loss = nn.functional.cross_entropy(scores.squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
