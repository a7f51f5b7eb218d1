"""Train an x-vector on LibriSpeech with SpeechBrain.

    python train.py hparams/xvector.yaml --data_folder=/path/to/LibriSpeech

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import random
import sys
from functools import lru_cache
from pathlib import Path

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.distributed import run_on_main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from librispeech_prepare import prepare_librispeech, prepare_rirs


class SpeakerBrain(sb.Brain):
    """Angular-margin speaker classification on augmented crops."""

    def compute_forward(self, batch, stage):
        """Return cosines to the classes, (B, 1, C)."""
        batch = batch.to(self.device)
        wavs, relative_lengths = batch.sig
        if stage == sb.Stage.TRAIN:
            wavs = self.augment(wavs)
            lengths = None
        else:
            lengths = (relative_lengths * wavs.shape[1]).round().long()
        features, frames = self.hparams.compute_features(wavs, lengths)
        embeddings = self.modules.embedding_model(features, frames)
        return self.modules.classifier(embeddings.unsqueeze(1))

    def augment(self, wavs):
        """Change speed, cut to the crop length, degrade: each group of the batch in its own way.

        Within one batch the groups differ, so that batch statistics, and with them the running ones
        used in evaluation, are those of the mixture.
        """
        samples = round(self.hparams.crop_s * self.hparams.sample_rate)
        groups, speeds = [], []
        for group in wavs.split(self.hparams.augment_group):
            speed = random.randrange(len(self.hparams.speeds))
            group = self.speed_changers[speed](group)[:, :samples]
            whole = torch.ones(group.shape[0], device=group.device)
            group, _ = self.hparams.wav_augment(group, whole)
            group, _ = self.hparams.wav_noise(group, whole)
            groups.append(group.clamp(-1.0, 1.0))
            speeds.append(torch.full((group.shape[0], 1), speed, device=group.device))
        self.speed = torch.cat(speeds)
        return torch.cat(groups)

    def compute_objectives(self, cosines, batch, stage):
        """Return the loss; a (speaker, speed) pair is a class."""
        labels = batch.speaker.data.to(self.device).unsqueeze(1)
        if stage == sb.Stage.TRAIN:
            labels = labels + self.speed * self.hparams.n_speakers
        else:
            predicted = cosines[..., : self.hparams.n_speakers].argmax(dim=-1)
            self.correct += int((predicted == labels).sum())
            self.seen += labels.shape[0]
        return self.hparams.compute_cost(cosines, labels)

    def on_fit_start(self):
        """Build what outlives an epoch."""
        super().on_fit_start()
        rate = self.hparams.sample_rate
        self.speed_changers = [SpeedPerturb(rate, speeds=[s]) for s in self.hparams.speeds]

    def on_stage_start(self, stage, epoch=None):
        """Reset the counters."""
        self.correct = self.seen = 0

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, change the learning rate, save. The last epoch is kept: nothing is selected."""
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
        if stage == sb.Stage.VALID:
            old_lr, new_lr = self.hparams.lr_annealing(epoch)
            sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
            self.hparams.train_logger.log_stats(
                stats_meta={"epoch": epoch, "lr": old_lr},
                train_stats={"loss": self.train_loss},
                valid_stats={"loss": stage_loss, "accuracy": self.correct / max(self.seen, 1)},
            )
            self.checkpointer.save_and_keep_only(meta={"epoch": epoch}, num_to_keep=1)


@lru_cache(maxsize=4096)
def read_span(path: str, start: int, stop: int) -> torch.Tensor:
    """Read a span once; the small sets this recipe also serves fit in memory."""
    return sb.dataio.dataio.read_audio({"file": path, "start": start, "stop": stop})


def make_datasets(hparams):
    """Return the training set (random crops) and the monitoring set (whole spans)."""
    longest_s = hparams["crop_s"] * 100 / min(hparams["speeds"])
    crop = round(longest_s * hparams["sample_rate"]) + 1
    replacements = {"data_root": hparams["data_folder"]}
    sets = {
        role: sb.dataio.dataset.DynamicItemDataset.from_csv(
            f"{hparams['save_folder']}/{role}.csv", replacements=replacements
        )
        for role in ("train", "calibrate")
    }
    for role, items in sets.items():
        if len(items) == 0:
            raise ValueError(f"role {role} is empty; give more utterances, or another split file")
    speakers = sorted({row["spk_id"] for row in sets["train"].data.values()})
    if len(speakers) != hparams["n_speakers"]:
        raise ValueError(
            f"the train role has {len(speakers)} speakers, the YAML says n_speakers: "
            f"{hparams['n_speakers']}; pass --n_speakers={len(speakers)} "
            f"--n_classes={len(speakers) * len(hparams['speeds'])}"
        )
    labels = {speaker: i for i, speaker in enumerate(speakers)}
    Path(hparams["save_folder"], "labels.txt").write_text("\n".join(speakers) + "\n")

    @sb.utils.data_pipeline.takes("wav", "start", "stop")
    @sb.utils.data_pipeline.provides("sig")
    def random_crop(wav, start, stop):
        sig = read_span(wav, int(start), int(stop))
        if sig.shape[0] < crop:
            sig = sig.repeat(-(-crop // sig.shape[0]))
        offset = random.randint(0, sig.shape[0] - crop)
        return sig[offset : offset + crop]

    @sb.utils.data_pipeline.takes("wav", "start", "stop")
    @sb.utils.data_pipeline.provides("sig")
    def whole_span(wav, start, stop):
        return read_span(wav, int(start), int(stop))

    @sb.utils.data_pipeline.takes("spk_id")
    @sb.utils.data_pipeline.provides("speaker")
    def label(spk_id):
        return labels[spk_id]

    for role, audio in (("train", random_crop), ("calibrate", whole_span)):
        sets[role].add_dynamic_item(audio)
        sets[role].add_dynamic_item(label)
        sets[role].set_output_keys(["id", "sig", "speaker"])
    return sets["train"], sets["calibrate"]


def main(arguments):
    """Prepare, train."""
    hparams_file, run_options, overrides = sb.parse_arguments(arguments)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    run_on_main(
        prepare_librispeech,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["save_folder"],
            "subsets": hparams["subsets"],
            "split_file": hparams["split_file"],
            "seed": hparams["seed"],
        },
    )
    run_on_main(
        prepare_rirs,
        kwargs={
            "save_folder": hparams["save_folder"],
            "count": hparams["rir_count"],
            "sample_rate": hparams["sample_rate"],
            "seed": hparams["seed"],
        },
    )
    train_set, monitor_set = make_datasets(hparams)
    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_options,
        checkpointer=hparams["checkpointer"],
    )
    sampler = ReproducibleRandomSampler(
        train_set,
        seed=hparams["seed"],
        replacement=True,
        num_samples=hparams["batches_per_epoch"] * hparams["batch_size"],
    )
    brain.fit(
        brain.hparams.epoch_counter,
        train_set,
        monitor_set,
        train_loader_kwargs={"sampler": sampler, **hparams["train_dataloader_options"]},
        valid_loader_kwargs=hparams["valid_dataloader_options"],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
