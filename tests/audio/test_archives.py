"""Recordings in ZIP and tar archives, honest and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio import archives
from nip_audio.audio._inflated import Inflated
from nip_audio.audio.archives import archive_of, open_archive
from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.audio.manifest import PassedOver, read_recordings, walk_audio, walk_folder
from nip_audio.errors import AudioError, InputError, NipAudioError
from nip_audio.screening.stamps import has_content, stamp_of

KINDS = ("zip", "tar", "tar.gz", "tgz")


@pytest.fixture(autouse=True)
def looked_at_anew():
    """What one test wrote under a name is not what the next one writes."""
    archives._looked_through.cache_clear()


def voice(seed: int, seconds: float = 1.0) -> bytes:
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.standard_normal(int(16000 * seconds)) * np.sin(np.arange(int(16000 * seconds)))
    buffer = io.BytesIO()
    soundfile.write(buffer, x, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def pack(path: Path, files: list[tuple[str, bytes]]) -> Path:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files:
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


VOICES = [
    (f"{who}/{take}.wav", voice(3 * k + take)) for k, who in enumerate("ab") for take in range(1, 4)
]


def refusal(call) -> str:
    with pytest.raises(InputError) as err:
        call()
    return str(err.value)


def error(path: Path) -> tuple[str, str]:
    with pytest.raises(AudioError) as err:
        read_audio(path)
    assert err.value.remedy
    assert str(err.value).startswith(str(path))
    return err.value.code, err.value.found


# ---- honest archives


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_the_recordings_of_an_unpacked_folder(tmp_path, kind):
    path = pack(tmp_path / f"voices.{kind}", [*VOICES, ("c.flac", voice(9)), ("a/notes.txt", b"x")])
    for name, content in VOICES:
        (tmp_path / "voices" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "voices" / name).write_bytes(content)
    (tmp_path / "voices" / "c.flac").write_bytes(voice(9))
    inside = list(walk_audio(path))
    outside = {one.id: one for one in walk_audio(tmp_path / "voices")}
    assert [one.id for one in inside] == [name for name, _ in VOICES] + ["c.flac"]
    for one in inside:
        assert one.speaker == outside[one.id].speaker
        assert one.path == path / one.id
        assert one.read().sha256 == outside[one.id].read().sha256
    assert [one.id for one in walk_folder(path, {".wav"}) if isinstance(one, PassedOver)] == [
        "a/notes.txt",
        "c.flac",
    ]
    assert sorted(os.listdir(tmp_path)) == ["voices", f"voices.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_in_any_order_and_in_part(tmp_path, kind):
    path = pack(tmp_path / f"v.{kind}", VOICES)
    for name, content in random.Random(0).sample(VOICES * 2, 12):
        assert read_audio(path / name).sha256 == sha256(content).hexdigest()
    assert read_audio(path / "a/1.wav", span=(0, 12000)).duration_s == 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_manifests_name_members(tmp_path, kind):
    pack(tmp_path / f"v.{kind}", VOICES)
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"ID,wav,spk_id\nx,v.{kind}/a/1.wav,ann\ny,v.{kind}/b/2.wav,bob\n")
    first, second = read_recordings(manifest)
    assert (first.speaker, second.speaker) == ("ann", "bob")
    assert first.read().duration_s == second.read().duration_s == 1.0
    manifest.write_text(f"ID,wav,spk_id\nx,v.{kind}/../../etc/a.wav,ann\n")
    assert "is outside the manifest's folder" in refusal(lambda: read_recordings(manifest))


def test_a_link_to_an_archive_outside_is_not_followed(tmp_path):
    pack(tmp_path / "v.zip", VOICES)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "v.zip").symlink_to(tmp_path / "v.zip")
    manifest = tmp_path / "inner" / "list.csv"
    manifest.write_text("ID,wav,spk_id\nx,v.zip/a/1.wav,ann\n")
    with pytest.raises(AudioError, match="outside of"):
        read_recordings(manifest)[0].read()
    assert read_recordings(manifest, follow_links=True)[0].read().duration_s == 1.0


def test_names_are_found_in_any_unicode_form(tmp_path):
    path = pack(tmp_path / "v.zip", [("Zoe\u0308/a.wav", voice(1))])
    (one,) = walk_audio(path)
    assert (one.id, one.speaker) == ("Zo\u00eb/a.wav", "Zo\u00eb")
    assert one.read().duration_s == read_audio(path / one.id).duration_s == 1.0


def test_what_systems_add_is_passed_over(tmp_path):
    names = ["__MACOSX/a/._1.wav", "__MACOSX/x.wav", "./a/1.wav", ".hidden.wav", "a//2.wav"]
    path = pack(tmp_path / "v.tar", [(name, voice(1)) for name in names])
    found = list(walk_folder(path, {".wav"}))
    assert [one.id for one in found if not isinstance(one, PassedOver)] == ["a/1.wav", "a/2.wav"]
    hidden = {one.id for one in found if isinstance(one, PassedOver) and one.hidden}
    assert hidden == {"__MACOSX/", ".hidden.wav"}


def test_backslashes_of_windows_are_separators_in_zip(tmp_path):
    path = pack(tmp_path / "v.zip", [("a\\1.wav", voice(1))])
    assert [one.id for one in walk_audio(path)] == ["a/1.wav"]
    assert next(walk_audio(path)).read().duration_s == 1.0


def test_a_stamp_is_of_the_member_and_of_the_archive(tmp_path):
    path = pack(tmp_path / "v.zip", VOICES)
    one = next(walk_audio(path))
    before = stamp_of(one)
    assert before.split(":")[0] == str(len(VOICES[0][1]))
    assert has_content(one, sha256(VOICES[0][1]).hexdigest())
    assert not has_content(one, sha256(VOICES[1][1]).hexdigest())
    os.utime(path, ns=(1, 1))
    assert stamp_of(one) != before
    path.write_bytes(b"PK")
    assert stamp_of(one) == "none:archive"


def test_a_path_leads_into_the_outermost_archive(tmp_path):
    path = pack(tmp_path / "v.zip", VOICES)
    assert archive_of(path / "a/1.wav") == (path, "a/1.wav")
    assert archive_of(path) is None
    (tmp_path / "f.zip").mkdir()
    assert archive_of(tmp_path / "f.zip" / "a.wav") is None


# ---- archives that would do harm


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../../evil.wav", "a/../../evil.wav", "/etc/evil.wav", "C:/evil.wav", "..\\evil.wav"]
)
def test_a_name_that_leads_out_refuses_the_archive(tmp_path, kind, name):
    if "\\" in name and kind != "zip":
        return
    inner = tmp_path / "inner"
    inner.mkdir()
    path = pack(inner / f"v.{kind}", [VOICES[0], (name, voice(1))])
    told = refusal(lambda: list(walk_audio(path)))
    assert "which leads out of it" in told
    code, found = error(path / "a/1.wav")
    assert code == "unreadable"
    assert "leads out" in found
    assert os.listdir(tmp_path) == ["inner"]
    assert os.listdir(inner) == [path.name]


def test_links_and_devices_are_no_recordings(tmp_path):
    path = tmp_path / "v.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in {
            "a/s.wav": tarfile.SYMTYPE,
            "a/h.wav": tarfile.LNKTYPE,
            "a/d.wav": tarfile.CHRTYPE,
            "a/f.wav": tarfile.FIFOTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = {one.id: error(one.path) for one in walk_audio(path)}
    assert {code for code, _ in found.values()} == {"not_a_file"}
    assert found["a/s.wav"][1] == "it is a link to '/etc/passwd', expected a file"
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        info = zipfile.ZipInfo("a/s.wav")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert error(tmp_path / "v.zip" / "a/s.wav") == ("not_a_file", "it is a link, expected a file")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_ambiguous(tmp_path, kind):
    path = pack(tmp_path / f"v.{kind}", [*VOICES, ("./a/1.wav", voice(7)), ("a/1.wav", voice(8))])
    assert [one.id for one in walk_audio(path)].count("a/1.wav") == 1
    code, found = error(path / "a/1.wav")
    assert code == "same_name"
    assert "programs differ" in found
    assert read_audio(path / "a/2.wav").duration_s == 1.0


def test_encrypted_members_and_odd_methods_say_so(tmp_path):
    path = pack(tmp_path / "v.zip", VOICES)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    second = content.index(b"PK\x01\x02", at + 4)
    content[second + 10] = 93  # Zstandard
    path.write_bytes(content)
    assert error(path / "a/1.wav") == ("unreadable", "it is encrypted")
    assert "method 93" in error(path / "a/2.wav")[1]
    assert read_audio(path / "a/3.wav").duration_s == 1.0


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_in_an_archive_is_passed_over_and_not_opened(tmp_path, kind):
    inner = pack(tmp_path / "inner.zip", VOICES).read_bytes()
    path = pack(tmp_path / f"v.{kind}", [("a/inner.zip", inner), ("a/fake.wav", inner)])
    found = list(walk_folder(path, {".wav"}))
    assert [one.id for one in found if isinstance(one, PassedOver)] == ["a/inner.zip"]
    code, told = error(path / "a/inner.zip/a/1.wav")
    assert code == "missing"
    assert "an archive in an archive is not read" in told
    code, told = error(path / "a/fake.wav")
    assert code == "not_audio"
    assert "ZIP archive" in told


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "_FREE", 1 << 20)
    path = pack(tmp_path / f"v.{kind}", [("a/1.wav", bytes(30 << 20))])
    assert path.stat().st_size < 40_000
    archives._looked_through.cache_clear()
    tracemalloc.start()
    told = refusal(lambda: list(walk_audio(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "as a bomb does" in told
    assert peak < 8 << 20
    assert error(path / "a/1.wav")[0] == "unreadable"


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_larger_than_allowed_is_not_read(tmp_path, kind):
    path = pack(tmp_path / f"v.{kind}", VOICES)
    with pytest.raises(AudioError, match="at most 20000 are read") as err:
        read_audio(path / "a/1.wav", ReadSettings(max_bytes=20_000))
    assert err.value.code == "too_large"


@pytest.mark.parametrize("stated", [10, 1 << 31])
def test_a_size_that_is_stated_wrongly_is_damage(tmp_path, stated):
    """The directory of a ZIP archive may state anything."""
    path = pack(tmp_path / "v.zip", VOICES[:1])
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", stated)
    path.write_bytes(content)
    if stated > 1 << 30:
        assert "as a bomb does" in refusal(lambda: open_archive(path))
    else:
        assert error(path / "a/1.wav")[0] == "damaged"


def test_a_tar_header_that_asks_for_gigabytes_is_refused(tmp_path):
    """Long names and extended headers are read into memory by their stated size."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    path = tmp_path / "v.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    tracemalloc.start()
    assert "asks for more than a header has" in refusal(lambda: open_archive(path))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_chain_of_headers_is_refused(tmp_path):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 512
    block = header.tobuf(tarfile.USTAR_FORMAT) + b"10 a=bcde\n".ljust(512, b"\0")
    path = tmp_path / "v.tar"
    path.write_bytes(block * 2000 + bytes(1024))
    assert "cannot be read as a tar archive" in refusal(lambda: open_archive(path))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_what_follows_where_a_reader_stops_is_damage(tmp_path, kind):
    path = pack(tmp_path / f"v.{kind}", VOICES[:1])
    content = path.read_bytes() if kind == "tar" else gzip.decompress(path.read_bytes())
    other = pack(tmp_path / "other.tar", VOICES[1:2]).read_bytes()
    for more in (other, b"\0" * 512 + other, b"junk" * 200):
        both = content + more
        path.write_bytes(both if kind == "tar" else gzip.compress(both))
        archives._looked_through.cache_clear()
        assert "programs differ" in refusal(lambda: open_archive(path))


def test_thousands_of_members_are_read_and_too_many_refused(tmp_path, monkeypatch):
    path = pack(tmp_path / "v.tar", [(f"a/{k}.wav", b"") for k in range(1500)])
    assert len(open_archive(path).members) == 1500
    archives._looked_through.cache_clear()
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 1499)
    assert "more than 1499 members" in refusal(lambda: open_archive(path))
    monkeypatch.setattr(archives, "_MOST_DIRECTORY", 1000)
    zipped = pack(tmp_path / "v.zip", [(f"a/{k}.wav", b"") for k in range(100)])
    assert "asks for more than a header has" in refusal(lambda: open_archive(zipped))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_archive_is_one_error(tmp_path, kind):
    path = tmp_path / f"v.{kind}"
    for content in (b"", b"no archive" * 100, voice(1)):
        path.write_bytes(content)
        archives._looked_through.cache_clear()
        told = refusal(lambda: list(walk_audio(path)))
        assert "cannot be read as a" in told or "programs differ" in told, told
    assert error(path / "a/1.wav")[0] == "unreadable"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_never_a_traceback(tmp_path, kind):
    whole = pack(tmp_path / f"v.{kind}", VOICES[:3]).read_bytes()
    rng = random.Random(1)
    path, seen = tmp_path / f"d.{kind}", set()
    for _ in range(80):
        content = bytearray(whole)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        for _ in range(rng.choice([1, 3, 30])):
            if content:
                place = rng.randrange(len(content))
                place = rng.choice([place, max(0, len(content) - 1 - place % 400), place % 600])
                content[place] = rng.randrange(256)
        path.write_bytes(content)
        archives._looked_through.cache_clear()
        try:
            for one in walk_audio(path):
                seen.add("read")
                try:
                    one.read()
                except AudioError as err:
                    seen.add(err.code)
        except NipAudioError:
            seen.add("refused")
    assert {"read", "refused"} <= seen


# ---- gzip


def test_content_of_gzip_is_read_anywhere(tmp_path):
    rng = random.Random(0)
    content = b"".join(rng.randbytes(50_000) + bytes(30_000) for _ in range(60))
    streams = gzip.compress(content[:1_000_000]) + gzip.compress(content[1_000_000:]) + bytes(100)
    path = tmp_path / "x.gz"
    path.write_bytes(streams)
    with path.open("rb") as file:
        found = Inflated(file, lambda packed: 1 << 30, step=1 << 18)
        for _ in range(200):
            place, count = rng.randrange(len(content)), rng.choice([1, 512, 100_000])
            assert found.seek(place) == found.tell() == place
            assert found.read(count) == content[place : place + count]
        assert found.seek(1 << 40) == len(content)
        assert found.read(1) == b""
        assert len(found._kept) > 4
    path.write_bytes(streams[:-5000])
    with path.open("rb") as file, pytest.raises(EOFError, match="in the middle"):
        Inflated(file, lambda packed: 1 << 30).seek(1 << 40)
