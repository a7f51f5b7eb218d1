"""Train a small ECAPA-TDNN with SpeechBrain alone, as a model of somebody else.

    python -m studies.your_model.train_ecapa /path/to/LibriSpeech my-ecapa/

It is trained on the training spans of the 251 speakers of train-clean-100, and knows nothing of
nip-audio: features, network, loss and file layout are SpeechBrain's. Run it again to resume.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.augment.time_domain import AddNoise, DropFreq, SpeedPerturb
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import Tensor

from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import ReadSettings, read_audio

RATE = 16_000
SPEEDS = (100, 90, 110)


def read_training(root: Path, split: Path) -> tuple[list[Tensor], list[str]]:
    """Read the training spans of the 251 speakers, and the names of their speakers."""
    spans: list[Span] = [
        span
        for span in read_split(split)
        if span.role == "train" and "train-clean-100" in str(span.path)
    ]
    settings = ReadSettings(RATE, min_duration_s=0.1)
    clips, names = [], []
    for span in spans:
        audio = read_audio(
            root / span.path, settings, span=(round(span.start_s * RATE), round(span.end_s * RATE))
        )
        clips.append(audio.samples)
        names.append(span.speaker)
    return clips, names


def main() -> None:
    """Train, and write the directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", type=Path, help="default: split.csv of the data folder")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--crop-s", type=float, default=1.5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    random.seed(0)
    text = Path(__file__).with_name("ecapa.yaml").read_text(encoding="utf-8")
    clips, names = read_training(
        options.data_folder, options.split or options.data_folder / "split.csv"
    )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(sorted(set(names)))
    labels = torch.tensor([encoder.encode_label(name) for name in names])
    # every speed of a speaker is a class of its own in training, of which one is kept
    parts = load_hyperpyyaml(text, {"out_n_neurons": len(encoder) * len(SPEEDS)})
    network, classifier = parts["embedding_model"], parts["classifier"]
    loss_of = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))
    weights = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=2e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.steps)
    partial, first = options.out / "training.pt", 0
    if partial.exists():
        # written by this script
        state = torch.load(partial, weights_only=True)  # noqa: TID251
        network.load_state_dict(state["network"])
        classifier.load_state_dict(state["classifier"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = int(state["step"])
    changers = [SpeedPerturb(RATE, speeds=[speed]) for speed in SPEEDS]
    noise, drop = AddNoise(snr_low=5, snr_high=40), DropFreq(drop_freq_count_high=3)
    size = round(options.crop_s * RATE)
    started = time.monotonic()
    for step in range(first, options.steps):
        torch.manual_seed(step)
        random.seed(step)
        chosen = torch.randint(len(clips), (options.batch_size,))
        speed = step % len(SPEEDS)
        long = round(size * max(SPEEDS) / 100) + 1
        wavs = torch.stack([_crop(clips[int(i)], long) for i in chosen])
        wavs = changers[speed](wavs)[:, :size]
        whole = torch.ones(len(wavs))
        if step % 4:
            wavs = noise(wavs, whole)
        if step % 2:
            wavs = drop(wavs)
        with torch.no_grad():
            features = parts["mean_var_norm"](parts["compute_features"](wavs), whole)
        network.train()
        scores = classifier(network(features, whole))
        loss = loss_of(scores, (labels[chosen] + speed * len(encoder))[:, None])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == options.steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
            state = {"network": network.state_dict(), "classifier": classifier.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            torch.save(state | {"step": step + 1}, partial)
    torch.save(network.eval().state_dict(), options.out / "embedding_model.ckpt")
    kept = {name: value[: len(encoder)] for name, value in classifier.state_dict().items()}
    torch.save(kept, options.out / "classifier.ckpt")
    encoder.save(options.out / "label_encoder.txt")
    shutil.copy(Path(__file__).with_name("ecapa.yaml"), options.out / "hyperparams.yaml")
    partial.unlink(missing_ok=True)


def _crop(clip: Tensor, size: int) -> Tensor:
    clip = clip.repeat(-(-size // len(clip)))
    start = random.randint(0, len(clip) - size)
    return clip[start : start + size]


if __name__ == "__main__":
    main()
