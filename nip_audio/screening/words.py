"""Words that findings, summaries and reports use for recordings and for images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nip_audio.screening.records import RISKS, Risk

__all__ = ["IMAGES", "RECORDINGS", "Words"]


@dataclass(frozen=True)
class Words:
    """Words for the files of one modality.

    Attributes:
        clean: Name of the files in the plural or as a mass noun, such as ``audio``.
        none_found: Error text for a source without files; ``{}`` is the source.
        raw: Name of what raw noise is added to, such as ``waveform``.
        input: Name of what input noise is added to, such as ``spectrogram``.
        same: Phrase before the name of a duplicate, such as ``the same recording as``.
        same_by: Name of the number that shows a duplicate.
        many: What files with a backdoor trigger have in common less than others, such as
            ``many voices``.
        group: Name of what the first folder level stands for, such as ``speaker``.
        groups: Plural of ``group``.
        warning: Warning for a run whose files are unlike those of the calibration; ``{outside}``,
            ``{judged}`` and ``{unusual}`` are numbers of files.
        remedies: Remedy of each risk, most severe risk first; a risk without one is not checked.
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
    none_found="found no audio file in {}, expected wav, flac, ogg or mp3 (for images pass "
    "--modality image)",
    raw="waveform",
    input="spectrogram",
    same="the same recording as",
    same_by="correlation of the samples",
    many="many voices",
    group="speaker",
    groups="speakers",
    warning="this audio is unlike the audio that the detector was calibrated on, so single "
    "verdicts mean little: {outside} of {judged} files are out of domain, and {unusual} respond to "
    "noise as at most 5 % of clean recordings do. Either most files are attacked, or they are "
    "another kind of audio (microphone, codec, language, synthetic voices). Calibrate on clean "
    "audio of your own: nip-audio calibrate CLEAN_DIR --out my.calibration, then screen with "
    "--calibration my.calibration",
    remedies=RISKS,
)

IMAGES = Words(
    clean="images",
    none_found="found no image in {}, expected png, jpg, bmp, ppm or webp",
    raw="image",
    input="image",
    same="the same image as",
    same_by="correlation of the pixels",
    many="many kinds of images",
    group="folder",
    groups="folders",
    warning="these images are unlike the images that the detector was calibrated on, so single "
    "verdicts mean little: {outside} of {judged} are out of domain, and {unusual} respond to noise "
    "as at most 5 % of clean images do. Either most are attacked, or they are another kind of "
    "image (camera, size, compression, things that the model was not trained on). Calibrate on "
    "clean images of your own: nip-audio calibrate CLEAN_DIR --model MODEL --out my.calibration, "
    "then screen with --calibration my.calibration",
    remedies={
        "out_of_domain": "get the original image, or calibrate on clean images like this one "
        "(nip-audio calibrate CLEAN_DIR --model MODEL) and screen again",
        "adversarial": "do not use it; look at it and get the original image; nip-audio purify "
        "writes a purified copy to compare with",
        "poisoned": "keep it out of training; look at it and find out where it came from",
        "duplicate": "find out what it shows and keep it in that folder only",
    },
)
