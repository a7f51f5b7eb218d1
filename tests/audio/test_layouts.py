"""Headers that say less, more or nothing of what the file holds, and files of several streams.

Either the whole recording is heard, or the file is an error: never a part of it without a word.
"""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import soundfile

from nip_audio.audio._layout import NO_LENGTH, View, patched
from nip_audio.audio._streams import NO_END
from nip_audio.audio.io import ReadSettings, Seconds, read_audio
from nip_audio.errors import AudioError

RATE = 16000
DISAGREE = "programs play it differently"


def tone(seconds: float = 3.0, hz: float = 300.0, rate: int = RATE) -> np.ndarray:
    time_s = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(int(hz))
    return 0.3 * np.sin(2 * np.pi * hz * time_s) + 0.01 * rng.standard_normal(len(time_s))


def encoded(container: str, subtype: str = "PCM_16", samples=None, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone() if samples is None else samples, rate, subtype, format=container)
    return file.getvalue()


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def u32(value: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}I", value)


def wav(size: int | None = None, after: bytes = b"") -> bytes:
    data = encoded("WAV")
    return (data if size is None else with_bytes(data, 40, u32(size))) + after


def rf64(size: int) -> bytes:
    data = encoded("RF64")
    return with_bytes(data, data.index(b"ds64") + 16, struct.pack("<Q", size))


def w64(size: int) -> bytes:
    data = encoded("W64")
    return with_bytes(data, data.index(b"data") + 16, struct.pack("<Q", size))


def aiff(size: int | None = None, frames: int | None = None) -> bytes:
    data = encoded("AIFF")
    if size is not None:
        data = with_bytes(data, data.index(b"SSND") + 4, u32(size, ">"))
    if frames is not None:
        data = with_bytes(data, data.index(b"COMM") + 10, u32(frames, ">"))
    return data


def caf(size: int) -> bytes:
    data = encoded("CAF")
    return with_bytes(data, data.rindex(b"data\0\0\0\0") + 4, struct.pack(">q", size))


def au(size: int) -> bytes:
    return with_bytes(encoded("AU"), 8, u32(size, ">"))


def nist(samples: int) -> bytes:
    return encoded("NIST").replace(b"-i 48000\nend", b"-i %05d\nend" % samples)


def flac(samples: int | None = None) -> bytes:
    data = encoded("FLAC")
    if samples is None:
        return data
    return with_bytes(data, 21, bytes([data[21] & 0xF0]) + u32(samples, ">"))


MP3_FRAME = 576  # samples of a frame at 16 kHz


def mp3(samples=None, *, count: int | None = None, header: bool = True, rate: int = RATE) -> bytes:
    """An MP3 file with another number of frames in its header, or without header."""
    data = encoded("MP3", "MPEG_LAYER_III", samples, rate)
    if not header:
        return data[288 if rate == RATE else 432 :]
    return data if count is None else with_bytes(data, data.index(b"Xing") + 8, u32(count, ">"))


def pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def with_granule(page: bytes, granule: int) -> bytes:
    """A page that states another length, with the checksum that belongs to it."""
    page = with_bytes(with_bytes(page, 6, struct.pack("<q", granule)), 22, bytes(4))
    reverse = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    mirrored = zlib.crc32(page.translate(reverse), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return with_bytes(page, 22, u32(int(f"{mirrored:032b}"[::-1], 2)))


def ogg(subtype: str = "VORBIS", hz: float = 300.0, seconds: float = 3.0) -> bytes:
    return encoded("OGG", subtype, tone(seconds, hz))


def read(tmp_path, data: bytes, **options):
    (tmp_path / "x").write_bytes(data)
    return read_audio(tmp_path / "x", **options)


def refused(tmp_path, data: bytes, match: str, code: str = "damaged", **options) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        read(tmp_path, data, **options)
    assert caught.value.code == code


# --- several streams: the second is never left out in silence ---


@pytest.mark.parametrize(
    "data",
    [
        ogg() + ogg(hz=500.0),
        ogg("OPUS") + ogg("OPUS", 500.0),
        ogg() + ogg("OPUS", 500.0),
        flac() + flac(),
        mp3() + mp3(),
        mp3() + mp3(tone(rate=24000), rate=24000),
        mp3(header=False) + mp3(tone(rate=24000), rate=24000, header=False),
        wav() + wav(),
        wav(after=wav()[36:]),
        aiff() + aiff(),
        encoded("CAF") + encoded("CAF"),
        encoded("W64") + encoded("W64"),
        encoded("AU") + encoded("AU"),
        encoded("NIST") + encoded("NIST"),
    ],
    ids=[
        "vorbis",
        "opus",
        "mixed",
        "flac",
        "mp3",
        "rates",
        "no_header",
        "wav",
        "data",
        "aiff",
        "caf",
        "w64",
        "au",
        "nist",
    ],
)
def test_of_several_streams_no_part_is_judged_alone(tmp_path, data):
    refused(tmp_path, data, DISAGREE)


def test_streams_side_by_side_are_several_too(tmp_path):
    first, second = pages(ogg("OPUS")), pages(ogg("OPUS", 500.0))
    refused(tmp_path, b"".join([first[0], second[0], *first[1:], *second[1:]]), "several streams")


def test_mp3_files_without_headers_are_one_recording(tmp_path):
    whole = read(tmp_path, mp3(header=False) + mp3(tone(1.0, 500.0), header=False))
    assert 4.0 <= whole.duration_s < 4.0 + 6 * MP3_FRAME / RATE


# --- a header that says less than there is ---


@pytest.mark.parametrize(
    "data",
    [
        wav(48000),
        rf64(48000),
        w64(48000 + 24),
        aiff(48000 + 8),
        aiff(frames=24000),
        caf(48000 + 4),
        au(48000),
        nist(24000),
        flac(24000),
        mp3(count=40),
    ],
    ids=["wav", "rf64", "w64", "ssnd", "comm", "caf", "au", "nist", "flac", "mp3"],
)
def test_a_header_that_states_half_of_it_is_no_clean_half(tmp_path, data):
    refused(tmp_path, data, DISAGREE)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_pages_that_state_half_of_their_packets_are_no_clean_half(tmp_path, subtype):
    whole = pages(ogg(subtype))
    full = int.from_bytes(whole[-1][6:14], "little")
    assert read(tmp_path, b"".join(with_granule(page, int.from_bytes(page[6:14], "little"))
                                   for page in whole)).duration_s == 3.0  # fmt: skip
    lied = [with_granule(p, min(int.from_bytes(p[6:14], "little"), full // 2)) for p in whole[2:]]
    refused(tmp_path, b"".join([*whole[:2], *lied]), "its pages state .* its packets hold")


def test_one_page_that_states_half_of_its_packets_is_no_clean_half(tmp_path):
    whole = pages(ogg("OPUS", seconds=0.9))
    assert len(whole) == 3
    lied = with_granule(whole[2], 24000)
    refused(tmp_path, b"".join([*whole[:2], lied]), "its packets hold", settings=SHORT)


SHORT = ReadSettings(min_duration_s=0.1)


def test_flac_of_another_stream_behind_noise_is_not_left_out(tmp_path):
    noise = random.Random(0).randbytes(5000).replace(b"\xff", b"")
    refused(tmp_path, flac() + noise + flac()[100:], DISAGREE)


# --- a header that states nothing, as a crash or a pipe leaves it ---


@pytest.mark.parametrize(
    "data",
    [
        wav(0),
        wav(0xFFFFFFFF),
        wav(0x7FFFF000),
        rf64(0),
        rf64(2**64 - 1),
        w64(0),
        aiff(0, frames=0),
        aiff(0x7F000008, frames=0x3F800000),
        caf(-1),
        au(0),
        au(0xFFFFFFFF),
        flac(0),
    ],
    ids=[
        "wav_0",
        "wav_f",
        "wav_7",
        "rf64_0",
        "rf64_f",
        "w64_0",
        "aiff_0",
        "aiff_7",
        "caf",
        "au_0",
        "au_f",
        "flac",
    ],
)
def test_a_header_without_length_is_read_to_the_end_with_a_note(tmp_path, data):
    got = read(tmp_path, data)
    np.testing.assert_allclose(got.samples, tone(), atol=1 / 32768)
    assert got.changes == (NO_LENGTH,)


@pytest.mark.parametrize("data", [mp3(header=False), mp3(count=0)], ids=["none", "zero"])
def test_mp3_without_number_of_frames_is_heard_whole(tmp_path, data):
    got = read(tmp_path, data)
    assert 3.0 <= got.duration_s <= 3.0 + 4 * MP3_FRAME / RATE
    spectrum = np.abs(np.fft.rfft(got.samples.numpy()[:48000]))
    assert spectrum.argmax() == 900  # 300 Hz over three seconds


def test_mp3_of_varying_bit_rate_without_header_is_heard_whole(tmp_path):
    loud, soft = tone(2.0), 1e-3 * tone(2.0)
    for samples in (np.r_[loud, soft], np.r_[soft, loud]):
        got = read(tmp_path, mp3(samples, header=False))
        assert 4.0 <= got.duration_s <= 4.0 + 4 * MP3_FRAME / RATE


def test_of_flac_without_length_spans_are_read_and_hours_are_not(tmp_path):
    data = flac(0)
    np.testing.assert_array_equal(
        read(tmp_path, data, span=(8000, 24000)).samples, read(tmp_path, data).samples[8000:24000]
    )
    assert read(tmp_path, data, span=Seconds(1.0)).duration_s == 2.0
    assert read(tmp_path, data, span=Seconds(1.0, 2.5)).duration_s == 1.5
    settings = ReadSettings(max_duration_s=2.0)
    refused(tmp_path, data, "it lasts longer, at most 2 s", "too_long", settings=settings)
    refused(tmp_path, data, "states 64000 samples, only 40000", span=(8000, 72000))


def test_a_wav_file_that_holds_nothing_is_still_empty(tmp_path):
    tags = b"LIST" + u32(4) + b"INFO"
    refused(tmp_path, wav()[:40] + u32(0) + tags, "holds 0 samples", "empty")
    refused(tmp_path, wav()[:40] + u32(0), "holds 0 samples", "empty")


# --- a file that is cut off ---


@pytest.mark.parametrize("keep", [0.17, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "AU", "W64", "RF64", "NIST"])
def test_what_is_cut_off_is_damaged(tmp_path, kind, keep):
    data = encoded(kind)
    refused(tmp_path, data[: round(keep * len(data))], "it is cut off: its header states")


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "AU"])
def test_a_few_missing_bytes_are_noted(tmp_path, kind):
    got = read(tmp_path, encoded(kind)[:-100])
    assert got.samples.shape == (48000 - 50,)
    assert got.changes == ("the header states more audio than the file holds",)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_that_breaks_off_is_read_with_a_note(tmp_path, subtype):
    data = ogg(subtype)
    got = read(tmp_path, data[: len(data) * 3 // 4])
    assert 0.9 < got.duration_s < 2.7
    assert got.changes == (NO_END,)
    assert read(tmp_path, data).changes == ()


# --- what is in order stays in order ---


@pytest.mark.parametrize(
    "data",
    [
        wav(after=b"LIST" + u32(2000) + b"x" * 2000),
        wav(after=b"id3 " + u32(3) + b"abc"),  # an odd chunk without the byte that fills it up
        wav(after=b"TAG" + b"x" * 125),
        wav(after=bytes(200_000)),  # a recorder reserves room
        wav()[:36] + b"LIST" + u32(8) + b"INFOabcd" + wav()[36:],
        b"ID3\4\0\0\0\0\0\x14" + bytes(20) + wav(),
        wav()[:12] + wav()[36:] + wav()[12:36],
        flac() + b"TAG" + b"x" * 125,
        mp3() + b"TAG" + b"x" * 125,
        mp3() + b"APETAGEX" + u32(2000) + u32(9000) + bytes(9016),
        b"ID3\4\0\0\0\0\0\x14" + bytes(20) + mp3(),
    ],
    ids=["list", "odd", "tag", "zeros", "before", "id3", "order", "flac", "mp3", "ape", "mp3_id3"],
)
def test_tags_and_room_are_no_sound(tmp_path, data):
    got = read(tmp_path, data)
    assert got.samples.shape == (48000,)
    assert set(got.changes) <= {"the header comes after the sound"}


def test_mp3_in_wav_is_read_as_mp3(tmp_path):
    whole = mp3()
    described = struct.pack("<HHIIHH", 0x55, 1, RATE, 4000, 1, 0) + u32(12)
    chunks = b"fmt " + u32(len(described)) + described + b"data" + u32(len(whole)) + whole
    data = b"RIFF" + u32(4 + len(chunks)) + b"WAVE" + chunks
    got = read(tmp_path, data)
    np.testing.assert_array_equal(got.samples, read(tmp_path, whole).samples)
    assert got.changes == ("MP3 in a WAV file",)
    assert got.encoding == "MP3/MPEG_LAYER_III"


def test_a_file_in_the_working_directory_changes_nothing(tmp_path, monkeypatch):
    """libsndfile takes an MP3 file without tags for half of a file whose rest is named "._"."""
    monkeypatch.chdir(tmp_path)
    expected = read(tmp_path, mp3()).samples
    (tmp_path / "._").write_bytes(b"\0\0\1\0" + bytes(400))
    np.testing.assert_array_equal(read(tmp_path, mp3()).samples, expected)
    refused(tmp_path, b"neither this nor that" * 40, "not recognised", "not_audio")


# --- formats of others ---


@pytest.mark.parametrize(
    ("head", "name", "remedy"),
    [
        (b"wvpk", "WavPack", "ffmpeg -i IN.wv OUT.flac"),
        (b"\xff\xf1\x50\x80", "AAC", "ffmpeg -i IN.aac OUT.flac"),
        (b"RIFF\0\1\0\0AVI LIST", "AVI video", "ffmpeg -i IN.avi OUT.flac"),
        (b"Creative Voice File\x1a", "VOC", "ffmpeg -i IN.voc OUT.flac"),
        (b"PK\3\4", "a ZIP archive", "unpack it"),
        (b"<!DOCTYPE html>", "a web page", "download the recording itself"),
        (pages(ogg())[0].replace(b"\x01vorbis", b"\x7fFLAC\1\0"), "FLAC in Ogg", "IN.ogg OUT"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_format_is_named_with_the_way_to_convert_it(tmp_path, head, name, remedy):
    match = f"it is {name}, which is not decoded here; .*{remedy}"
    refused(tmp_path, head + bytes(600), match, "not_audio")


def test_nist_with_compression_is_named(tmp_path):
    data = encoded("NIST").replace(b"-s3 pcm", b"-s3 shn")
    refused(tmp_path, data, "NIST SPHERE with compression.*IN.sph OUT.flac", "not_audio")


# --- the view ---


def test_a_view_is_the_file_with_other_bytes(tmp_path):
    content = bytes(range(200))
    (tmp_path / "x").write_bytes(content)
    expected = content[10:50] + b"abc" + content[53:90] + b"de" + content[92:]
    with (tmp_path / "x").open("rb") as file:
        view = View(file, patched(200, {90: b"de", 50: b"abc"}, start=10))
        rng = random.Random(0)
        for _ in range(300):
            place, count = rng.randrange(210), rng.randrange(1, 120)
            assert view.seek(place) == place
            buffer = bytearray(count)
            read = view.readinto(buffer)
            assert buffer[:read] == expected[place : place + count]
            assert view.tell() == place + read
        assert view.seek(-5) == view.tell()
        assert view.seek(-5, 2) == len(expected) - 5


# --- hostile sizes ---


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfb\x90\x00" + b"\xff" * 3_000_000,
        mp3()[:2000] + b"\xff" * 3_000_000,
        mp3() + (b"TAG" + bytes(125)) * 20_000,
        b"OggS\0\2" + (b"OggS\0\0" + bytes(21)) * 100_000,
        wav()[:12] + b"junk\0\0\0\0" * 300_000,
        b"ID3\4\0\0\0\0\0\0" * 300_000,
        b"fLaC" + bytes(3_000_000),
    ],
    ids=["sync", "mp3", "tags", "ogg", "chunks", "id3", "flac"],
)
def test_what_looks_like_headers_for_megabytes_is_refused(tmp_path, data):
    with pytest.raises(AudioError):
        read(tmp_path, data)
