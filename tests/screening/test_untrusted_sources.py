"""Manifests and links that change, lead elsewhere or name URLs: what a run makes of them."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace

import fsspec
import pytest
import soundfile

import nip_audio
from nip_audio.audio.manifest import read_recordings
from nip_audio.errors import AudioError
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.sources import FolderSource, ManifestSource


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Ids of what is measured from now on."""
    seen: list[str] = []
    real = FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: (seen.append(r.id), real(self, r))[1]
    )
    return seen


@pytest.fixture
def from_rows(tmp_path):
    """Make a source of rows of a manifest."""

    def make(*rows: dict[str, object], **options: object) -> ManifestSource:
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ManifestSource(path, read_recordings(path, **options))

    return make


def test_links_out_of_the_folder_are_errors_until_asked_for(
    screener, folder, voice, tmp_path, measured
):
    (tmp_path / "elsewhere").mkdir()
    outside = tmp_path / "elsewhere" / "a.wav"
    soundfile.write(outside, voice(1, 17), 16000, "PCM_16")
    (folder / "s1" / "link.wav").symlink_to(outside)
    (folder / "s9").symlink_to(outside.parent)
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    assert result.summary.errors == {"outside": 2}
    measured.clear()
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert measured == []
    followed = screener.screen(FolderSource(folder, follow_links=True), tmp_path / "out")
    assert measured == ["s1/link.wav", "s9/a.wav"]
    assert followed.summary.errors == {}
    back = screener.screen(FolderSource(folder), tmp_path / "out")
    assert back.summary == result.summary


def test_another_part_of_the_same_file_is_measured_anew(
    screener, folder, tmp_path, from_rows, measured
):
    row = {"path": "enrolment/s0/take10.wav", "id": "x", "end_s": 0.6}
    screener.screen(from_rows(row), tmp_path / "out")
    result = screener.screen(from_rows({**row, "end_s": 0.8}), tmp_path / "out")
    assert measured == ["x", "x"]
    assert [record.details.duration_s for record in result.results.files()] == [0.8]


def test_another_speaker_of_the_same_file_is_believed(
    screener, folder, tmp_path, from_rows, measured
):
    rows = [{"path": f"enrolment/s0/take{n}.wav", "speaker": "ann"} for n in (10, 11)]
    screener.screen(from_rows(*rows), tmp_path / "out")
    rows[1]["speaker"] = "bob"
    result = screener.screen(from_rows(*rows), tmp_path / "out")
    assert len(measured) == 2
    assert [record.speaker for record in result.results.files()] == ["ann", "bob"]


def test_ids_are_data_and_name_no_files(screener, folder, tmp_path, from_rows):
    hostile = ["../../../x", "/etc/passwd", "a\0b", "<script>", "\ud800", "x" * 5000]
    rows = [{"path": "enrolment/s0/take10.wav", "id": name, "speaker": name} for name in hostile]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = screener.screen(from_rows(*rows), tmp_path / "out")
    assert [record.id for record in result.results.files()] == hostile
    after = sorted(path.name for path in tmp_path.rglob("*") if path.parent != tmp_path / "out")
    assert after == sorted([*before, "m.jsonl", "out"])


def test_files_on_urls_are_screened_and_resumed(screener, folder, tmp_path, from_rows, measured):
    system = fsspec.filesystem("memory")
    system.store.clear()
    rows = []
    for recording in list(FolderSource(folder))[:4]:
        system.pipe(f"/bucket/{recording.id}", recording.path.read_bytes())
        rows.append({"path": f"$data_root/{recording.id}", "speaker": recording.speaker})
    rows.append({"path": "$data_root/none.wav"})
    source = from_rows(*rows, data_root="memory://bucket")
    here = replace(screener, engine=LocalEngine(1))
    first = here.screen(source, tmp_path / "out")
    assert (first.summary.files, first.summary.errors) == (5, {"missing": 1})
    measured.clear()
    system.pipe("/bucket/none.wav", (folder / "s2/take11.wav").read_bytes())
    assert here.screen(source, tmp_path / "out").summary.errors == {}
    assert measured == ["$data_root/none.wav"]
    system.store.clear()


def test_a_missing_file_of_a_manifest_is_named_by_its_path(screener, from_rows, tmp_path):
    source = from_rows({"path": "sub/gone.wav", "id": "u1"})
    (record,) = screener.screen(source, tmp_path / "out").results.files()
    assert record.error is not None
    assert record.error["code"] == "missing"
    assert str(tmp_path / "sub/gone.wav") in record.error["found"]
    assert "u1" not in record.error["found"]


def test_a_clean_clip_before_another_hides_nothing(screener, folder, voice, tmp_path):
    """A stream behind the first one, a header that states half, and a recording that is cut off."""
    clean, other = (io.BytesIO(), io.BytesIO())
    for file, speaker in ((clean, 1), (other, 2)):
        soundfile.write(file, voice(speaker, 30), 16000, "VORBIS", format="OGG")
    (folder / "s1" / "chained.ogg").write_bytes(clean.getvalue() + other.getvalue())
    soundfile.write(folder / "s1" / "whole.wav", voice(1, 31), 16000, "PCM_16")
    whole = (folder / "s1" / "whole.wav").read_bytes()
    half = struct.pack("<I", (len(whole) - 44) // 2)
    (folder / "s1" / "half.wav").write_bytes(whole[:40] + half + whole[44:])
    (folder / "s1" / "cut.wav").write_bytes(whole[: len(whole) * 2 // 3])
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    assert result.summary.errors == {"damaged": 3}
    run = ScreenedRun.open(tmp_path / "out")
    for name in ("chained.ogg", "half.wav", "cut.wav"):
        assert run.record(f"s1/{name}").verdict == "error"


@pytest.mark.parametrize("use", [nip_audio.purify, nip_audio.embed, nip_audio.attack])
def test_every_reader_hears_all_of_a_file_or_none(use, voice, tmp_path):
    data = io.BytesIO()
    soundfile.write(data, voice(1, 30), 16000, "VORBIS", format="OGG")
    path = tmp_path / "chained.ogg"
    path.write_bytes(data.getvalue() * 2)
    rest = (tmp_path / "out",) if use is nip_audio.attack else ()
    with pytest.raises(AudioError, match="several streams of audio"):
        use(path, *rest)
