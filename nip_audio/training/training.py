"""Train speaker models with SpeechBrain; all speaker recipes share this code.

A recipe's ``train.py`` calls ``train`` with its arguments and a function that prepares the data.
The recipe's YAML describes model, data and training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zlib import crc32

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.augment.codec import CodecAugment
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Identification
from nip_audio.audio.corpus import write_rirs
from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError, ModelCardError
from nip_audio.models.heads import model_of
from nip_audio.models.pretrained import load_pretrained, load_weights
from nip_audio.training.defence_training import DefenceTraining, defence_training
from nip_audio.training.distillation import Distillation, Teacher
from nip_audio.training.triplet import triplet_loss

__all__ = ["SpeakerBrain", "reading", "scramble", "train"]

WAVEFORM = Bounds(-1.0, 1.0)


class SpeakerBrain(sb.Brain):  # type: ignore[misc]
    """Speaker classification on augmented crops and, if asked, on adversarial ones.

    The YAML must have: ``compute_features``, ``modules`` (``embedding_model``, ``classifier``),
    ``compute_cost``, ``crop_s``, ``sample_rate``, ``n_speakers``, ``speeds``, ``codec_share``,
    ``overlap_share``, ``reversal_share``, ``augment_group``, ``augmentations`` (a list of
    SpeechBrain augmenters), ``scale``, ``adversarial_attack`` (null, fgsm or pgd) with
    ``adversarial_eps``, ``adversarial_steps``, ``adversarial_step_share`` and
    ``adversarial_share``, ``teacher`` (null or a model), ``triplet_weight``,
    ``averaged_checkpoints``, ``lr_annealing`` and ``train_logger``. It may have
    ``defence_training`` and the settings of that defence.
    """

    defence = DefenceTraining()

    def compute_forward(self, batch: Any, stage: Any) -> Tensor:
        """Return the scores of the classes, (B, 1, C)."""
        batch = batch.to(self.device)
        wavs, relative_lengths = batch.sig
        lengths = None
        if stage == sb.Stage.TRAIN:
            wavs, speed = self.augment(wavs)
            # speed changes the voice, so every pair of speaker and speed is a class of its own
            self.labels = batch.speaker.data + speed * self.hparams.n_speakers
            attacked = self.attack(wavs, self.labels)
            benign = wavs[: self._attacked(wavs)]
            embeddings, loss = self.defence(self.embed, attacked, benign, self.labels)
            if self.hparams.teacher is not None:
                items = torch.arange(len(speed), device=speed.device)
                with self.exact():
                    away = self.modules.distillation(embeddings, batch.target.data[items, speed])
                loss = loss + self.hparams.distillation_weight * away
            if self.hparams.triplet_weight > 0:
                with self.exact():
                    apart = triplet_loss(
                        embeddings, self.labels, margin=self.hparams.triplet_margin
                    )
                loss = loss + self.hparams.triplet_weight * apart
            self.further_loss = loss
        else:
            self.labels = batch.speaker.data
            lengths = (relative_lengths * wavs.shape[1]).round().long()
            embeddings = self.embed(wavs, lengths)
        with self.exact():
            scores: Tensor = self.modules.classifier(embeddings.unsqueeze(1))
        return scores

    def embed(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms (B, N) as (B, D) with the network in its current state."""
        with self.exact():
            features, frames = self.hparams.compute_features(wavs, lengths)
        embeddings: Tensor = self.modules.embedding_model(features, frames)
        return embeddings.float()

    def exact(self) -> torch.autocast:
        """Leave ``--precision=bf16`` for what needs more: decibels, angles and losses."""
        return torch.autocast(torch.device(self.device).type, enabled=False)

    def augment(self, wavs: Tensor) -> tuple[Tensor, Tensor]:
        """Change speed, cut to the crop length and degrade, differently for groups of the batch.

        Every batch mixes differently augmented groups, so that the statistics of batch
        normalisation, also those used in evaluation, are those of the mixture.

        Args:
            wavs: (B, N) waveforms in [-1, 1].

        Returns:
            (B, crop) waveforms in [-1, 1], and (B,) the index of each item's speed.
        """
        samples = round(self.hparams.crop_s * self.hparams.sample_rate)
        groups, speeds = [], []
        for group in torch.split(wavs, self.hparams.augment_group):
            speed = random.randrange(len(self.hparams.speeds))
            group = self.speed_changers[speed](group)[:, :samples]
            whole = torch.ones(group.shape[0], device=group.device)
            for augmenter in self.hparams.augmentations:
                augmented, _ = augmenter(group, whole)
                # for about one clip in ten thousand an augmentation returns NaN, which would stay
                # in the running statistics for good: leave that clip as it was
                usable = augmented.isfinite().all(dim=1, keepdim=True)
                group = torch.where(usable, augmented, group)
            groups.append(WAVEFORM.clip(group))
            speeds.append(torch.full((group.shape[0],), speed, device=group.device))
        return torch.cat(groups), torch.cat(speeds)

    def attack(self, wavs: Tensor, labels: Tensor) -> Tensor:
        """Make a share of the crops adversarial against the network in its current state.

        Sources: Goodfellow et al. 2015 for FGSM, Madry et al. 2018 for PGD.
        """
        count = self._attacked(wavs)
        if count == 0:
            return wavs
        attack = GradientAttack(
            self.hparams.adversarial_attack,
            eps=self.hparams.adversarial_eps,
            steps=self.hparams.adversarial_steps,
            step_share=self.hparams.adversarial_step_share,
        )
        model = model_of(
            self.hparams.compute_features,
            self.modules.embedding_model,
            self.modules.classifier,
            scale=self.hparams.scale,
        ).train()
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        objective = Identification(model, labels[:count])
        result = attack(objective, Batch(wavs[:count]), generator=generator)
        return torch.cat([result.batch.x, wavs[count:]])

    def _attacked(self, wavs: Tensor) -> int:
        """Return how many crops, counted from the start of the batch, become adversarial."""
        if self.hparams.adversarial_attack is None:
            return 0
        return round(float(self.hparams.adversarial_share) * wavs.shape[0])

    def compute_objectives(self, scores: Tensor, batch: Any, stage: Any) -> Tensor:
        """Return the loss; outside training, also count correct predictions."""
        if stage != sb.Stage.TRAIN:
            predicted = scores[:, 0, : self.hparams.n_speakers].argmax(dim=-1)
            self.correct += int((predicted == self.labels).sum())
            self.seen += len(self.labels)
        with self.exact():
            loss: Tensor = self.hparams.compute_cost(scores, self.labels.unsqueeze(1))
        return loss + self.further_loss if stage == sb.Stage.TRAIN else loss

    def on_fit_start(self) -> None:
        """Build the state that is kept from epoch to epoch."""
        super().on_fit_start()
        rate = self.hparams.sample_rate
        self.speed_changers = [SpeedPerturb(rate, speeds=[s]) for s in self.hparams.speeds]
        self.defence = defence_training(vars(self.hparams), self.modules.embedding_model)

    def on_stage_start(self, stage: Any, epoch: int | None = None) -> None:
        """Reset the counters."""
        self.correct = self.seen = 0

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        """Log, change the learning rate and save; the last epoch is kept, none is selected."""
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
            self.checkpointer.save_and_keep_only(
                meta={"epoch": epoch}, num_to_keep=self.hparams.averaged_checkpoints
            )


def reading(sample_rate_hz: int) -> ReadSettings:
    """Return settings that read recordings of any sample rate and length."""
    return ReadSettings(
        sample_rate_hz, min_duration_s=0.1, max_duration_s=3600.0, max_clipped_share=1.0
    )


@lru_cache(maxsize=4096)
def _read_span(
    path: str, start: int, stop: int, sample_rate_hz: int, codec: tuple[str, str] | None = None
) -> Tensor:
    """Read a span once, apply a codec once, and keep the result in memory.

    A codec takes longer than all other augmentations and a step of a small network together, and
    its effect on a recording hardly varies. Recordings are therefore coded whole, before crops are
    cut, and each by one codec only. The cache serves recipes with small data sets.
    """
    if codec is None:
        return read_audio(path, reading(sample_rate_hz), span=(start, stop)).samples
    samples = _read_span(path, start, stop, sample_rate_hz)
    coded: Tensor = CodecAugment(sample_rate_hz).apply_codec(samples, *codec)
    return coded


def _make_datasets(hparams: Mapping[str, Any], teacher: Teacher | None) -> tuple[Any, Any]:
    """Return the training set (random crops) and the monitoring set (whole spans)."""
    rate = hparams["sample_rate"]
    # at speed 110 a crop needs 1.1 times its length
    crop = round(hparams["crop_s"] * max(*hparams["speeds"], 100) / 100 * rate) + 1
    replacements = {"data_root": hparams["data_folder"]}
    sets = {
        role: sb.dataio.dataset.DynamicItemDataset.from_csv(
            f"{hparams['save_folder']}/{role}.csv", replacements=replacements
        )
        for role in ("train", "calibrate")
    }
    for role, items in sets.items():
        if len(items) == 0:
            raise InputError(f"role {role} is empty; add utterances, or use another split file")
    codecs = CodecAugment(rate).available_format_encoders
    labels = _labels(sets["train"], hparams)
    Path(hparams["save_folder"], "labels.txt").write_text("\n".join(labels) + "\n")

    @sb.utils.data_pipeline.takes("id", "wav", "start", "stop")  # type: ignore[untyped-decorator]
    @sb.utils.data_pipeline.provides("sig", "target")  # type: ignore[untyped-decorator]
    def random_crop(id: str, wav: str, start: str, stop: str) -> Iterator[Tensor]:
        own = codecs[crc32(id.encode()) % len(codecs)]
        codec = own if random.random() < hparams["codec_share"] else None
        whole = _read_span(wav, int(start), int(stop), rate, codec)
        sig = repeated(whole, crop)
        offset = random.randint(0, sig.shape[0] - crop)
        yield scramble(sig, offset, crop, hparams)
        if teacher is not None:
            # a crop of a repeated recording holds all of it
            start_s = offset / rate if sig is whole else 0.0
            yield torch.stack(
                [
                    teacher.target(
                        _at_speed(id, s), start_s * 100 / s, start_s * 100 / s + hparams["crop_s"]
                    )
                    for s in hparams["speeds"]
                ]
            )

    @sb.utils.data_pipeline.takes("wav", "start", "stop")  # type: ignore[untyped-decorator]
    @sb.utils.data_pipeline.provides("sig")  # type: ignore[untyped-decorator]
    def whole_span(wav: str, start: str, stop: str) -> Tensor:
        return _read_span(wav, int(start), int(stop), rate)

    @sb.utils.data_pipeline.takes("spk_id")  # type: ignore[untyped-decorator]
    @sb.utils.data_pipeline.provides("speaker")  # type: ignore[untyped-decorator]
    def label(spk_id: str) -> int:
        return labels[spk_id]

    for role, audio in (("train", random_crop), ("calibrate", whole_span)):
        sets[role].add_dynamic_item(audio)
        sets[role].add_dynamic_item(label)
        sets[role].set_output_keys(["id", "sig", "speaker"])
    if teacher is not None:
        sets["train"].set_output_keys(["id", "sig", "target", "speaker"])
    return sets["train"], sets["calibrate"]


def repeated(sig: Tensor, size: int) -> Tensor:
    """Return (N,) samples, repeated if there are fewer than ``size`` of them."""
    return sig if sig.shape[0] >= size else sig.repeat(-(-size // sig.shape[0]))


def scramble(sig: Tensor, offset: int, size: int, hparams: Mapping[str, Any]) -> Tensor:
    """Cut a crop, and change its words but not its voice, microphone or room.

    A network that has only seconds of each speaker learns the words by heart. Some crops are
    therefore mixed with another crop of the same recording (``overlap_share``), and some are
    reversed (``reversal_share``). Both change sounds and their order, but keep the long-term
    spectrum, which identifies the speaker.

    Args:
        sig: (N,) samples of the recording, N at least ``offset + size``; see ``repeated``.
        offset: First sample of the crop.
        size: Number of samples of the crop.
        hparams: Values of the YAML, with the two shares.

    Returns:
        (size,) samples of the crop.
    """
    out = sig[offset : offset + size]
    if random.random() < hparams["overlap_share"]:
        gain = 10 ** random.uniform(-0.6, 0.0)
        other = random.randint(0, sig.shape[0] - size)
        out = (out + gain * sig[other : other + size]) / (1 + gain**2) ** 0.5  # as loud as before
    if random.random() < hparams["reversal_share"]:
        out = out.flip(0)
    return out


def _teach(hparams: dict[str, Any], run_options: Mapping[str, Any]) -> Teacher:
    """Ask the teacher about the training recordings, and let the student learn its answers."""
    pretrained = load_pretrained(hparams["teacher"])
    rate = pretrained.card.sample_rate_hz
    manifest = Path(hparams["save_folder"], "train.csv")
    recordings = read_recordings(manifest, data_root=Path(hparams["data_folder"]))
    bf16 = run_options.get("precision") == "bf16"
    with torch.autocast(run_options["device"] or "cpu", torch.bfloat16, enabled=bf16):
        teacher = Teacher.cached(
            Path(hparams["save_folder"], "teacher.safetensors"),
            pretrained,
            [
                (_at_speed(r.id, speed), partial(_samples, r, rate, speed))
                for speed in hparams["speeds"]
                for r in recordings
            ],
            window_s=hparams["teacher_window_s"],
            step_s=hparams["teacher_step_s"],
        )
    student = Distillation(hparams["embedding_dim"], teacher.size)
    hparams["modules"]["distillation"] = student
    hparams["checkpointer"].add_recoverable("distillation", student)
    return teacher


def _samples(recording: Recording, sample_rate_hz: int, speed: int) -> Tensor:
    samples = recording.read(reading(sample_rate_hz)).samples
    changed: Tensor = SpeedPerturb(sample_rate_hz, speeds=[speed])(samples[None])[0]
    return changed


def _at_speed(recording_id: str, speed: int) -> str:
    """Return the teacher's name for a recording at a speed in percent: another voice to it."""
    return f"{recording_id} at {speed} %"


def _labels(train_set: Any, hparams: Mapping[str, Any]) -> dict[str, int]:
    """Number the speakers by name, and check their count against the YAML."""
    if hparams["speeds"][0] != 100:
        raise InputError(
            f"speeds is {hparams['speeds']}, expected 100 first, since only its classes are "
            "published; reorder speeds"
        )
    speakers = sorted({row["spk_id"] for row in train_set.data.values()})
    classes = len(speakers) * len(hparams["speeds"])
    if (len(speakers), classes) != (hparams["n_speakers"], hparams["n_classes"]):
        raise InputError(
            f"the train role has {len(speakers)} speakers at {len(hparams['speeds'])} speeds, but "
            f"the YAML has n_speakers: {hparams['n_speakers']}, n_classes: {hparams['n_classes']}; "
            f"pass --n_speakers={len(speakers)} --n_classes={classes}"
        )
    return {speaker: i for i, speaker in enumerate(speakers)}


def _start_from(
    pretrained: str, network: torch.nn.Module, classifier: torch.nn.Module | None, labels: list[str]
) -> None:
    """Copy the weights of a published model; a checkpoint of this run, if any, replaces them.

    A defence that only this network has starts untrained. A classifier, if given, starts from the
    published one, whose classes must be ``labels``.
    """
    loaded = load_pretrained(pretrained)
    weights = loaded.model.network.state_dict()
    own = {k: v for k, v in network.state_dict().items() if k.startswith("defences.")}
    try:
        network.load_state_dict(own | weights)
    except RuntimeError as err:
        raise InputError(
            f"the network of {pretrained} does not fit this YAML's ({err}); pass the model's own "
            "sizes, or --init_from=null"
        ) from err
    if classifier is None:
        return
    if list(loaded.card.labels) != labels:
        raise InputError(
            f"the {len(loaded.card.labels)} speakers of {pretrained} are not the {len(labels)} of "
            "the train role; pass --init_head=False"
        )
    file = "classifier.safetensors"
    try:
        load_weights(classifier, loaded.card.read(file), loaded.card.directory / file)
    except ModelCardError as err:
        raise InputError(
            f"the classifier of {pretrained} does not fit this YAML's ({err}); a published one has "
            "the classes of one speed: pass --speeds=[100] and its --n_classes, or "
            "--init_head=False"
        ) from err


def train(arguments: Sequence[str], prepare: Callable[[Mapping[str, Any]], None]) -> None:
    """Prepare the data and train the model that a recipe's YAML describes.

    An interrupted run continues from its last checkpoint when the same command is given again.

    Args:
        arguments: Path of the YAML, and options that override its values.
        prepare: Function of the YAML's values that writes ``train.csv`` and ``calibrate.csv`` into
            its ``save_folder``.

    Raises:
        InputError: If the data and the YAML do not fit together.
    """
    hparams_file, run_options, overrides = sb.parse_arguments(list(arguments))
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    run_on_main(prepare, args=[hparams])
    run_on_main(
        write_rirs,
        kwargs={
            "target": Path(hparams["save_folder"]),
            "count": hparams["rir_count"],
            "sample_rate": hparams["sample_rate"],
            "seed": hparams["seed"],
        },
    )
    teacher = None
    if hparams["teacher"] is not None:
        teacher = _teach(hparams, run_options)
    train_set, monitor_set = _make_datasets(hparams, teacher)
    if hparams["init_from"] is not None:
        labels = Path(hparams["save_folder"], "labels.txt").read_text(encoding="utf-8").splitlines()
        classifier = hparams["classifier"] if hparams["init_head"] else None
        _start_from(hparams["init_from"], hparams["embedding_model"], classifier, labels)
    # a convolution over pictures is several times as fast with its channels last
    hparams["embedding_model"].to(memory_format=torch.channels_last)
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
