"""Publish a finished training run as a pretrained directory: safetensors, YAML, card, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file
from speechbrain.utils.checkpoints import Checkpointer, average_checkpoints
from torch import Tensor

from nip_audio.audio.manifest import read_recordings
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError
from nip_audio.models.cards import CARD_NAME, CARD_VERSION, COMPANIONS, HYPERPARAMS_NAME
from nip_audio.models.heads import head_of
from nip_audio.models.readme import write_readme
from nip_audio.speechbrain.encoder_classifier import speechbrain_section
from nip_audio.training.training import reading

__all__ = ["TrainedRun", "classes_of", "complete", "load_run", "plain_values", "publish", "seen"]

_PARTS = ("compute_features", "embedding_model", "classifier")
_CLASS_COUNTS = ("out_features", "out_neurons")


@dataclass(frozen=True)
class TrainedRun:
    """A training run, at the mean of its last checkpoints.

    Attributes:
        yaml: Text of the run's YAML.
        hparams: Values of the YAML; its modules have the mean of the kept checkpoints.
        speakers: Names of the classes at the original speed.
        epochs: Number of finished epochs.
    """

    yaml: str
    hparams: Mapping[str, Any]
    speakers: list[str]
    epochs: int


def load_run(run: Path) -> TrainedRun:
    """Read a run of ``nip_audio.training.training``.

    Raises:
        InputError: If the run has no checkpoint.
    """
    text = (run / HYPERPARAMS_NAME).read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text)
    modules = dict(hparams["modules"])
    kept = Checkpointer(run / "save", modules).find_checkpoints(
        max_num_checkpoints=hparams["averaged_checkpoints"]
    )
    if not kept:
        raise InputError(f"{run / 'save'} has no checkpoint; train the model first")
    for name, module in modules.items():
        module.load_state_dict(average_checkpoints(kept, name))
    speakers = (run / "save" / "labels.txt").read_text(encoding="utf-8").splitlines()
    return TrainedRun(text, hparams, speakers, max(one.meta["epoch"] for one in kept))


def publish(
    run: Path,
    target: Path,
    *,
    command: str,
    data: str,
    limits: str,
    data_licence: str | None = None,
    subset: str | None = None,
) -> None:
    """Write a pretrained directory from a training run.

    Calibration, PLDA and purifier that lie there stay if the weights are those that they were
    fitted to, and are deleted otherwise.

    Args:
        run: Output folder of a run of ``nip_audio.training.training``.
        target: Directory to write; its name becomes the model's.
        command: Command of the training run, for the card.
        data: Description of the training data, for the card.
        limits: Description of what the model must not be used for, for the card.
        data_licence: Licence of the training data, for the card. None is for published corpora that
            ``data`` names, whose licences are known (``nip_audio.models.readme.CORPORA``).
        subset: Folder of the corpus whose speakers the model is to name, where it was trained on
            several; None names all.

    Raises:
        InputError: If the run has no checkpoint, or no speaker of the subset.
    """
    trained = load_run(run)
    hparams = trained.hparams
    rows = classes_of(trained, run / "save" / "train.csv", subset)
    speakers = [trained.speakers[row] for row in rows]
    network, classifier = hparams["embedding_model"], hparams["classifier"]
    target.mkdir(parents=True, exist_ok=True)
    former = _model_files(target)
    kept = {k: v[rows] for k, v in classifier.state_dict().items()}
    _save(network.state_dict(), target / "embedding_model.safetensors")
    _save(kept, target / "classifier.safetensors")
    (target / HYPERPARAMS_NAME).write_text(
        _description(trained.yaml, len(speakers)), encoding="utf-8"
    )
    names = [HYPERPARAMS_NAME, "classifier.safetensors", "embedding_model.safetensors"]
    split_file = hparams["split_file"]
    card = {
        "format_version": CARD_VERSION,
        "name": target.name,
        "architecture": hparams["card"]["architecture"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "sample_rate_hz": hparams["sample_rate"],
        "output_kind": head_of(classifier)[1],
        "scale": hparams["scale"],
        "labels": speakers,
        "default_taps": hparams["card"]["default_taps"],
        "features": {
            "kind": "log-mel, SpeechBrain Fbank, decibels mapped to [0, 1]",
            **{name: hparams[name] for name in ("n_mels", "low_db", "high_db")},
        },
        "files": {name: file_sha256(target / name) for name in sorted(names)},
        "calibration": None,
        "metrics": {},
        "licence": "Apache-2.0 (weights and code)",
        "limits": limits,
        "training": {
            "command": command,
            "data": data,
            **({} if data_licence is None else {"data_licence": data_licence}),
            "split_sha256": None if split_file is None else file_sha256(Path(split_file)),
            "seed": hparams["seed"],
            "epochs": trained.epochs,
            "hyperparameters": plain_values(trained.yaml),
            "seen": seen(run / "save" / "train.csv", hparams),
        },
    }
    if card["files"] != former:
        for kind in COMPANIONS:
            (target / f"{kind}.safetensors").unlink(missing_ok=True)
    _write_card(target / CARD_NAME, card)


def _model_files(directory: Path) -> dict[str, str]:
    """Return the hashes of the model's own files by its card, or nothing without a card."""
    path = directory / CARD_NAME
    if not path.exists():
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
    return found


def classes_of(trained: TrainedRun, manifest: Path, subset: str | None) -> list[int]:
    """Return the classes at the original speed, of all speakers or of those of a part of a corpus.

    Args:
        trained: A run; the classes behind its speakers are the same at other speeds.
        manifest: Recordings that it was trained on.
        subset: Folder of the corpus; None is all of it.

    Raises:
        InputError: If no recording lies in the folder.
    """
    if subset is None:
        return list(range(len(trained.speakers)))
    folder = Path(trained.hparams["data_folder"])
    recordings = read_recordings(manifest, data_root=folder)
    names = {r.speaker for r in recordings if Path(r.path).is_relative_to(folder / subset)}
    if not names:
        raise InputError(
            f"{manifest} has no recording below {folder / subset}; name a folder of the corpus "
            "that the model was trained on"
        )
    return [row for row, name in enumerate(trained.speakers) if name in names]


def complete(target: Path, metrics: Mapping[str, Any] | None = None) -> None:
    """Complete a card with the hashes of what was fitted, and with metrics; renew README.md."""
    path = target / CARD_NAME
    card = json.loads(path.read_text(encoding="utf-8"))
    for kind in COMPANIONS:
        companion = target / f"{kind}.safetensors"
        if companion.exists():
            card[kind] = {"file": companion.name, "sha256": file_sha256(companion)}
    if metrics is not None:
        card["metrics"] = dict(metrics)
    _write_card(path, card)


def seen(manifest: Path, hparams: Mapping[str, Any]) -> list[str]:
    """Return the content hash of every recording trained on, sorted."""
    settings = reading(hparams["sample_rate"])
    recordings = read_recordings(manifest, data_root=Path(hparams["data_folder"]))
    return sorted(r.read(settings).content_sha256 for r in recordings)


def _description(training_yaml: str, classes: int) -> str:
    """Extract the description of the model from a training YAML, and add SpeechBrain's section."""
    root = yaml.compose(training_yaml, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise InputError("the run's hyperparams.yaml is not a YAML mapping; train again")
    nodes = {key.value: value for key, value in root.value}
    for key, value in nodes["classifier"].value:
        if key.value in _CLASS_COUNTS:
            value.value = str(classes)
    described = yaml.MappingNode(
        root.tag, [(yaml.ScalarNode("tag:yaml.org,2002:str", p), nodes[p]) for p in _PARTS]
    )
    model = yaml.serialize(described, Dumper=yaml.SafeDumper)
    comment = "# Describes the model; may instantiate model classes only.\n"
    return comment + model + speechbrain_section()


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path)


def plain_values(text: str) -> dict[str, Any]:
    """Return the plain top-level values of the training YAML, without folders."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    tagged = {key.value for key, value in root.value if value.tag.startswith("!")}  # type: ignore[union-attr]
    values = yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader that skips tags
    switches = {
        "adversarial_": "adversarial_attack",
        "defence_": "defence_training",
        "teacher_": "teacher",
        "distillation_": "teacher",
    }
    off = {prefix: switch for prefix, switch in switches.items() if values.get(switch) is None}
    return {
        key: Path(str(value)).name if key == "init_from" and value else value
        for key, value in values.items()
        if isinstance(value, int | float | str | list | None)
        and key not in tagged
        and not _names_a_place(key)
        and not any(key.startswith(prefix) and key != switch for prefix, switch in off.items())
    }


def _names_a_place(key: str) -> bool:
    return "folder" in key or key in ("split_file", "train_log", "augmentations")


def _write_card(path: Path, card: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    write_readme(path.parent)
