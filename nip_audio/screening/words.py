"""What findings, summaries and pages call files of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nip_audio.screening.records import RISKS, Risk

__all__ = ["PICTURES", "RECORDINGS", "Words"]


@dataclass(frozen=True)
class Words:
    """Words for one kind of files.

    Attributes:
        clean: What a calibration is made of.
        none_found: What a source without files lacks.
        raw: What noise of level ``raw`` is in.
        input: What noise of level ``input`` is in.
        same: What a copy is of another file.
        same_by: By what number that is known.
        many: What the poisoned ones under a name come from.
        group: What the first folder level names.
        groups: Several of those.
        warning: Of a run whose files are unlike the calibration's, with ``outside``, ``judged`` and
            ``unusual``, which are numbers of files.
        remedies: What to do, by risk; the gravest first. What is missing is not looked for.
    """

    clean: str
    none_found: str
    raw: str
    input: str
    same: str
    same_by: str
    many: str
    group: str
    groups: str
    warning: str
    remedies: Mapping[Risk, str]


RECORDINGS = Words(
    clean="audio",
    none_found="no audio file in {}, expected wav, flac, ogg or mp3 (pictures: --modality image)",
    raw="waveform",
    input="spectrogram",
    same="the same recording as",
    same_by="correlation of the samples",
    many="many voices",
    group="speaker",
    groups="speakers",
    warning="this audio is unlike the calibration's: {outside} of {judged} files are out of domain "
    "and {unusual} react to noise as at most 5 % of clean audio does. Either most files are "
    "attacked, or the audio is of another kind (microphone, codec, language, synthetic voices). "
    "Calibrate on clean audio of your own: nip-audio calibrate CLEAN_DIR --out my.calibration, "
    "then screen with --calibration my.calibration",
    remedies=RISKS,
)

PICTURES = Words(
    clean="pictures",
    none_found="no picture in {}, expected png, jpg, bmp, ppm or webp",
    raw="picture",
    input="picture",
    same="the same picture as",
    same_by="correlation of the pixels",
    many="many kinds of pictures",
    group="folder",
    groups="folders",
    warning="these pictures are unlike the calibration's: {outside} of {judged} are out of domain "
    "and {unusual} react to noise as at most 5 % of clean pictures do. Either most are attacked, "
    "or they are of another kind (camera, size, compression, things that the model has not been "
    "taught). Calibrate on clean pictures of your own: nip-audio calibrate CLEAN_DIR --model MODEL "
    "--out my.calibration, then screen with --calibration my.calibration",
    remedies={
        "out_of_domain": "fetch the original, or calibrate on clean pictures like it: nip-audio "
        "calibrate CLEAN_DIR --model MODEL",
        "adversarial": "do not use it; look at it, and fetch the original; to look closer: "
        "nip-audio purify",
        "poisoned": "keep it out of training; look at it, and ask where it came from",
        "duplicate": "keep it in one folder only; ask what it shows",
    },
)
