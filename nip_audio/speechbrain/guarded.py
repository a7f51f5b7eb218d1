"""SpeechBrain's ``EncoderClassifier`` and ``SpeakerRecognition`` with a guard before them.

One line switches a script::

    from nip_audio.speechbrain import GuardedSpeakerRecognition

    verification = GuardedSpeakerRecognition.from_hparams(source="pretrained/xvector-libri251")
    score, same = verification.verify_files("enrolled.wav", "claimed.wav")
    verification.verdicts  # what the guard says of the two files

Same methods, same values: the guard decides nothing unless it is given a purifier. What it says
stands in ``verdicts``, or, with ``return_verdicts=True``, at the end of what is returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition
from torch import Tensor, nn

from nip_audio.audio.io import read_audio
from nip_audio.audio.remote import is_url
from nip_audio.core.adapter import Batch
from nip_audio.errors import AudioError, StateError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.records import ScreenRecord
from nip_audio.speechbrain.encoder_classifier import parts_for_speechbrain
from nip_audio.speechbrain.guard import Guard
from nip_audio.speechbrain.guided_purifier import GuidedPurifier
from nip_audio.speechbrain.waveforms import split_batch

__all__ = ["GuardedEncoderClassifier", "GuardedSpeakerRecognition"]

_ALIKE = 0.999


class GuardedEncoderClassifier(EncoderClassifier):  # type: ignore[misc]
    """An ``EncoderClassifier`` that says of each input whether it looks tampered with.

    Args:
        modules: As of SpeechBrain; must be those of the guard's model.
        hparams: As of SpeechBrain.
        run_opts: As of SpeechBrain.
        freeze_params: As of SpeechBrain.
        guard: What judges.
        purifier: Purifies inputs that are flagged before they are embedded; None embeds all as
            they are.

    Attributes:
        verdicts: Records of the last call, one an input in the order given; of ``verify_batch``
            those of the first batch, then those of the second.
        purified: Whether each of these inputs was purified.

    Raises:
        StateError: If guard or purifier are for another model.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        hparams: Mapping[str, Any],
        run_opts: Any = None,
        freeze_params: bool = True,
        *,
        guard: Guard,
        purifier: GuidedPurifier | None = None,
    ) -> None:
        """See the class."""
        super().__init__(dict(modules), dict(hparams), run_opts, freeze_params)
        self.guard = guard
        self.purifier = purifier
        self.verdicts: tuple[ScreenRecord, ...] = ()
        self.purified: tuple[bool, ...] = ()
        self._files: deque[ScreenRecord] = deque()
        self._calls = 0
        self._require_one_model()

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        *,
        calibration: str | Path | Calibration | None = None,
        fpr: float = 0.01,
        seed: int = 0,
        purify: bool = False,
        purifier: str | Path | None = None,
        run_opts: Any = None,
        savedir: str | Path | None = None,
        freeze_params: bool = True,
    ) -> Self:
        """Load a directory of this toolkit's, and guard it; nothing is fetched from anywhere.

        Not SpeechBrain's function: the directory's YAML may describe a model and nothing else, and
        is read after the hashes matched the card, as by ``load_pretrained``. For a directory of
        SpeechBrain's own see ``load_trusted`` and ``around``.

        Args:
            source: Directory on this machine, or the name of a model that came with the package.
            calibration: As of ``Guard``; None takes the model's own.
            fpr: As of ``Guard``.
            seed: Of the noise.
            purify: Whether flagged inputs are purified first.
            purifier: As of ``GuidedPurifier``; None takes the model's own.
            run_opts: As of SpeechBrain; None is the CPU.
            savedir: Taken for the sake of scripts that pass it; nothing is written there.
            freeze_params: As of SpeechBrain.

        Raises:
            ModelCardError: If there is no such directory here, or it has no card.
            HashMismatchError: If a file differs from the card.
            UnsafeYamlError: If the YAML asks for more than describing a model.
            CalibrationError: Without a calibration.
            StateError: Without a purifier, if one is asked for.
        """
        guard = Guard(source, calibration, fpr=fpr, seed=seed)
        # modules of their own: SpeechBrain may move its to another device, the guard's stay here
        modules, hparams = parts_for_speechbrain(load_pretrained(source))
        return cls(
            modules,
            hparams,
            {"device": "cpu"} if run_opts is None else run_opts,
            freeze_params,
            guard=guard,
            purifier=GuidedPurifier(guard.pretrained, purifier, seed=seed) if purify else None,
        )

    @classmethod
    def around(
        cls,
        interface: EncoderClassifier,
        *,
        guard: Guard,
        purifier: GuidedPurifier | None = None,
    ) -> Self:
        """Guard an ``EncoderClassifier`` or ``SpeakerRecognition`` that is there already.

        Args:
            interface: Its modules are shared.
            guard: For this model: ``Guard(unpublished(instrument(interface), …), calibration)``.
            purifier: As of the class.

        Raises:
            StateError: If guard or purifier are for another model.
        """
        return cls(
            dict(interface.mods),
            {"audio_normalizer": interface.audio_normalizer, **vars(interface.hparams)},
            {"device": str(interface.device)},
            guard=guard,
            purifier=purifier,
        )

    def load_audio(self, path: str | Path, savedir: Any = None) -> Tensor:
        """Load a file of this machine as SpeechBrain does; addresses of other places are refused.

        Raises:
            AudioError: If it cannot be used.
        """
        if not self._files:  # in a call on files these were read by the guard already
            read_audio(_here(path), self.guard.settings)
        samples: Tensor = super().load_audio(str(Path(path).absolute()))
        return samples

    def encode_batch(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        normalize: bool = False,
        *,
        return_verdicts: bool = False,
    ) -> Any:
        """Embed; as SpeechBrain's.

        Raises:
            InputError: If the batch is none: see ``split_batch``.
        """
        with self._call():
            wavs = self._let_in(wavs, wav_lens)
            embeddings = super().encode_batch(wavs, wav_lens, normalize)
        return (embeddings, self.verdicts) if return_verdicts else embeddings

    def encode_unjudged(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Embed as SpeechBrain's does, without the guard: ``verdicts`` stay what they are."""
        embeddings: Tensor = super().encode_batch(wavs, wav_lens)
        return embeddings

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, *, return_verdicts: bool = False
    ) -> Any:
        """Classify; as SpeechBrain's, and raises as ``encode_batch``."""
        with self._call():
            found = super().classify_batch(wavs, wav_lens)
        return (*found, self.verdicts) if return_verdicts else found

    def classify_file(
        self, path: str | Path, *, return_verdicts: bool = False, **kwargs: Any
    ) -> Any:
        """Classify a file, and judge it as the file that it is; as SpeechBrain's.

        Raises:
            AudioError: If it cannot be used.
        """
        with self._call(path):
            found = super().classify_file(path, **kwargs)
        return (*found, self.verdicts) if return_verdicts else found

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Any:
        """Classify; as SpeechBrain's."""
        return self.classify_batch(wavs, wav_lens)

    @contextmanager
    def _call(self, *paths: str | Path) -> Iterator[None]:
        """Begin a call anew, unless it is part of another one."""
        if self._calls == 0:
            self.verdicts, self.purified = (), ()
            self._files = deque(self.guard.judge_file(_here(path)) for path in paths)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def _let_in(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
        """Judge a batch, and purify what is flagged."""
        items = split_batch(wavs, wav_lens)
        records: tuple[ScreenRecord, ...]
        if self._files:
            records = (self._files.popleft(),)
        else:
            first = len(self.verdicts)
            records = tuple(
                replace(record, id=str(first + place))
                for place, record in enumerate(self.guard.judge_waveforms(wavs, wav_lens))
            )
        chosen = [self.purifier is not None and record.flagged for record in records]
        self.verdicts += records
        self.purified += tuple(chosen)
        if self.purifier is None or not any(chosen):
            return wavs
        changed = wavs.clone().reshape(len(items), -1)
        for row, wav, wanted in zip(changed, items, chosen, strict=True):
            if wanted:
                row[: len(wav)] = self.purifier(wav).to(row)
        return changed.reshape_as(wavs)

    @torch.no_grad()
    def _require_one_model(self) -> None:
        """Compare embeddings of a noise: another model's would point elsewhere."""
        model = self.guard.pretrained.model
        device = next(model.parameters()).device
        wav = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
        own = self.encode_unjudged(wav.to(self.device)).flatten().cpu()
        guards = model.embed(Batch(wav.to(device))).flatten().cpu()
        alike = own.shape == guards.shape and bool(
            torch.cosine_similarity(own, guards, dim=0) > _ALIKE
        )
        if not alike:
            raise StateError(
                f"the guard is for {self.guard.pretrained.card.name}, which embeds otherwise than "
                "these modules; make a guard for this model"
            )
        made_for = None if self.purifier is None else self.purifier.pretrained.model_id
        if made_for not in (None, self.guard.pretrained.model_id):
            raise StateError(
                f"the purifier is for model {str(made_for)[:12]}, the guard for "
                f"{self.guard.pretrained.model_id[:12]}; make both for one model"
            )


def _here(path: str | Path) -> Path:
    """Return the path of a file of this machine.

    Raises:
        AudioError: If it is an address on the network.
    """
    if is_url(path):
        raise AudioError(
            path,
            code="not_a_file",
            found="it is an address on the network, from where nothing is fetched here",
            remedy="fetch it, and give the file",
        )
    return Path(path)


class GuardedSpeakerRecognition(GuardedEncoderClassifier, SpeakerRecognition):  # type: ignore[misc]
    """A ``SpeakerRecognition`` that says of each input whether it looks tampered with.

    See ``GuardedEncoderClassifier``. Many trials at once, each file embedded once and for all:
    ``verify_batch`` of ``nip_audio.speechbrain.cached_verification``.
    """

    def verify_batch(
        self,
        wavs1: Tensor,
        wavs2: Tensor,
        wav1_lens: Tensor | None = None,
        wav2_lens: Tensor | None = None,
        threshold: float = 0.25,
        *,
        return_verdicts: bool = False,
    ) -> Any:
        """Verify; as SpeechBrain's, and raises as ``encode_batch``."""
        with self._call():
            found = super().verify_batch(wavs1, wavs2, wav1_lens, wav2_lens, threshold)
        return (*found, self.verdicts) if return_verdicts else found

    def verify_files(
        self,
        path_x: str | Path,
        path_y: str | Path,
        *,
        return_verdicts: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Verify two files, and judge them as the files that they are; as SpeechBrain's.

        Raises:
            AudioError: If one cannot be used.
        """
        with self._call(path_x, path_y):
            found = super().verify_files(path_x, path_y, **kwargs)
        return (*found, self.verdicts) if return_verdicts else found
