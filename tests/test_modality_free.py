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
    assert own <= {"_lazy", "errors", "core", "detectors"}
