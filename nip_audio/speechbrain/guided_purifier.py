"""Purify waveforms in SpeechBrain's pipelines with a fitted purifier."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, ReadSettings, to_16_bits
from nip_audio.core.seeds import secret_seed
from nip_audio.errors import AudioError, StateError
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.speechbrain.waveforms import audio_of, split_batch
from nip_audio.workflows.recordings import RecordingWorkflow

__all__ = ["GuidedPurifier"]


class GuidedPurifier:
    """Purifies waveforms with guided neuron-level inverse perturbation (NIP), fitted to one model.

    In a YAML::

        purifier: !new:nip_audio.speechbrain.GuidedPurifier
          model: xvector-libri251
          purifier: my.purifier

    Args:
        model: Name or directory of a model, or the loaded model.
        purifier: File written by ``nip-audio fit-purifier``; None takes the one that comes with
            the model.
        seed: Seed of the purifier's noise, if it uses noise, together with a recording's content;
            None draws a secret one.

    Raises:
        ModelCardError: If there is no such model.
        StateError: If there is no purifier, or it is for another model.
    """

    def __init__(
        self,
        model: str | Path | PretrainedModel = "xvector-libri251",
        purifier: str | Path | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        """Load the model and its purifier."""
        self.pretrained = model if isinstance(model, PretrainedModel) else load_pretrained(model)
        chosen = self.pretrained.card.purifier_path if purifier is None else Path(purifier)
        if chosen is None:
            raise StateError(
                f"model {self.pretrained.card.name} comes without a purifier; fit one with: "
                "nip-audio fit-purifier CLEAN_DIR --out my.purifier, and pass purifier: my.purifier"
            )
        self.purifier = GuidedNip.load(chosen, model_id=self.pretrained.model_id)
        self.seed = secret_seed() if seed is None else seed

    def __call__(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Purify waveforms at the model's rate, each by itself; padding stays zero.

        Args:
            wavs: (B, N) or (N,) waveforms, full scale 1.
            wav_lens: (B,) relative lengths; None if no item is padded.

        Returns:
            Purified waveforms of the same shape, device and dtype, rounded to 16 bits. Silent and
            very short items are returned unchanged, since there is nothing to purify.

        Raises:
            InputError: If ``wavs`` is not a batch, see ``split_batch``.
        """
        items = split_batch(wavs, wav_lens)
        out = torch.zeros(len(items), wavs.shape[-1])
        for row, wav in zip(out, items, strict=True):
            row[: len(wav)] = self._purified(wav)
        return out.reshape(wavs.shape).to(wavs)

    def purify_audio(self, audio: Audio) -> Tensor:
        """Purify one recording, and return (N,) samples."""
        adapter = WaveformAdapter.at(self.pretrained.card.sample_rate_hz)
        workflow = RecordingWorkflow(self.pretrained, adapter, self.seed)
        return to_16_bits(workflow.make(self.purifier, audio).raw)

    def _purified(self, wav: Tensor) -> Tensor:
        rate = self.pretrained.card.sample_rate_hz
        try:
            audio = audio_of(wav, ReadSettings(rate, max_duration_s=3600.0, max_clipped_share=1.0))
        except AudioError as err:
            if err.code in ("silent", "too_short"):
                return wav
            raise
        return self.purify_audio(audio)
