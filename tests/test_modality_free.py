"""The core and the detectors know no modality: neither what they import nor what they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nip_audio"
FILES = sorted(p for part in ("core", "detectors") for p in (ROOT / part).rglob("*.py"))

OF_A_MODALITY = {
    *("audio", "image", "images", "mel", "mels", "mfcc", "picture", "pictures", "pixel", "pixels"),
    *("sample_rate", "sound", "spectrogram", "spectrum", "speech", "speaker", "speakers", "voice"),
    *("voices", "wav", "wavs", "waveform", "waveforms", "wave", "utterance", "phone", "colour"),
}
LIBRARIES = {
    *("PIL", "cv2", "librosa", "soundfile", "soxr", "speechbrain", "timm", "torchaudio"),
    *("torchvision", "skimage"),
}


PROJECT = {"NipAudioError", "nip_audio"}  # the project's own name is no modality of its code


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name that the code binds, reads, passes or defines; texts and comments are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def words(name: str) -> set[str]:
    """Parts of a snake- or CamelCase name, in lower case, and the name itself."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    pairs = {f"{a}_{b}".lower() for a, b in zip(parts, parts[1:], strict=False)}
    return {part.lower() for part in parts} | pairs


def test_the_reader_sees_names_of_every_kind():
    tree = ast.parse("def read_wav(x, *, mel=1):\n    ImagePixels.load(sample_rate_hz=2)\n")
    found = {word for name in identifiers(tree) for word in words(name)} & OF_A_MODALITY
    assert found == {"wav", "mel", "image", "pixels", "sample_rate"}


def test_there_is_something_to_read():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_identifier_is_of_a_modality(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set(identifiers(tree)) - PROJECT
    assert not {w for name in names for w in words(name)} & OF_A_MODALITY


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_of_a_modality_is_imported(path):
    names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    own = {n.split(".")[1] for n in names if n.startswith("nip_audio.")}
    assert not {n.split(".")[0] for n in names} & LIBRARIES
    assert own <= {"errors", "_lazy", "core", "detectors"}


# The seam: what differs between modalities is said in these modules, and asked of their objects
# everywhere else. A module that is not among them neither compares the name of a modality nor asks
# for the class of something that only one modality has.
SEAM = {
    *("models/modalities.py", "models/cards.py", "screening/modalities.py"),
    *("screening/details.py", "screening/measured.py", "screening/recordings.py"),
    *("screening/images.py", "workflows/modalities.py", "workflows/recordings.py"),
    *("workflows/images.py", "reporting/recordings.py", "reporting/images.py"),
}
NAMES = {"audio", "image"}
CLASSES = {
    *("AudioModality", "ImageModality", "WaveformAdapter", "ImageAdapter", "Recordings", "Images"),
    *("RecordingDetails", "ImageDetails", "Measurement", "ImageMeasurement", "FileFacts"),
    *("ImageFacts", "RecordingWorkflow", "ImageWorkflow", "ExaminedRecording", "ExaminedImage"),
}
MOST_SWITCHES = 5
"""Four compare two modalities, to refuse what does not belong together (a model, a calibration, a
line of the journal, models to be ranked); one says of which files a calibration is."""


def switches(tree: ast.AST) -> Iterator[int]:
    """Lines that choose by modality: comparisons with one, ``isinstance`` of a class of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.IfExp | ast.MatchValue):
            parts = list(ast.walk(node))
            names = {p.attr for p in parts if isinstance(p, ast.Attribute)}
            names |= {p.id for p in parts if isinstance(p, ast.Name) and p.id != "tag"}
            texts = {p.value for p in parts if isinstance(p, ast.Constant)}
            if texts & NAMES or (_compares(node) and names & {"modality", "tag", *NAMES}):
                yield node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            names = {p.id for p in ast.walk(node) if isinstance(p, ast.Name)}
            yield from [node.lineno] if names & CLASSES else []


def _compares(node: ast.AST) -> bool:
    """Whether two values are compared, none of them None."""
    return (
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot)
        and getattr(node.comparators[0], "value", "") is not None
    )


def test_the_reader_sees_switches_of_every_kind():
    code = (
        "if card.modality == 'image':\n    pass\n"
        "eps = 1 if kind is Modality.audio else 2\n"
        "if isinstance(adapter, ImageAdapter):\n    pass\n"
        "x = 'image' if rate is None else 'audio'\n"
        "if facts.tag != known.tag:\n    pass\n"
        "if modality is None or takes == modality.value:\n    pass\n"
    )
    assert sorted(switches(ast.parse(code))) == [1, 3, 4, 6, 7, 9]


def test_only_the_seam_chooses_by_modality():
    outside = [
        f"{path.relative_to(ROOT).as_posix()}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] not in {"audio", "image"}
        and path.relative_to(ROOT).as_posix() not in SEAM
        for line in switches(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(outside) <= MOST_SWITCHES, outside
