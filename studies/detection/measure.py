"""Judge harmless and attacked test clips of one model, for docs/results/detection.md.

    python -m studies.detection.measure MODEL --data-folder DATA --work WORK --results RESULTS.json

--clean-only CALIBRATION judges the same by one, and --unseen attacks by other families as well, by
all or by those that are named after it; the black boxes among them take half an hour.

MODEL is a name or a folder with a calibration that was made with attacks. Its test clips are
judged unchanged, changed harmlessly, attacked, and attacked and then changed by somebody who wants
to hide it. Attacked clips and verdicts are kept in the work folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio import load_pretrained
from nip_audio.audio.io import to_16_bits
from nip_audio.audio.windows import sound_of
from nip_audio.core.cache import keep_or_make
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.metrics import Interval, auroc
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError
from nip_audio.screening import changes
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.probes import Place
from nip_audio.speechbrain import Guard
from nip_audio.speechbrain.waveforms import audio_of
from studies._lib.command import add_result, command, run, tell
from studies._lib.shares import share_of
from studies.detection.examples import (
    ATTACKS,
    RATE,
    SEED,
    UNSEEN,
    Examples,
    Threat,
)

__all__ = ["EVASIONS", "HARMLESS"]

Array = NDArray[np.float64]
Samples = NDArray[np.float64]
Change = Callable[[Samples, np.random.Generator], Samples]

RATES = (0.01, 0.05)
HARMLESS_CLIPS, EVADING_CLIPS, CELL_CLIPS = 80, 30, 80
NOISE_OF_SIZE = 0.002


def _made(function: Callable[..., Samples], **settings: Any) -> Change:
    return lambda clip, rng: function(clip, **settings)


def _drawn(function: Callable[..., Samples], **settings: Any) -> Change:
    return lambda clip, rng: function(clip, rng, **settings)


def _named(name: str, strength: float = 0.0) -> Change:
    """Return a change of the library at one strength."""
    return lambda clip, rng: changes.CHANGES[name].change(clip, RATE, strength, rng)


HARMLESS: Mapping[str, Change] = {
    "unchanged": lambda clip, rng: clip,
    "white noise, 40 dB": _drawn(changes.add_noise, snr_db=40),
    "white noise, 30 dB": _drawn(changes.add_noise, snr_db=30),
    "white noise, 20 dB": _drawn(changes.add_noise, snr_db=20),
    "white noise, 10 dB": _drawn(changes.add_noise, snr_db=10),
    "uniform noise, ±.002": _drawn(changes.add_noise, largest=NOISE_OF_SIZE),
    "uniform noise, ±.005": _drawn(changes.add_noise, largest=0.005),
    "pink noise, 20 dB": _drawn(changes.add_noise, snr_db=20, slope=1.0),
    "many voices, 15 dB": _named("babble", 15),
    "a room of 0.4 s": _named("room", 0.4),
    "a room of 0.8 s": _named("room", 0.8),
    "MP3": _made(changes.code, codec="mp3", rate_hz=RATE),
    "Ogg Vorbis": _made(changes.code, codec="vorbis", rate_hz=RATE),
    "Ogg Opus": _made(changes.code, codec="opus", rate_hz=RATE),
    "10 dB quieter": _made(changes.change_gain, gain_db=-10),
    "20 dB quieter": _made(changes.change_gain, gain_db=-20),
    "2 % clipped": _made(changes.limit_peaks, share=0.02),
    "a limiter": _made(changes.limit_peaks, share=0.05, soft=True),
    "3 % faster": _made(changes.play_faster, factor=1.03),
    "22.05 kHz and back": _made(changes.resample_to, rate_hz=RATE, to_hz=22050),
    "11.025 kHz and back": _made(changes.resample_to, rate_hz=RATE, to_hz=11025),
    "low-pass at 6 kHz": _made(changes.filter_band, rate_hz=RATE, band_hz=(0.0, 6000.0)),
    "8 kHz and back": _made(changes.resample_to, rate_hz=RATE, to_hz=8000),
    "telephone band": _made(changes.filter_band, rate_hz=RATE, band_hz=changes.TELEPHONE_HZ),
    "telephone, µ-law": _named("mu-law"),
    "telephone, GSM": _named("gsm"),
    "1 s of silence around": _drawn(changes.surround_with_silence, seconds=1.0, rate_hz=RATE),
}
"""Harmless conditions; many are not drawn at these strengths when a detector learns, and rates,
low-pass and silence are none of its lessons."""


def _appended(seconds: float, rms: float = 0.0) -> Change:
    def change(clip: Samples, rng: np.random.Generator) -> Samples:
        return np.concatenate([clip, rms * rng.standard_normal(round(seconds * RATE))])

    return change


def _cut_apart(clip: Samples, rng: np.random.Generator) -> Samples:  # noqa: ARG001
    """Put half a second of silence after each half second."""
    half = RATE // 2
    parts = [clip[i : i + half] for i in range(0, len(clip), half)]
    return np.concatenate([np.concatenate([part, np.zeros(half)]) for part in parts])


def _with_tone(clip: Samples, rng: np.random.Generator) -> Samples:  # noqa: ARG001
    """Add a quiet tone at 7 kHz, so that the spectrum looks odd."""
    return clip + 0.003 * np.sin(2 * np.pi * 7000 * np.arange(len(clip)) / RATE)


EVASIONS: Mapping[str, Change] = {
    "nothing": lambda clip, rng: clip,
    "0.25 s of silence before and after": _drawn(
        changes.surround_with_silence, seconds=0.25, rate_hz=RATE
    ),
    "1 s of silence before and after": _drawn(
        changes.surround_with_silence, seconds=1.0, rate_hz=RATE
    ),
    "1 s of silence appended": _appended(1.0),
    "2 s of silence appended": _appended(2.0),
    "10 s of silence appended": _appended(10.0),
    "2 s of hiss at −66 dB appended": _appended(2.0, 0.0005),
    "2 s of hiss at −46 dB appended": _appended(2.0, 0.005),
    "half a second of silence after each half second": _cut_apart,
    "low-pass at 6 kHz": _made(changes.filter_band, rate_hz=RATE, band_hz=(0.0, 6000.0)),
    "low-pass at 4 kHz": _made(changes.filter_band, rate_hz=RATE, band_hz=(0.0, 4000.0)),
    "high-pass at 300 Hz": _made(changes.filter_band, rate_hz=RATE, band_hz=(300.0, 7900.0)),
    "gain 0.3": _made(changes.change_gain, gain_db=-10.5),
    "gain 0.1": _made(changes.change_gain, gain_db=-20),
    "a limiter": _made(changes.limit_peaks, share=0.05, soft=True),
    "22.05 kHz and back": _made(changes.resample_to, rate_hz=RATE, to_hz=22050),
    "8 kHz and back": _made(changes.resample_to, rate_hz=RATE, to_hz=8000),
    "MP3": _made(changes.code, codec="mp3", rate_hz=RATE),
    "Ogg Opus": _made(changes.code, codec="opus", rate_hz=RATE),
    "white noise, 30 dB": _drawn(changes.add_noise, snr_db=30),
    "a tone at 7 kHz": _with_tone,
    "2 % slower": _made(changes.play_faster, factor=0.98),
}
"""What is done to an attacked file to hide it; own speech of the target is spliced in besides."""

SPLICED = "3 s of the target's own speech after it"
REPEATED = "in the middle of 30 s of the attacker's own speech"


@dataclass(frozen=True)
class Judged:
    """Verdicts on clips.

    Attributes:
        distances: (n,) distances.
        flagged: (n,) whether each is flagged, by rate.
        outside: (n,) whether each is out of domain, so that it was not judged.
    """

    distances: Array
    flagged: Mapping[float, NDArray[np.bool_]]
    outside: NDArray[np.bool_]


@dataclass(frozen=True)
class Judging:
    """Judges clips by one calibration at several rates, and keeps what it found.

    Attributes:
        examples: Model, and the folder for what is kept.
        calibration: Calibration to judge by.
    """

    examples: Examples
    calibration: Calibration

    def __call__(self, name: str, clips: Sequence[Tensor]) -> Judged:
        """Judge clips; ``name`` says in messages what they are."""
        known = self.calibration.fingerprint
        sound = [int(sound_of(clip, RATE).sum()) for clip in clips] if "silence" in name else []
        key = fingerprint(["verdicts", 2, known, list(clips), *sound])

        def make() -> Any:
            tell(f"{self.examples.pretrained.card.name}: {name}, {len(clips)} clips")
            guard = Guard(self.examples.pretrained, self.calibration, fpr=RATES[0], workers=1)
            return [self._measured(guard, clip) for clip in clips]

        found = keep_or_make(
            self.examples.work / "verdicts" / f"{key[:20]}.json",
            make,
            dump=lambda rows: json.dumps(rows).encode(),
            load=lambda content: json.loads(content),
        )
        distances = np.array([row[0] for row in found])
        limits = {
            rate: np.array(
                [self.calibration.threshold(rate, Place(row[2], row[3])) for row in found]
            )
            for rate in RATES
        }
        flagged = {rate: distances > limit for rate, limit in limits.items()}
        return Judged(distances, flagged, np.array([row[1] for row in found], dtype=bool))

    def _measured(self, guard: Guard, clip: Tensor) -> tuple[float, bool, bool, int]:
        """Return a clip's distance, whether it is out of domain, and with what it is compared."""
        screener = guard.screener
        measured = screener.measurer.measure_item(audio_of(clip, guard.settings, name="clip"))
        record = screener.judge.judge(measured)
        if record.distance is None or measured.measurement is None:
            raise InputError(f"a clip was not judged: {record.error}")
        place = screener.kind.place(measured.facts, measured.measurement, self.calibration)
        outside = any(finding.risk == "out_of_domain" for finding in record.findings)
        return record.distance, outside, place.narrow, place.windows


def changed(name: str, change: Change, clips: Tensor) -> list[Tensor]:
    """Change clips, each by draws of its own."""
    done = []
    for place, clip in enumerate(clips):
        rng = np.random.default_rng(seed_of(SEED, name, place))
        made = change(clip.double().numpy(), rng).clip(-1, 1)
        done.append(to_16_bits(torch.from_numpy(made).float()))
    return done


def share(flags: NDArray[np.bool_], owners: Sequence[str]) -> Interval:
    """Return a share with an interval by resampling speakers."""
    return share_of(flags, list(owners), seed=SEED)


def area(positive: Array, negative: Array) -> float:
    """Return the AUROC."""
    return float(auroc(positive, negative))


def attacked_cells(
    examples: Examples, judging: Judging, threats: Sequence[Threat], harmless: Mapping[str, Judged]
) -> dict[str, Any]:
    """Judge the attacked clips that succeed."""
    found: dict[str, Any] = {}
    every = np.concatenate([one.distances for one in harmless.values()])
    for threat in threats:
        for goal in examples.goals:
            if goal == "targeted" and not threat.aims:
                continue
            rows, samples, success = examples.attacked(threat, goal)
            cell: dict[str, Any] = {"attacked": len(rows), "succeed": int(success.sum())}
            found[f"{threat.title}, {goal}"] = cell
            if success.sum() < 5:
                continue
            places = np.flatnonzero(success)[:CELL_CLIPS]
            judged = judging(f"{threat.title}, {goal}", list(samples[torch.from_numpy(places)]))
            owners = [examples.clips[1][rows[i]] for i in places]
            cell["judged"] = len(places)
            cell["flagged"] = {f"{r:g}": share(judged.flagged[r], owners) for r in RATES}
            cell["auroc"] = area(judged.distances, harmless["unchanged"].distances)
            cell["auroc_harmless"] = area(judged.distances, every)
            noise = harmless["uniform noise, ±.002"].distances
            cell["auroc_noise"] = area(judged.distances, noise)
    return found


def evasions(examples: Examples, judging: Judging, threat: Threat) -> dict[str, Any]:
    """Change attacked clips that succeed, and count those that still do and are called clean."""
    goal = examples.goals[1]
    rows, samples, success = examples.attacked(threat, goal)
    places = np.flatnonzero(success)[:EVADING_CLIPS].tolist()
    chosen, attacked = [rows[i] for i in places], samples[places]
    owners = [examples.clips[1][i] for i in chosen]
    made = {name: changed(name, change, attacked) for name, change in EVASIONS.items()}
    pairs = list(zip(attacked, chosen, strict=True))
    made[SPLICED] = [torch.cat([x, examples.speech_of(place, step=1)]) for x, place in pairs]
    own = [examples.speech_of(place, step=0) for place in chosen]
    made[REPEATED] = [
        torch.cat([speech.repeat(4), x, speech.repeat(5)])
        for (x, _), speech in zip(pairs, own, strict=True)
    ]
    found: dict[str, Any] = {}
    for name, clips in made.items():
        judged = judging(f"evasion: {name}", clips)
        still = np.array(
            [
                bool(examples.succeeds(goal, [place], x[None])[0])
                for place, x in zip(chosen, clips, strict=True)
            ]
        )
        clean = ~judged.flagged[RATES[0]] & ~judged.outside
        found[name] = {
            "clips": len(clips),
            "still": int(still.sum()),
            "clean": int(clean.sum()),
            "both": share(still & clean, owners),
            "outside": int((still & judged.outside & ~judged.flagged[RATES[0]]).sum()),
        }
    return found


def judge_all(examples: Examples, calibration: Calibration, threats: Sequence[Threat]) -> Any:
    """Judge harmless and attacked clips by one calibration."""
    judging = Judging(examples, calibration)
    clips, speakers = examples.clips
    clips, speakers = clips[:HARMLESS_CLIPS], speakers[:HARMLESS_CLIPS]
    harmless = {
        name: judging(name, changed(name, change, clips)) for name, change in HARMLESS.items()
    }
    shares = {
        name: {
            **{f"{rate:g}": share(judged.flagged[rate], speakers) for rate in RATES},
            "outside": int(judged.outside.sum()),
        }
        for name, judged in harmless.items()
    }
    return harmless, shares, attacked_cells(examples, judging, threats, harmless)


def main() -> None:
    """Measure one model."""
    parser = command(
        __doc__, "model", needed=("data-folder", "results", "work"), paths=("clean-only",)
    )
    parser.add_argument(
        "--unseen",
        nargs="*",
        choices=[threat.title for threat in UNSEEN],
        metavar="TITLE",
        help="attack by other families as well: by these, or by all",
    )
    parser.add_argument("--quick", action="store_true", help="leave out attacks of many steps")
    parser.add_argument("--most", type=int, default=200, help="clips at most")
    options = parser.parse_args()
    pretrained = load_pretrained(str(options.model))
    examples = Examples(pretrained, options.data_folder, options.work, options.most)
    calibration = Calibration.of(pretrained)
    threats = tuple(one for one in ATTACKS if not (options.quick and one.clips < CELL_CLIPS))
    if options.unseen is not None:
        threats += tuple(t for t in UNSEEN if not options.unseen or t.title in options.unseen)
    _, harmless, attacks = judge_all(examples, calibration, threats)
    name = pretrained.card.name
    clips, speakers = examples.clips
    result: dict[str, Any] = {
        "architecture": pretrained.card.data["architecture"],
        "split_sha256": file_sha256(options.data_folder / "split.csv"),
        "model_id": pretrained.model_id,
        "calibration": calibration.fingerprint,
        "files": calibration.files,
        "window_s": getattr(calibration.detector.probe, "window_s", None),
        "seed": SEED,
        "clips": len(clips),
        "speakers": len(set(speakers)),
        "harmless_clips": min(len(clips), HARMLESS_CLIPS),
        "goals": list(examples.goals),
        "harmless": harmless,
        "attacks": attacks,
        "evasions": evasions(examples, Judging(examples, calibration), ATTACKS[3]),
    }
    if options.clean_only is not None:
        former = Calibration.load(options.clean_only, model_id=pretrained.model_id)
        _, shares, cells = judge_all(examples, former, ATTACKS)
        result["clean_only"] = {"harmless": shares, "attacks": cells}
    add_result(options.results, [name], result)


if __name__ == "__main__":
    run(main)
