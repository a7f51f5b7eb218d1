"""The recipes' YAML files: sizes as the papers give them, parts that fit, compact beside paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from torch import nn
from torch.nn.functional import cross_entropy

RECIPES = Path(__file__).parents[2] / "recipes"
COMPACT = {
    "LibriSpeech/ECAPA/hparams/ecapa",
    "LibriSpeech/ResNet34/hparams/resnet34_attentive",
    "LibriSpeech/AudioNet/hparams/audionet",
    "LibriSpeech/Xvector/hparams/xvector",
    "VCTK/DeepSpeaker/hparams/deep_speaker",
    "VCTK/ResNet34/hparams/resnet34",
}
PAPER = {
    "LibriSpeech/ECAPA/hparams/ecapa_paper",
    "LibriSpeech/Xvector/hparams/xvector_paper",
    "VCTK/DeepSpeaker/hparams/deep_speaker_paper",
    "VCTK/ResNet34/hparams/resnet34_paper",
}


def load(recipe: str, output_folder: Path) -> dict:
    overrides = {"data_folder": "none", "output_folder": str(output_folder)}
    with (RECIPES / f"{recipe}.yaml").open(encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


def top_level(recipe: str) -> dict[str, str]:
    """Return the YAML's keys with their values as text, references not followed."""
    root = yaml.compose((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return {key.value: yaml.serialize(value) for key, value in root.value}


def parameter_count(*modules: nn.Module) -> int:
    """Count as the NIP paper does: running means and variances are parameters too."""
    tensors = nn.ModuleList(modules).state_dict()
    return sum(t.numel() for n, t in tensors.items() if not n.endswith("num_batches_tracked"))


def test_every_yaml_is_listed_here():
    yamls = RECIPES.rglob("hparams/*.yaml")
    assert {p.relative_to(RECIPES).with_suffix("").as_posix() for p in yamls} == COMPACT | PAPER


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        ("VCTK/ResNet34/hparams/resnet34_paper", 21_315_166),
        ("VCTK/DeepSpeaker/hparams/deep_speaker_paper", 24_201_118),
    ],
)
def test_paper_networks_have_the_nip_papers_parameter_counts(recipe, count, tmp_path):
    hparams = load(recipe, tmp_path)
    classifier = hparams["classifier"]
    assert isinstance(classifier, nn.Linear)
    assert classifier.out_features == 30
    assert parameter_count(hparams["embedding_model"], classifier) == count
    assert f"{count:,} parameters" in (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")


def test_the_large_ecapa_has_the_size_that_its_paper_gives(tmp_path):
    network = load("LibriSpeech/ECAPA/hparams/ecapa_paper", tmp_path)["embedding_model"]
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 14.7


@pytest.mark.parametrize("recipe", sorted(COMPACT))
def test_compact_networks_are_as_small_as_their_heading_says(recipe, tmp_path):
    parameters = load(recipe, tmp_path)["embedding_model"].parameters()
    millions = sum(p.numel() for p in parameters) / 1e6
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    (stated,) = re.findall(r"([\d.]+) M parameters", text)
    assert f"{millions:.1f}" == stated
    assert millions < 1.6


@pytest.mark.parametrize("recipe", sorted(COMPACT | PAPER))
def test_features_network_classifier_and_loss_fit_together(recipe, tmp_path):
    hparams = load(recipe, tmp_path)
    assert hparams["n_classes"] == hparams["n_speakers"] * len(hparams["speeds"])
    modules = nn.ModuleDict(hparams["modules"]).eval()
    with torch.no_grad():
        features, frames = hparams["compute_features"](torch.rand(2, 8000) - 0.5)
        embeddings = modules["embedding_model"](features, frames)
        assert embeddings.shape == (2, hparams["embedding_dim"])
        scores = modules["classifier"](embeddings.unsqueeze(1))
    assert scores.shape == (2, 1, hparams["n_classes"])
    if isinstance(modules["classifier"], nn.Linear):  # a dense head is trained on its logits
        labels = torch.tensor([0, 1])
        loss = hparams["compute_cost"](scores, labels[:, None])
        torch.testing.assert_close(loss, cross_entropy(scores[:, 0], labels))


@pytest.mark.parametrize("recipe", sorted(PAPER))
def test_compact_and_paper_differ_in_size_and_head_alone(recipe):
    compact, paper = top_level(recipe.removesuffix("_paper")), top_level(recipe)
    assert list(compact) == list(paper)
    differing = {key for key in compact if compact[key] != paper[key]}
    width = {"width" if "ResNet" in recipe else "channels", "embedding_dim"}
    if "ECAPA" in recipe:
        width = {"channels", "attention_channels", "se_channels"}
    # short crops keep the x-vector from learning the few words of the little data by heart
    crop = {"crop_s"} if "Xvector" in recipe else set()
    # (speaker, speed) pairs as classes: extra classes would not be in the papers' counts
    classes = {"speeds", "n_classes"} if "VCTK" in recipe else set()
    # an angular margin learns more from little speech than the papers' dense head
    head = {"classifier", "compute_cost", "scale", "card"} if "VCTK" in recipe else set()
    assert differing == width | crop | classes | head | {"output_folder"}
