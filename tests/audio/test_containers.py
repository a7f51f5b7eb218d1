"""MP4, M4A, 3GP, QuickTime, WebM, Matroska and AMR, which PyAV decodes."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from nip_audio.audio._layout import NO_LENGTH
from nip_audio.audio._streams import NO_END
from nip_audio.audio.io import ReadSettings, Seconds, read_audio
from nip_audio.errors import AudioError

av = pytest.importorskip("av", reason="the extra formats is not installed")
DISAGREE = "programs play it differently"


def chirp(seconds: float = 3.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """A rising tone with a little noise (samples, channels), whose parts differ."""
    time_s = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 * time_s + 100 * time_s**2))
    wave += 0.01 * np.random.default_rng(0).standard_normal(len(wave))
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(container: str, codec: str | None, rate: int = 16000, *, samples=None, tracks: int = 1,
            **options: str) -> bytes:  # fmt: skip
    """Encode samples (N, C) into so many tracks; the codec None makes a picture that moves."""
    samples = chirp(rate=rate) if samples is None else samples
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as made:
        if codec is None:
            _add_frames(made)
            return file.getvalue() if made.close() is None else b""
        for stream in [made.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]:
            for place in range(0, len(samples), 1600):
                block = np.ascontiguousarray(samples[place : place + 1600].T)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
                made.mux(stream.encode(frame))
            made.mux(stream.encode(None))
    return file.getvalue()


def _add_frames(made) -> None:
    stream = made.add_stream("mpeg4", rate=5)
    stream.width = stream.height = 32
    for _ in range(10):
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        made.mux(stream.encode(frame))
    made.mux(stream.encode(None))


def write(folder, data: bytes, name: str = "a.bin"):
    (folder / name).write_bytes(data)
    return folder / name


def read(folder, data: bytes, settings: ReadSettings | None = None, **options):
    return read_audio(write(folder, data), settings, **options)


def refused(folder, data: bytes, match: str, code: str = "damaged", settings=None, **options):
    with pytest.raises(AudioError, match=match) as caught:
        read(folder, data, settings, **options)
    assert caught.value.code == code
    assert caught.value.remedy in str(caught.value)


def replaced(data: bytes, box: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes of a box, or of an element, after its name."""
    assert data.count(box) == 1
    place = data.index(box) + len(box) + offset
    return data[:place] + new + data[place + len(new) :]


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


FORMATS = [
    ("ipod", "aac", 16000, "M4A/AAC"),
    ("ipod", "aac", 44100, "M4A/AAC"),
    ("ipod", "alac", 16000, "M4A/ALAC"),
    ("mp4", "aac", 8000, "MP4/AAC"),
    ("mp4", "libopus", 48000, "MP4/OPUS"),
    ("3gp", "aac", 16000, "3GP/AAC"),
    ("3gp", "libopencore_amrnb", 8000, "3GP/AMR"),
    ("amr", "libopencore_amrnb", 8000, "AMR/AMR"),
    ("mov", "pcm_s16le", 16000, "MOV/PCM_S16LE"),
    ("mov", "pcm_s24le", 16000, "MOV/PCM_S24LE"),
    ("mov", "pcm_u8", 16000, "MOV/PCM_U8"),
    ("mov", "pcm_f32le", 16000, "MOV/PCM_F32LE"),
    ("webm", "libopus", 48000, "WEBM/OPUS"),
    ("matroska", "flac", 16000, "MATROSKA/FLAC"),
    ("matroska", "libmp3lame", 16000, "MATROSKA/MP3"),
]
LOSSLESS = {"alac": 2**-15, "flac": 2**-15, "pcm_s16le": 2**-15, "pcm_s24le": 2**-23,
            "pcm_u8": 2**-7, "pcm_f32le": 1e-7}  # fmt: skip


def made(container: str, codec: str, rate: int = 16000, **options) -> bytes:
    if "amr" in codec and codec not in av.codecs_available:
        pytest.skip("this build of PyAV cannot encode AMR")
    return encoded(container, codec, rate, **options)


@pytest.mark.parametrize(("container", "codec", "rate", "encoding"), FORMATS)
def test_it_is_heard_as_the_wav_that_it_was_made_of(tmp_path, container, codec, rate, encoding):
    data = made(container, codec, rate)
    soundfile.write(tmp_path / "a.wav", chirp(rate=rate), rate, "FLOAT")
    expected = read_audio(tmp_path / "a.wav")
    got = read(tmp_path, data)
    assert got.encoding == encoding
    assert (got.source_rate_hz, got.source_channels) == (rate, 1)
    assert got.changes == expected.changes
    assert got.duration_s == pytest.approx(3.0, abs=0.03)
    heard, original = got.samples.numpy(), expected.samples.numpy()
    if codec in LOSSLESS:
        np.testing.assert_allclose(heard, original, atol=LOSSLESS[codec])
        return
    # a lossy codec may be early or late by as much as a frame of AMR
    best = max(
        np.corrcoef(heard[8000 + late :][:32000], original[8000:40000])[0, 1]
        for late in range(-400, 401)
    )
    assert best > (0.9 if "amr" in codec else 0.99)


def test_channels_are_looked_at_before_they_are_averaged(tmp_path):
    stereo = chirp(channels=2) * np.array([1.0, -1.0], np.float32)
    got = read(tmp_path, encoded("ipod", "alac", samples=stereo))
    assert got.changes == ("channel 1 of 2 taken: the channels cancel each other",)
    assert [one.number for one in got.channels] == [1, 2]
    got = read(tmp_path, encoded("ipod", "alac", samples=stereo), ReadSettings(channel=2))
    np.testing.assert_allclose(got.samples, -chirp()[:, 0], atol=2**-15)


def test_a_part_is_read_where_it_lies(tmp_path):
    data = encoded("ipod", "alac")
    got = read(tmp_path, data, span=(16000, 32000))
    np.testing.assert_allclose(got.samples, chirp()[16000:32000, 0], atol=2**-15)
    assert read(tmp_path, data, span=Seconds(1.5)).duration_s == 1.5
    refused(tmp_path, data, "it has 48000 samples", "too_short", span=(40000, 60000))


def test_what_is_too_long_is_refused_before_it_is_decoded(tmp_path):
    settings = ReadSettings(max_duration_s=2.5)
    for data in (encoded("ipod", "aac"), made("amr", "libopencore_amrnb", 8000)):
        refused(tmp_path, data, "it lasts 3 s, at most 2.5 s", "too_long", settings)
    live = encoded("ipod", "aac", movflags="frag_keyframe+empty_moov")
    refused(tmp_path, live, "it lasts longer, at most 2.5 s", "too_long", settings)


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_what_was_recorded_without_a_length_is_read_to_its_end(tmp_path, container):
    if container == "mp4":
        data = encoded("mp4", "aac", movflags="frag_keyframe+empty_moov")
    else:  # as a browser records: the duration is not written
        data = encoded("webm", "libopus", 48000).replace(b"\x44\x89\x88", b"\xec\x89\x00", 1)
    got = read(tmp_path, data)
    assert NO_LENGTH in got.changes
    assert got.duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(("container", "codec", "rate", "encoding"), FORMATS)
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.98])
def test_what_is_cut_off_is_damaged(tmp_path, container, codec, rate, encoding, keep):
    data = made(container, codec, rate)
    data = data[: round(len(data) * keep)]
    if container == "amr":  # nothing states its length
        assert read(tmp_path, data).duration_s == pytest.approx(3 * keep, abs=0.05)
    else:
        refused(tmp_path, data, "cut off|states .* are there|breaks off")


def test_amr_that_breaks_off_is_read_with_a_note(tmp_path):
    data = made("amr", "libopencore_amrnb", 8000)
    assert read(tmp_path, data[:-3]).changes[0] == NO_END


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.amr"])
def test_an_empty_file_is_empty(tmp_path, name):
    with pytest.raises(AudioError, match="0 bytes") as caught:
        read_audio(write(tmp_path, b"", name))
    assert caught.value.code == "empty"


@pytest.mark.parametrize("data", [b"#!AMR\n", b"#!AMR-WB\n"])
def test_a_header_alone_holds_no_sound(tmp_path, data):
    refused(tmp_path, data, "0 samples|cannot be opened", "empty")


@pytest.mark.parametrize("container", ["ipod", "mov", "matroska"])
def test_of_two_tracks_none_is_judged_alone(tmp_path, container):
    codec = "aac" if container == "ipod" else "alac"
    data = encoded(container, codec, tracks=2)
    refused(tmp_path, data, f"2 streams of audio, so that {DISAGREE}")


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_picture_without_sound_is_no_audio(tmp_path, container):
    refused(tmp_path, encoded(container, None), "it holds no sound", "not_audio")


def test_another_codec_is_named(tmp_path):
    data = encoded("mp4", "ac3", 48000, samples=chirp(rate=48000))
    refused(tmp_path, data, "its sound is encoded as .*, which is not decoded here", "not_audio")


@pytest.mark.parametrize("first", ["ipod", "webm", "amr"])
def test_two_recordings_in_one_file_are_damaged(tmp_path, first):
    codec, rate = {"ipod": ("aac", 16000), "webm": ("libopus", 48000)}.get(
        first, ("libopencore_amrnb", 8000)
    )
    refused(tmp_path, made(first, codec, rate) * 2, DISAGREE)


# --- tables that lie ---


def test_a_duration_that_contradicts_the_table_is_damaged(tmp_path):
    data = encoded("ipod", "aac")
    for seconds in (1, 9):
        lie = replaced(data, b"mdhd", 16, u32(16000 * seconds))
        refused(tmp_path, lie, f"its header states {seconds}.00 s, its tables 3")


@pytest.mark.parametrize(("factor", "match"), [(0.3, DISAGREE), (3.0, "only .* could be decoded")])
def test_a_duration_in_matroska_that_is_not_that_of_the_sound_is_damaged(tmp_path, factor, match):
    stated = struct.pack(">d", 3000 * factor)
    lie = replaced(encoded("webm", "libopus", 48000), b"\x44\x89\x88", 0, stated)
    refused(tmp_path, lie, match)


def test_tables_that_count_differently_are_damaged(tmp_path):
    data = encoded("ipod", "alac")
    refused(tmp_path, replaced(data, b"stsz", 8, u32(3)), "its tables state 3 and 12 samples")


def test_an_edit_list_that_hides_words_is_damaged(tmp_path):
    data = encoded("ipod", "aac")
    second = replaced(data, b"elst", 8, u32(1000))
    refused(tmp_path, second, r"its edit list plays 1\.00 s in 1 parts of the 3\.0. s")
    late = replaced(data, b"elst", 12, u32(32000))
    refused(tmp_path, late, "its edit list plays 1")


def test_sound_in_another_file_is_not_followed(tmp_path):
    elsewhere = replaced(encoded("ipod", "aac"), b"url ", 3, b"\0")
    refused(tmp_path, elsewhere, "it refers to another file")


def test_encrypted_sound_is_called_that(tmp_path):
    data = encoded("ipod", "aac")
    refused(tmp_path, data.replace(b"mp4a", b"enca", 1), "its sound is encrypted", "not_audio")


def test_time_stamps_that_jump_are_damaged(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as made:
        stream = made.add_stream("flac", rate=16000, layout="mono")
        for number, place in enumerate((0, 16000, 64000)):
            block = np.ascontiguousarray(chirp(1.0).T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = place if number else 0
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    refused(tmp_path, file.getvalue(), "its time stamps jump from 2.* to 4")


@pytest.mark.parametrize(
    ("box", "offset", "new"),
    [
        (b"stsz", 4, u32(1) + u32(0xFFFFFFFF)),
        (b"stts", 4, u32(0xFFFFFFFF)),
        (b"mdat", -8, u32(0x7FFFFFFF)),
        (b"moov", -8, u32(7)),
        (b"elst", 4, u32(0xFFFFFFFF)),
    ],
)
def test_a_gigabyte_claimed_in_a_kilobyte_is_one_error(tmp_path, box, offset, new):
    data = replaced(encoded("ipod", "aac"), box, offset, new)
    tracemalloc.start()
    try:
        refused(tmp_path, data, "states? ")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_changed_bytes_are_read_or_refused(tmp_path):
    draw = random.Random(0)
    files = [made(*one[:3], samples=chirp(0.6, one[2])) for one in FORMATS]
    for _ in range(150):
        data = bytearray(draw.choice(files))
        for _ in range(draw.randint(1, 5)):
            place = draw.choice([draw.randrange(len(data)), draw.randrange(200)])
            data[place] = draw.choice([0, 0x7F, 0xFF, draw.randrange(256)])
        try:
            seconds = read(tmp_path, bytes(data)).duration_s
        except AudioError:
            continue
        assert 0.5 <= seconds < 5


# --- without the extra ---


@pytest.mark.parametrize(
    ("head", "name", "remedy"),
    [
        (b"\0\0\0\x20ftypM4A \0\0", "MPEG-4 audio", "ffmpeg -i IN.m4a OUT.flac"),
        (b"\0\0\0\x20ftyp3gp4\0\0", "3GP", "ffmpeg -i IN.3gp OUT.flac"),
        (b"\0\0\0\x20ftypisom\0\0", "MPEG-4", "ffmpeg -i IN.mp4 OUT.flac"),
        (b"\x1aE\xdf\xa3\x93B\x82\x84webm", "WebM", "ffmpeg -i IN.webm OUT.flac"),
        (b"\x1aE\xdf\xa3\x93B\x82\x88matroska", "Matroska", "ffmpeg -i IN.mka OUT.flac"),
        (b"#!AMR\n", "AMR", "ffmpeg -i IN.amr OUT.flac"),
    ],
)
def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch, head, name, remedy):
    monkeypatch.setitem(sys.modules, "av", None)
    match = rf"it is {name}, which needs PyAV, .* pip install '\.\[formats\]'; or .*{remedy}"
    refused(tmp_path, head + bytes(600), match, "not_audio")


def test_other_formats_do_not_load_pyav(write_sound):
    code = (
        "import sys; from nip_audio.audio.io import read_audio\n"
        f"read_audio({str(write_sound('a.flac'))!r}); assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
