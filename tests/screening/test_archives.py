"""A screening of an archive is that of the folder it would unpack to."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nip_audio.audio import MODALITY
from nip_audio.errors import InputError
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.sources import FolderSource, find_source


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of the files that were measured."""
    names = []
    measure = FileMeasurer._measured
    monkeypatch.setattr(
        FileMeasurer,
        "_measured",
        lambda self, recording: names.append(recording.id) or measure(self, recording),
    )
    return names


def judged(screener, source, out: Path) -> dict[str, dict]:
    found = replace(screener, engine=LocalEngine(1)).screen(source, out)
    return {record.id: record.to_json() for record in found.results.files()}


def test_an_archive_is_screened_like_its_folder(screener, folder, tmp_path, measured):
    expected = judged(screener, FolderSource(folder), tmp_path / "of the folder")
    for kind, form in (("zip", "zip"), ("tar.gz", "gztar")):
        path = Path(shutil.make_archive(str(tmp_path / "voices"), form, folder))
        source = find_source(MODALITY, path, None, follow_links=False)
        measured.clear()
        found = judged(screener, source, tmp_path / kind)
        assert found == expected
        assert sorted(measured) == sorted(expected)
        assert source.find("s0/take10.wav").read().sha256 == expected["s0/take10.wav"]["sha256"]
        assert judged(screener, source, tmp_path / kind) == expected
        assert len(measured) == len(expected)  # nothing again
        assert not list(tmp_path.rglob("*.wav.*"))


def test_only_what_was_added_to_an_archive_is_measured(screener, folder, tmp_path, measured):
    path = Path(shutil.make_archive(str(tmp_path / "voices"), "zip", folder))
    before = judged(screener, FolderSource(path), tmp_path / "out")
    measured.clear()
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(folder / "lonely.flac", "s3/other.flac")
        archive.writestr("s4/inner.zip", b"PK")
    after = judged(screener, FolderSource(path), tmp_path / "out")
    assert measured == ["s3/other.flac"]
    assert after.keys() == before.keys() | {"s3/other.flac"}
    survey = FolderSource(path).survey()
    assert survey.names == ("s4/inner.zip",)
    assert survey.without == ("s4",)


def test_speakers_of_an_archive_are_found_by_a_pattern(folder, tmp_path):
    shutil.move(folder, tmp_path / "deep" / "wav")
    (tmp_path / "deep" / "wav" / "lonely.flac").unlink()
    path = Path(shutil.make_archive(str(tmp_path / "v"), "tar", tmp_path / "deep"))
    source = find_source(MODALITY, path, None, follow_links=False, speaker_from="wav/{speaker}/*")
    assert {one.speaker for one in source} == {"s0", "s1", "s2"}
    assert source.find("wav/s1/take10.wav").speaker == "s1"


def test_a_hostile_archive_stops_the_run_with_one_error(screener, tmp_path):
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        archive.writestr("../../x.wav", b"x")
    with pytest.raises(InputError, match="leads out of it"):
        judged(screener, FolderSource(tmp_path / "v.zip"), tmp_path / "out")
