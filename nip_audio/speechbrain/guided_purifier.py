"""A fitted purifier by one name: waveforms in, waveforms out, as SpeechBrain's pipelines go."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.io import Audio, ReadSettings, to_16_bits
from nip_audio.errors import AudioError, StateError
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.speechbrain.waveforms import audio_of, split_batch
from nip_audio.workflows.recordings import purify_samples

__all__ = ["GuidedPurifier"]


class GuidedPurifier:
    """Purifies waveforms with a guided NIP that was fitted for one model.

    In a YAML::

        purifier: !new:nip_audio.speechbrain.GuidedPurifier
          model: xvector-libri251
          purifier: my.purifier

    Args:
        model: Name or directory of a model, or one that is loaded already.
        purifier: File that ``nip-audio fit-purifier`` wrote; None takes what came with the model.
        seed: With a recording's content, seeds the purifier's noise, if it has any.

    Raises:
        ModelCardError: If there is no such model.
        StateError: Without a purifier, or with one of another model.
    """

    def __init__(
        self,
        model: str | Path | PretrainedModel = "xvector-libri251",
        purifier: str | Path | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """See the class."""
        self.pretrained = model if isinstance(model, PretrainedModel) else load_pretrained(model)
        chosen = self.pretrained.card.purifier_path if purifier is None else Path(purifier)
        if chosen is None:
            raise StateError(
                f"model {self.pretrained.card.name} comes without a purifier; fit one with: "
                "nip-audio fit-purifier CLEAN_DIR --out my.purifier, and give purifier: my.purifier"
            )
        self.purifier = GuidedNip.load(chosen, model_id=self.pretrained.model_id)
        self.seed = seed

    def __call__(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Purify waveforms at the model's rate, each by itself; padding stays zero.

        Args:
            wavs: (B, N) or (N,), full scale 1.
            wav_lens: (B,) relative lengths; None: all are whole.

        Returns:
            The same shape, device and type; values are those of the 16-bit files they would become.
            Silent and very short items come back as they are: there is nothing to purify.

        Raises:
            InputError: If the batch is none.
        """
        items = split_batch(wavs, wav_lens)
        out = torch.zeros(len(items), wavs.shape[-1])
        for row, wav in zip(out, items, strict=True):
            row[: len(wav)] = self._purified(wav)
        return out.reshape(wavs.shape).to(wavs)

    def purify_audio(self, audio: Audio) -> Tensor:
        """Purify one recording: (N,) samples."""
        made = purify_samples(self.pretrained, self.purifier, audio, seed=self.seed)
        return to_16_bits(made.samples)

    def _purified(self, wav: Tensor) -> Tensor:
        rate = self.pretrained.card.sample_rate_hz
        try:
            audio = audio_of(wav, ReadSettings(rate, max_duration_s=3600.0, max_clipped_share=1.0))
        except AudioError as err:
            if err.code in ("silent", "too_short"):
                return wav
            raise
        return self.purify_audio(audio)
