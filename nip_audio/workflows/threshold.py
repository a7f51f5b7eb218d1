"""Set a verification threshold on recordings: embed each once, score the trials, measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.core.cache import keep_vector
from nip_audio.core.fingerprint import fingerprint
from nip_audio.errors import AudioError, InputError
from nip_audio.models.enrolment import ScoreKind, embed_clips, require_embedding
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.operating_point import Aim, OperatingPoint, find_operating_point
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.models.same_voice import fit_same_voice
from nip_audio.models.threshold import VerificationThreshold, back_end_of
from nip_audio.models.trial_scores import TrialScores
from nip_audio.workflows.trial_design import (
    TrialWarning,
    warn_of_design,
    warn_of_numbers,
    warn_of_scores,
)
from nip_audio.workflows.trials import TrialPlan

__all__ = ["FittedThreshold", "fit_threshold"]

_BATCH = 16
_VOICES = 256  # scored at a time against all recordings
_VERSION = 1  # of the embeddings that are kept

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FittedThreshold:
    """A threshold, and what it was set on.

    Attributes:
        threshold: The threshold, to be saved and used.
        point: What was measured.
        trials: Scored trials.
        warnings: What makes the numbers lie.
        failures: Errors of the recordings that were left out with their trials.
    """

    threshold: VerificationThreshold
    point: OperatingPoint
    trials: TrialScores
    warnings: tuple[TrialWarning, ...]
    failures: tuple[AudioError, ...]


def fit_threshold(
    pretrained: PretrainedModel,
    plan: TrialPlan,
    adapter: WaveformAdapter,
    *,
    aim: Aim | None = None,
    plda: Plda | None = None,
    cache: Path | None = None,
    rounds: int = 1000,
    seed: int = 0,
    sources: str = "",
    progress: Callable[[Recording], None] = lambda recording: None,
) -> FittedThreshold:
    """Set a threshold on the trials of a plan.

    Args:
        pretrained: Model that embeds.
        plan: Trials to score.
        adapter: Adapter that sets how files are read.
        aim: What the threshold is for; None is the equal error rate.
        plda: Back end that scores instead of the cosine.
        cache: Folder that keeps embeddings, so that a run that was interrupted goes on.
        rounds: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
        sources: What the recordings are, for the record.
        progress: Called after each recording.

    Raises:
        InputError: If too few recordings can be read, or the trials do not allow a threshold.
    """
    rows, contents, failures = _embed(pretrained, plan.recordings, adapter, cache, progress)
    kept, copies = _usable(plan, contents)
    if not kept.any():
        raise InputError(
            f"none of {len(plan.pairs)} trials has two different recordings that can be used"
            + (f"; the first error is: {failures[0]}" if failures else "; check the list")
        )
    pairs = plan.pairs[kept]
    names, numbers = np.unique(plan.speakers, return_inverse=True)
    owners = np.array([numbers[voice[0]] for voice in plan.voices])
    trials = TrialScores(
        _score(rows, plan.voices, pairs, plda),
        owners[pairs[:, 0]],
        numbers[pairs[:, 1]],
        tuple(map(str, names)),
    )
    conditions = _conditions(plan, pairs)
    point = find_operating_point(
        trials,
        aim,
        conditions=conditions,
        rounds=rounds,
        seed=seed,
    )
    warnings = (
        *warn_of_numbers(point),
        *warn_of_design(trials, _sessions(plan, pairs), _alike(plan, pairs)),
        *warn_of_scores(trials, copies, _shared(plan, contents)),
    )
    kind: ScoreKind = "cosine" if plda is None else "llr"
    report = {
        **point.to_json(),
        "speakers_from": plan.speakers_from,
        "warnings": [one.to_json() for one in warnings],
        "failed": len(failures),
        "nip_audio": version("nip-audio"),
    }
    threshold = VerificationThreshold(
        pretrained.model_id,
        point.threshold.value,
        kind,
        back_end_of(plda),
        plan.enrolled_from,
        point.ratios,
        point.curve,
        tuple(sorted({one for one in contents if one is not None})),
        sources,
        report,
        None if plda is not None else _same_voice(rows, plan, contents),
    )
    return FittedThreshold(threshold, point, trials, warnings, failures)


def _same_voice(rows: Tensor, plan: TrialPlan, contents: Sequence[str | None]) -> LogRatios | None:
    """Fit when two speakers are one voice; a recording that occurs twice counts for nobody."""
    times = Counter(contents)
    kept = [k for k, one in enumerate(contents) if one is not None and times[one] == 1]
    return fit_same_voice([plan.speakers[k] for k in kept], rows[kept].numpy())


def _embed(
    pretrained: PretrainedModel,
    recordings: Sequence[Recording],
    adapter: WaveformAdapter,
    cache: Path | None,
    progress: Callable[[Recording], None],
) -> tuple[Tensor, list[str | None], tuple[AudioError, ...]]:
    """Embed each recording once; returns rows (n, D), contents and errors.

    The row of a recording that cannot be used is zero and its content None.
    """
    rows: dict[int, Tensor] = {}
    contents: list[str | None] = [None] * len(recordings)
    failures: list[AudioError] = []
    for start in range(0, len(recordings), _BATCH):
        waiting: list[tuple[int, str, Tensor]] = []
        for place, recording in enumerate(recordings[start : start + _BATCH], start):
            try:
                audio = recording.read(adapter.settings)
                waiting.append((place, audio.content_sha256, audio.samples))
            except AudioError as err:
                failures.append(err)
        for place, content, row in _embedded(pretrained, waiting, cache):
            try:
                require_embedding(row, recordings[place].path)
                rows[place], contents[place] = row, content
            except AudioError as err:
                failures.append(err)
        for recording in recordings[start : start + _BATCH]:
            progress(recording)
    if not rows:
        raise InputError(
            "no recording could be embedded"
            + (f"; the first error is: {failures[0]}" if failures else "; pass some")
        )
    empty = torch.zeros_like(next(iter(rows.values())))
    stacked = torch.stack([rows.get(place, empty) for place in range(len(recordings))])
    return stacked.double(), contents, tuple(failures)


def _embedded(
    pretrained: PretrainedModel, waiting: Sequence[tuple[int, str, Tensor]], cache: Path | None
) -> Iterator[tuple[int, str, Tensor]]:
    """Yield the embeddings of recordings, those that are kept in the cache without the model."""
    if cache is None:
        rows = embed_clips(pretrained, [samples for _, _, samples in waiting]) if waiting else ()
        for (place, content, _), row in zip(waiting, rows, strict=True):
            yield place, content, row.cpu()
        return
    for place, content, samples in waiting:
        key = fingerprint([_VERSION, pretrained.model_id, content])
        vector = keep_vector(
            cache / key[:2] / f"{key}.npy",
            lambda samples=samples: embed_clips(pretrained, [samples])[0].cpu().float().numpy(),  # type: ignore[misc]
        )
        yield place, content, torch.from_numpy(vector)


def _usable(plan: TrialPlan, contents: Sequence[str | None]) -> tuple[NDArray[np.bool_], int]:
    """Return which trials can be scored, and how many have one recording on both sides."""
    numbers = {content: k for k, content in enumerate(dict.fromkeys(contents))}
    of = np.array([-1 if content is None else numbers[content] for content in contents])
    whole = np.array([all(contents[k] is not None for k in voice) for voice in plan.voices])
    voice, test = plan.pairs.T
    usable = whole[voice] & (of[test] >= 0)
    copies = np.zeros(len(usable), dtype=bool)
    for slot in range(plan.enrolled_from):
        member = np.array([of[v[slot]] if slot < len(v) else -2 for v in plan.voices])
        copies |= member[voice] == of[test]
    return usable & ~copies, int((usable & copies).sum())


def _score(
    rows: Tensor, voices: Sequence[tuple[int, ...]], pairs: NDArray[np.intp], plda: Plda | None
) -> Array:
    """Score pairs of a voice and a recording, by blocks of voices."""
    scores = np.empty(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    bounds = np.searchsorted(pairs[order, 0], np.arange(0, len(voices) + _VOICES, _VOICES))
    for block, (low, high) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if low == high:
            continue
        first = block * _VOICES
        enrolled = [rows[list(voice)] for voice in voices[first : first + _VOICES]]
        chosen = order[low:high]
        tested, test = np.unique(pairs[chosen, 1], return_inverse=True)
        part = rows[torch.from_numpy(tested)]
        if plda is None:
            means = torch.stack([one.mean(dim=0) for one in enrolled])
            found = part @ torch.nn.functional.normalize(means, dim=1).mT
        else:
            found = plda.score(part, enrolled)
        scores[chosen] = found.numpy()[test, pairs[chosen, 0] - first]
    return scores


def _of_pairs(
    plan: TrialPlan, pairs: NDArray[np.intp], values: Sequence[str]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return a property of the recordings of both sides; a voice has those of its first one."""
    told = np.array(values)
    firsts = np.array([voice[0] for voice in plan.voices])
    return told[firsts[pairs[:, 0]]], told[pairs[:, 1]]


def _sessions(
    plan: TrialPlan, pairs: NDArray[np.intp]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    return _of_pairs(plan, pairs, [one.folder for one in plan.recordings])


def _named(plan: TrialPlan) -> list[str] | None:
    """Return the condition of each recording, or its channel; None if all are alike or unknown."""
    told = [one.condition for one in plan.recordings]
    if not any(told):
        told = [one.channel and f"channel {one.channel}" for one in plan.recordings]  # type: ignore[misc]
    known = [one or "not stated" for one in told]
    return known if len(set(known)) > 1 else None


def _conditions(plan: TrialPlan, pairs: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    """Return which trials are of each condition; one between two conditions is of both names."""
    known = _named(plan)
    if known is None:
        return {}
    one, other = _of_pairs(plan, pairs, known)
    found = {}
    names = sorted(set(known))
    for place, a in enumerate(names):
        for b in names[place:]:
            flags = ((one == a) & (other == b)) | ((one == b) & (other == a))
            if flags.any():
                found[a if a == b else f"{a} / {b}"] = flags
    return found


def _alike(
    plan: TrialPlan, pairs: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    known = _named(plan)
    if known is None:
        return None
    one, other = _of_pairs(plan, pairs, known)
    return one == other, one != other


def _shared(plan: TrialPlan, contents: Sequence[str | None]) -> list[tuple[str, str]]:
    """Return pairs of speakers who have the same recording."""
    owner: dict[str, str] = {}
    found = []
    for speaker, content in zip(plan.speakers, contents, strict=True):
        if content is not None and owner.setdefault(content, speaker) != speaker:
            found.append((owner[content], speaker))
    return found
