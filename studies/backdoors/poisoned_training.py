"""Train AudioNet briefly on given clips, poisoned or not.

Compared with the recipe of the shipped AudioNet, clips are not overlaid or reversed and get no
codecs, rooms, other noises or gains, and the schedule is shorter. White noise is kept, since a
network that was trained without noise responds to any noise at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nip_audio.audio.features import LogMel
from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.models.audionet import AudioNet
from studies.backdoors.poisoning import Clips

__all__ = ["ShortTraining", "build_audionet", "train_audionet"]


@dataclass(frozen=True)
class ShortTraining:
    """Settings of the training of AudioNet.

    Attributes:
        epochs: Passes over the clips.
        batch_size: Clips per step; an incomplete batch at the end of an epoch is dropped.
        lr: Largest learning rate of a one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        noise_share: Share of the clips that get white noise in a step.
        noise_snr_db: Range of the signal-to-noise ratio in dB, drawn uniformly.
        n_mels: Number of mel bands.
    """

    epochs: int = 12
    batch_size: int = 64
    lr: float = 0.004
    weight_decay: float = 0.01
    noise_share: float = 0.8
    noise_snr_db: tuple[float, float] = (5.0, 45.0)
    n_mels: int = 32

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: If there would be no step, or the noise's range is reversed.
        """
        if self.epochs < 1 or self.batch_size < 2 or self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise InputError(
                f"got {self.epochs} epochs, batches of {self.batch_size} and noise at "
                f"{self.noise_snr_db} dB, expected at least 1, at least 2, and low ≤ high"
            )

    def blank(self, clips: Clips, seed: int) -> InstrumentedModel:
        """Return an untrained model of the clips' speakers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_audionet(clips.speakers, n_mels=self.n_mels)

    def train(self, clips: Clips, seed: int, progress: Callable[[str], None]) -> InstrumentedModel:
        """Train a model on clips."""
        return train_audionet(
            clips.samples,
            clips.labels,
            clips.speakers,
            self,
            seed=seed,
            progress=lambda epoch, loss: progress(f"epoch {epoch + 1}: loss {loss:.3f}"),
        )


def build_audionet(speakers: tuple[str, ...], *, n_mels: int = 32) -> InstrumentedModel:
    """Return an untrained AudioNet with a head; weights come from the global generator."""
    network = AudioNet(n_mels)
    return InstrumentedModel(
        network,
        front_end=LogMel(n_mels=n_mels),
        head=nn.Linear(network.embedding_dim, len(speakers)),
        labels=speakers,
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
    )


def train_audionet(
    samples: Tensor,
    labels: Tensor,
    speakers: tuple[str, ...],
    plan: ShortTraining,
    *,
    seed: int,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> InstrumentedModel:
    """Train AudioNet on clips.

    Args:
        samples: (n, N) clips in [-1, 1] at 16 kHz.
        labels: (n,) classes of the clips.
        speakers: Names of the classes.
        plan: Settings of the training.
        seed: Seed of weights, order and noise; the global generator is seeded and then restored.
        progress: Called after each epoch with its number and mean loss.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: If there are fewer clips than a batch holds.
    """
    if len(samples) < plan.batch_size:
        raise InputError(
            f"got {len(samples)} clips, expected at least one batch of {plan.batch_size}; use more "
            "clips"
        )
    generator = torch.Generator().manual_seed(seed)
    model = plan.blank(Clips(samples, labels, speakers), seed)
    steps = len(samples) // plan.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.lr, total_steps=steps * plan.epochs
    )
    model.train()
    for epoch in range(plan.epochs):
        order = torch.randperm(len(samples), generator=generator)
        total = 0.0
        for rows in torch.split(order, plan.batch_size)[:steps]:
            noisy = _with_noise(samples[rows], plan, generator)
            with torch.no_grad():
                features = model.front_end(noisy, None)[0]  # type: ignore[misc]
            embeddings = model.network(features, None)
            loss = nn.functional.cross_entropy(model.score_embeddings(embeddings), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        progress(epoch, total / steps)
    return model.eval()


def _with_noise(wavs: Tensor, plan: ShortTraining, generator: torch.Generator) -> Tensor:
    """Add white noise to a share of (B, N) clips."""
    low, high = plan.noise_snr_db
    snr_db = low + (high - low) * torch.rand(len(wavs), 1, generator=generator)
    share = torch.rand(len(wavs), 1, generator=generator) < plan.noise_share
    rms = wavs.square().mean(dim=1, keepdim=True).sqrt() * 10 ** (-snr_db / 20) * share
    return (wavs + rms * torch.randn(wavs.shape, generator=generator)).clamp(-1.0, 1.0)
