"""Turn a finished training run into a pretrained directory: safetensors, YAML, card, hashes.

    python publish.py RUN_FOLDER ../../../pretrained/xvector-libri251 --split_file split.csv

Once more with the same target and no run, it adds what has been made since: the hash of
``calibration.safetensors``, and the metrics of ``--results``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file
from speechbrain.utils.checkpoints import Checkpointer

from nip_audio.core.state import file_sha256
from nip_audio.models.pretrained import CARD_NAME, CARD_VERSION, HYPERPARAMS_NAME

HYPERPARAMS = """\
# Describes the model; may instantiate model classes only.
compute_features: !new:nip_audio.audio.features.LogMel
    sample_rate_hz: {sample_rate}
    n_mels: {n_mels}
    low_db: {low_db}
    high_db: {high_db}
embedding_model: !new:nip_audio.models.xvector.Xvector
    n_mels: {n_mels}
    channels: {channels}
    embedding_dim: {embedding_dim}
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: {embedding_dim}
    out_neurons: {n_speakers}
"""


def publish(run: Path, target: Path, *, split_file: Path | None, command: str, data: str) -> None:
    """Write ``target`` from the last checkpoint of ``run``."""
    text = (run / "hyperparams.yaml").read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text)
    checkpointer = Checkpointer(run / "save", {"embedding_model": hparams["embedding_model"]})
    checkpointer.add_recoverable("classifier", hparams["classifier"])
    checkpoint = checkpointer.recover_if_possible()
    if checkpoint is None:
        raise FileNotFoundError(f"{run / 'save'} has no checkpoint; train first")
    target.mkdir(parents=True, exist_ok=True)
    speakers = (run / "save" / "labels.txt").read_text(encoding="utf-8").split()
    weights = {
        "embedding_model.safetensors": hparams["embedding_model"].state_dict(),
        # the classes behind the first n_speakers are the same speakers at other speeds
        "classifier.safetensors": {
            "weight": hparams["classifier"].weight[: len(speakers)].detach()
        },
    }
    for name, tensors in weights.items():
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, target / name)
    names = (
        "sample_rate",
        "n_mels",
        "low_db",
        "high_db",
        "channels",
        "embedding_dim",
        "n_speakers",
    )
    yaml_text = HYPERPARAMS.format(**{name: hparams[name] for name in names})
    (target / HYPERPARAMS_NAME).write_text(yaml_text, encoding="utf-8")
    files = {name: file_sha256(target / name) for name in sorted([*weights, HYPERPARAMS_NAME])}
    card = {
        "format_version": CARD_VERSION,
        "name": target.name,
        "architecture": "x-vector (time-delay network, masked statistics pooling, cosine head)",
        "parameters": sum(p.numel() for p in hparams["embedding_model"].parameters()),
        "sample_rate_hz": hparams["sample_rate"],
        "output_kind": "cosine",
        "scale": 30.0,
        "labels": speakers,
        "default_taps": ["frames.0", "frames.2", "frames.4", "pool_norm", "embedding"],
        "features": {
            "kind": "log-mel, SpeechBrain Fbank, decibels mapped to [0, 1]",
            **{name: hparams[name] for name in ("n_mels", "low_db", "high_db")},
        },
        "files": files,
        "calibration": None,
        "training": {
            "command": command,
            "data": data,
            "split_sha256": None if split_file is None else file_sha256(split_file),
            "seed": hparams["seed"],
            "epochs": checkpoint.meta["epoch"],
            "hyperparameters": _plain(text),
        },
        "metrics": {},
        "licence": "Apache-2.0 (weights and code)",
        "limits": (
            "Trained on 251 speakers x 5 s, one session each: a model to test defences on, not "
            "one to guard a door with."
        ),
    }
    (target / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _plain(text: str) -> dict[str, object]:
    """Return the plain top-level values of the training YAML, folders left out."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    values = yaml.load(text, Loader=Loader)
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float | list) and "folder" not in key
    }


def complete(target: Path, results: Path | None) -> None:
    """Add the calibration's hash, and the headline metrics, to an existing card."""
    path = target / CARD_NAME
    card = json.loads(path.read_text(encoding="utf-8"))
    calibration = target / "calibration.safetensors"
    if calibration.exists():
        card["calibration"] = {"file": calibration.name, "sha256": file_sha256(calibration)}
    if results is not None:
        measured = json.loads(results.read_text(encoding="utf-8"))
        card["metrics"] = {name: measured[name] for name in ("closed_set", "verification")}
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("target", type=Path)
    parser.add_argument("--split_file", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--command", default="python train.py hparams/xvector.yaml")
    parser.add_argument("--data", default="LibriSpeech train-clean-100")
    options = parser.parse_args()
    if options.run is not None:
        publish(
            options.run,
            options.target,
            split_file=options.split_file,
            command=options.command,
            data=options.data,
        )
    complete(options.target, options.results)


if __name__ == "__main__":
    main()
