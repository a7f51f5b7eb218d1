"""Train networks on images from a recipe's YAML, and publish them as pretrained directories.

A directory holds weights as safetensors, a YAML file that describes the model, a model card with
the hashes of both, and a README.md made from the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file
from torch import nn, random

from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError, OutputError
from nip_audio.image.datasets import ImageSet, load_images
from nip_audio.models.cards import CARD_NAME, CARD_VERSION, HYPERPARAMS_NAME
from nip_audio.models.readme import write_readme
from nip_audio.training.image_training import (
    ImageTraining,
    accuracy,
    image_model,
    train_images,
)

__all__ = ["ImageRun", "publish_images", "read_run", "run_recipe"]

_PARTS = ("embedding_model", "classifier")
NOISES = (0.05, 0.1)
"""Standard deviations of the white noise in which a published model's accuracy is stated."""


@dataclass(frozen=True)
class ImageRun:
    """A training run as a recipe's YAML describes it.

    Attributes:
        text: Text of the YAML.
        hparams: Values of the YAML.
        network: Untrained network.
        classifier: Untrained linear classifier.
        plan: Settings of the training.
    """

    text: str
    hparams: Mapping[str, Any]
    network: nn.Module
    classifier: nn.Module
    plan: ImageTraining

    def data(self, role: Any) -> ImageSet:
        """Return the recipe's images of one role, in the model's size."""
        folder = self.hparams["data_folder"]
        found = load_images(
            self.hparams["data"],
            role,
            folder=None if folder is None else Path(folder),
            seed=self.hparams["split_seed"],
            download=self.hparams["download"],
        )
        _, height, width = self.hparams["image_shape"]
        return found.resized(height, width)


def read_run(path: Path, overrides: Mapping[str, Any]) -> ImageRun:
    """Read a recipe's YAML, and initialise its modules from its seed.

    Raises:
        InputError: If an override is not a key of the YAML.
    """
    text = path.read_text(encoding="utf-8")
    known = _nodes(text)
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise InputError(
            f"{path.name} has no {', '.join(unknown)}; its options are {sorted(known)}"
        )
    with random.fork_rng(devices=[]):
        seed = load_hyperpyyaml(text, dict(overrides))["seed"]
        random.manual_seed(seed)
        hparams = load_hyperpyyaml(text, dict(overrides))
    plan = ImageTraining.from_hparams(hparams)
    return ImageRun(text, hparams, hparams["embedding_model"], hparams["classifier"], plan)


def run_recipe(arguments: Sequence[str]) -> Path:
    """Train the model that a recipe's YAML describes, and write a model directory.

    Args:
        arguments: Path of the YAML, and options ``--name=value`` that override its values.

    Returns:
        The directory written, ``output_folder`` of the YAML.

    Raises:
        InputError: If the arguments have another form, or data and YAML do not fit together.
        OutputError: If the directory exists.
    """
    if not arguments or any(not a.startswith("--") or "=" not in a for a in arguments[1:]):
        raise InputError(f"got {list(arguments)}, expected a YAML and --name=value options")
    given = dict(a.removeprefix("--").split("=", 1) for a in arguments[1:])
    overrides = {name: yaml.safe_load(value) for name, value in given.items()}
    run = read_run(Path(arguments[0]), overrides)
    target = Path(run.hparams["output_folder"])
    if target.exists():
        raise OutputError(f"{target} exists; give another --output_folder, or delete it")
    train = run.data("train")
    model = image_model(run.network, run.classifier, train.classes)
    log: list[str] = []

    def report(epoch: int, loss: float, right: float) -> None:
        log.append(f"epoch {epoch + 1}: loss {loss:.4f}, classified correctly {right:.4f}")
        print(log[-1], flush=True)  # noqa: T201 - a recipe's progress

    train_images(model, train, run.plan, seed=run.hparams["seed"], progress=report)
    tested = run.data("test")
    metrics: dict[str, Any] = {"test": len(tested), "clean": accuracy(model, tested)}
    metrics |= {f"noise_{s:g}": accuracy(model, tested, noise=s, seed=1) for s in NOISES}
    told = None
    if "data" in overrides and "data_words" not in overrides:  # the YAML's words are of other data
        told = {"data": f"{run.hparams['data']}, {len(train):,} training images"}
    publish_images(model, run, target, train=train, metrics=metrics, training=told)
    return target


def publish_images(
    model: InstrumentedModel,
    run: ImageRun,
    target: Path,
    *,
    train: ImageSet,
    metrics: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a pretrained directory.

    Args:
        model: Trained model.
        run: Run that describes the model.
        target: Directory to write; its name becomes the model's.
        train: Images that the model was trained on.
        metrics: Metrics for the card.
        training: Description of the training for the card, if it was not the recipe's.
    """
    target.mkdir(parents=True)
    parts: dict[str, nn.Module] = {"embedding_model": run.network, "classifier": run.classifier}
    for name, module in parts.items():
        tensors = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
        save_file(tensors, target / f"{name}.safetensors")
    (target / HYPERPARAMS_NAME).write_text(_description(run.text), encoding="utf-8")
    names = sorted([HYPERPARAMS_NAME, *(f"{name}.safetensors" for name in parts)])
    card = {
        "format_version": CARD_VERSION,
        "name": target.name,
        "modality": "image",
        "architecture": run.hparams["architecture"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "image_shape": list(run.hparams["image_shape"]),
        "output_kind": "logits",
        "scale": 1.0,
        "labels": list(train.classes),
        "default_taps": run.hparams["default_taps"],
        "files": {name: file_sha256(target / name) for name in names},
        "calibration": None,
        "metrics": dict(metrics),
        "licence": "Apache-2.0 (weights and code)",
        "limits": run.hparams["limits"],
        "training": {
            "data": run.hparams["data_words"],
            "pictures": len(train),
            "pictures_sha256": hashlib.sha256(train.pixels.numpy().tobytes()).hexdigest(),
            "split_seed": run.hparams["split_seed"],
            "seed": run.hparams["seed"],
            "hyperparameters": asdict(run.plan),
            **(training or {}),
        },
    }
    text = json.dumps(card, indent=2) + "\n"
    (target / CARD_NAME).write_text(text, encoding="utf-8")
    write_readme(target)


def _description(text: str) -> str:
    """Extract the description of the model from a training YAML."""
    nodes = _nodes(text)
    pairs = [(yaml.ScalarNode("tag:yaml.org,2002:str", part), nodes[part]) for part in _PARTS]
    described = yaml.MappingNode("tag:yaml.org,2002:map", pairs)
    model = yaml.serialize(described, Dumper=yaml.SafeDumper)
    return f"# Describes the model; may instantiate model classes only.\n{model}"


def _nodes(text: str) -> dict[str, yaml.Node]:
    """Return the top-level nodes of a YAML by key, without building them."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise InputError("the recipe is not a YAML mapping; restore it")
    return {key.value: value for key, value in root.value}
