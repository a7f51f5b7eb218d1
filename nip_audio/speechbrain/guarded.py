"""Guard SpeechBrain's ``EncoderClassifier`` and ``SpeakerRecognition``: judge every input.

One changed line guards a script::

    from nip_audio.speechbrain import GuardedSpeakerRecognition

    verification = GuardedSpeakerRecognition.from_hparams(source="pretrained/xvector-libri251")
    score, same = verification.verify_files("enrolled.wav", "claimed.wav")
    verification.verdicts  # the guard's verdicts on the two files

Methods and values are the same: the guard changes nothing unless it has a purifier. Its verdicts
are in ``verdicts`` or, with ``return_verdicts=True``, at the end of what is returned.
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
    """An ``EncoderClassifier`` that also judges whether each input looks tampered with.

    Args:
        modules: SpeechBrain's modules; they must be those of the guard's model.
        hparams: SpeechBrain's hyperparameters.
        run_opts: SpeechBrain's run options.
        freeze_params: Whether SpeechBrain freezes the parameters.
        guard: Guard that judges inputs.
        purifier: Purifier of inputs that are flagged or out of domain, applied before they are
            embedded; None purifies none.

    Attributes:
        verdicts: Records of the last call, one per input in the order given; for ``verify_batch``
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
        """Check that modules, guard and purifier belong to one model."""
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
        seed: int | None = None,
        purify: bool = False,
        purifier: str | Path | None = None,
        run_opts: Any = None,
        savedir: str | Path | None = None,
        freeze_params: bool = True,
    ) -> Self:
        """Load a model and guard it; only a model of the hub is downloaded, and only once.

        Unlike SpeechBrain's function, this one reads the directory as ``load_pretrained`` does: the
        YAML may only describe a model, and is read after the hashes matched the card. SpeechBrain's
        own directories and names on the hub can be given as well; they need a calibration.

        Args:
            source: Directory with a card, name of a shipped model, or another source of a model,
                such as ``speechbrain/spkrec-ecapa-voxceleb`` (``nip_audio.models.sources``).
            calibration: Calibration or its file; None takes the one that comes with the model.
            fpr: False-positive rate of the guard.
            seed: Seed of the noise generator; None draws a secret one. Whoever knows it can compute
                the noise.
            purify: Whether to purify flagged inputs before they are embedded.
            purifier: File of the purifier; None takes the one that comes with the model.
            run_opts: SpeechBrain's run options; None is the CPU.
            savedir: Ignored; accepted because scripts pass it.
            freeze_params: Whether SpeechBrain freezes the parameters.

        Raises:
            ModelCardError: If there is no such directory here, or it has no card.
            HashMismatchError: If a file differs from the card.
            UnsafeYamlError: If the YAML holds anything but the description of a model.
            CalibrationError: If there is no calibration.
            StateError: If ``purify`` is true and there is no purifier.
        """
        guard = Guard(source, calibration, fpr=fpr, seed=seed)
        # separate modules, since SpeechBrain may move its own to another device
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
        """Guard an existing ``EncoderClassifier`` or ``SpeakerRecognition``.

        Args:
            interface: Interface to guard; its modules are shared.
            guard: Guard of this model, e.g. ``Guard(unpublished(instrument(interface), …), c)`` for
                a calibration c.
            purifier: Purifier of flagged inputs; None purifies none.

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
        """Load a file on this machine as SpeechBrain does; network addresses are refused.

        Raises:
            AudioError: If the file cannot be used.
        """
        if not self._files:  # in a call on files, the guard has read them already
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
        """Judge and embed waveforms; like SpeechBrain's ``encode_batch``.

        Raises:
            InputError: If ``wavs`` is not a batch, see ``split_batch``.
        """
        with self._call():
            wavs = self._let_in(wavs, wav_lens)
            embeddings = super().encode_batch(wavs, wav_lens, normalize)
        return (embeddings, self.verdicts) if return_verdicts else embeddings

    def encode_unjudged(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Embed like SpeechBrain's ``encode_batch``, without the guard; ``verdicts`` are kept."""
        embeddings: Tensor = super().encode_batch(wavs, wav_lens)
        return embeddings

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, *, return_verdicts: bool = False
    ) -> Any:
        """Judge and classify waveforms like SpeechBrain; raises what ``encode_batch`` raises."""
        with self._call():
            found = super().classify_batch(wavs, wav_lens)
        return (*found, self.verdicts) if return_verdicts else found

    def classify_file(
        self, path: str | Path, *, return_verdicts: bool = False, **kwargs: Any
    ) -> Any:
        """Judge a file as it is stored, and classify it; like SpeechBrain's ``classify_file``.

        Raises:
            AudioError: If the file cannot be used.
        """
        with self._call(path):
            found = super().classify_file(path, **kwargs)
        return (*found, self.verdicts) if return_verdicts else found

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Any:
        """Judge and classify waveforms, like SpeechBrain's ``forward``."""
        return self.classify_batch(wavs, wav_lens)

    @contextmanager
    def _call(self, *paths: str | Path) -> Iterator[None]:
        """Reset the verdicts for a call, unless it is part of another call."""
        if self._calls == 0:
            self.verdicts, self.purified = (), ()
            self._files = deque(self.guard.judge_file(_here(path)) for path in paths)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def _let_in(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
        """Judge a batch, and purify the items that are flagged or out of domain."""
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
        chosen = [
            self.purifier is not None and (record.flagged or record.verdict == "out_of_domain")
            for record in records
        ]
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
        """Check by embeddings of noise that interface, guard and purifier share one model."""
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
    """Return the path of a file on this machine.

    Raises:
        AudioError: If the path is a network address.
    """
    if is_url(path):
        raise AudioError(
            path,
            code="not_a_file",
            found="it is an address on the network, and nothing is downloaded here",
            remedy="download it, and pass the file",
        )
    return Path(path)


class GuardedSpeakerRecognition(GuardedEncoderClassifier, SpeakerRecognition):  # type: ignore[misc]
    """A ``SpeakerRecognition`` that also judges whether each input looks tampered with.

    See ``GuardedEncoderClassifier`` for arguments and attributes. For many trials at once, with
    each file embedded only once, see ``verify_batch`` of
    ``nip_audio.speechbrain.cached_verification``.
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
        """Judge and verify waveforms like SpeechBrain; raises what ``encode_batch`` raises."""
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
        """Judge two files as they are stored, and verify them; like SpeechBrain's ``verify_files``.

        Raises:
            AudioError: If one of them cannot be used.
        """
        with self._call(path_x, path_y):
            found = super().verify_files(path_x, path_y, **kwargs)
        return (*found, self.verdicts) if return_verdicts else found
