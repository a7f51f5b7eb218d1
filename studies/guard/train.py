r"""Train AudioNet with SpeechBrain on the recordings that a guard does not flag.

    python -m studies.guard.train studies/guard/train.yaml --manifest=train.csv --n_speakers=28 \
        --guarded=True \
        --calibration=my.calibration

OUTPUT_FOLDER/guard/screening/results.jsonl lists what the guard flags, and why. The model is
written to OUTPUT_FOLDER/model.safetensors.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_model
from torch import Tensor

from nip_audio.audio.io import read_audio
from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.speechbrain import ScreenedTraining, unpublished
from nip_audio.training.training import reading


class GuardedBrain(ScreenedTraining, sb.Brain):  # type: ignore[misc] # has no types
    """Speaker classification on clips of one length, with white noise on most of them."""

    def compute_forward(self, batch: Any, stage: Any) -> Tensor:
        """Return logits (B, C)."""
        wavs, lengths = batch.to(self.device).sig
        if stage == sb.Stage.TRAIN:
            noisy = torch.rand(len(wavs), 1, device=wavs.device) < self.hparams.noise_share
            wavs = torch.where(noisy, self.hparams.noise(wavs, lengths), wavs).clamp(-1.0, 1.0)
        with torch.no_grad():
            features = self.hparams.compute_features(wavs, None)[0]
        logits: Tensor = self.modules.classifier(self.modules.embedding_model(features, None))
        return logits

    def compute_objectives(self, logits: Tensor, batch: Any, stage: Any) -> Tensor:
        """Return the loss."""
        return torch.nn.functional.cross_entropy(logits, batch.speaker.data)

    def make_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Count the steps, whose number is known only after screening."""
        loader = super().make_dataloader(*args, **kwargs)
        self.steps = len(loader) * self.hparams.number_of_epochs
        return loader

    def on_fit_start(self) -> None:
        """Build the learning-rate schedule."""
        super().on_fit_start()
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.hparams.lr, total_steps=self.steps
        )

    def on_fit_batch_end(self, *args: Any) -> None:
        """Advance the learning-rate schedule."""
        self.schedule.step()


@lru_cache(maxsize=4096)
def read_clip(path: str, sample_rate_hz: int) -> Tensor:
    """Read a clip and keep it, since the set fits in memory."""
    return read_audio(path, reading(sample_rate_hz)).samples


def make_dataset(hparams: Mapping[str, Any]) -> Any:
    """Return all clips of the manifest, before screening."""
    dataset = sb.dataio.dataset.DynamicItemDataset.from_csv(
        str(hparams["manifest"]), replacements={"data_root": hparams["data_root"]}
    )
    labels = speakers_of(dataset)

    rate = hparams["sample_rate"]
    dataset.add_dynamic_item(lambda wav: read_clip(wav, rate), takes="wav", provides="sig")
    dataset.add_dynamic_item(labels.index, takes="spk_id", provides="speaker")
    dataset.set_output_keys(["id", "sig", "speaker"])
    return dataset


def speakers_of(dataset: Any) -> list[str]:
    """Return the classes: all speakers of the manifest, sorted."""
    return sorted({row["spk_id"] for row in dataset.data.values()})


def screening_of(hparams: Mapping[str, Any]) -> Any:
    """Return the screening stage, or None if the training is not guarded."""
    if not hparams["guarded"]:
        return None
    return hparams["screened_data"](guard=hparams["guard"]())


def fit(hparams: Mapping[str, Any], dataset: Any, run_options: Any = None) -> PretrainedModel:
    """Train on a data set, without what ``screening`` in the hyperparameters flags."""
    brain = GuardedBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_options or {"device": "cpu"},
    )
    brain.fit(
        brain.hparams.epoch_counter,
        dataset,
        progressbar=False,
        train_loader_kwargs={
            "batch_size": hparams["batch_size"],
            "shuffle": True,
            "drop_last": True,
        },
    )
    model = model_of(hparams, dataset)
    return unpublished(model, name="guarded", default_taps=hparams["default_taps"])


def model_of(hparams: Mapping[str, Any], dataset: Any) -> InstrumentedModel:
    """Build the model from the YAML's modules; its classes are all speakers of the manifest."""
    return InstrumentedModel(
        hparams["embedding_model"],
        front_end=hparams["compute_features"],
        head=hparams["classifier"],
        labels=tuple(speakers_of(dataset)),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
    ).eval()


def main() -> None:
    """Train as the command line says."""
    hparams_file, run_options, overrides = sb.parse_arguments(sys.argv[1:])
    with Path(hparams_file).open(encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    hparams["screening"] = screening_of(hparams)
    trained = fit(hparams, make_dataset(hparams), run_options)
    save_model(trained.model, str(Path(hparams["output_folder"], "model.safetensors")))


if __name__ == "__main__":
    main()
