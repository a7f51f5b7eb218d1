from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.audio.io import ReadSettings, read_audio, write_audio
from nip_audio.errors import AudioError, InputError, OutputError


def refused(path, code, match=None, settings=None, **options):
    """Read, expect the refusal, and check the promised parts of its text."""
    with pytest.raises(AudioError, match=match) as caught:
        read_audio(path, settings, **options)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert caught.value.found in str(caught.value)
    assert caught.value.remedy in str(caught.value)


@pytest.mark.parametrize(
    ("name", "subtype", "encoding", "tolerance"),
    [
        ("a.wav", "PCM_U8", "WAV/PCM_U8", 1 / 128),
        ("a.wav", "PCM_16", "WAV/PCM_16", 1 / 32768),
        ("a.wav", "PCM_24", "WAV/PCM_24", 1e-6),
        ("a.wav", "PCM_32", "WAV/PCM_32", 1e-6),
        ("a.wav", "FLOAT", "WAV/FLOAT", 0.0),
        ("a.wav", "DOUBLE", "WAV/DOUBLE", 0.0),
        ("a.flac", "PCM_16", "FLAC/PCM_16", 1 / 32768),
        ("a.ogg", "VORBIS", "OGG/VORBIS", 0.02),
        ("a.mp3", "MPEG_LAYER_III", "MP3/MPEG_LAYER_III", 0.1),
        ("a.aiff", "PCM_16", "AIFF/PCM_16", 1 / 32768),
    ],
)
def test_formats(write_sound, tone, name, subtype, encoding, tolerance):
    path = write_sound(name, subtype=subtype)
    got = read_audio(path)
    assert got.encoding == encoding
    assert (got.samples.shape, got.samples.dtype) == ((16000,), torch.float32)
    # lossy codecs differ at the edges; the middle half tells whether it is the same sound
    error = np.abs(got.samples.numpy() - tone())[4000:12000].max()
    assert error <= tolerance
    assert (got.sample_rate_hz, got.source_rate_hz, got.source_channels) == (16000, 16000, 1)
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert got.changes == ()
    assert got.duration_s == 1.0


@pytest.mark.parametrize("rate_hz", [8000, 11025, 44100, 48000])
def test_other_rates_are_resampled_and_recorded(write_sound, tone, rate_hz):
    got = read_audio(write_sound(rate_hz=rate_hz))
    assert got.changes == (f"resampled from {rate_hz} Hz",)
    assert (got.source_rate_hz, got.sample_rate_hz) == (rate_hz, 16000)
    assert got.samples.shape == (16000,)
    spectrum = torch.fft.rfft(got.samples).abs()
    assert spectrum.argmax() == 440


def test_resampling_can_be_refused(write_sound):
    settings = ReadSettings(resample=False)
    match = "sample rate is 44100 Hz, this model expects 16000 Hz; allow resampling"
    refused(write_sound(rate_hz=44100), "sample_rate", match, settings)
    assert read_audio(write_sound(), settings).changes == ()


@pytest.mark.parametrize(
    ("options", "expected", "change"),
    [
        ({}, 0.75, "2 channels averaged, which differ"),
        ({"downmix": "first"}, 1.0, "2 channels reduced to the first"),
        ({"channel": 2}, 0.5, "channel 2 of 2 taken"),
        ({"channel": 1, "downmix": "error"}, 1.0, "channel 1 of 2 taken"),
    ],
)
def test_stereo_is_made_mono_and_recorded(write_sound, tone, options, expected, change):
    stereo = np.stack([tone(), 0.5 * tone()], axis=1)
    got = read_audio(write_sound(samples=stereo, subtype="FLOAT"), ReadSettings(**options))
    np.testing.assert_allclose(got.samples, expected * tone(), atol=1e-7)
    assert (got.source_channels, got.changes) == (2, (change,))


def test_stereo_can_be_refused(write_sound, tone):
    stereo = np.stack([tone(), tone()], axis=1)
    settings = ReadSettings(downmix="error")
    refused(write_sound(samples=stereo), "channels", "it has 2 channels, expected 1", settings)


@pytest.mark.parametrize("share", [-1.0, -0.93, -0.5])
def test_of_channels_that_cancel_each_other_the_loudest_is_taken(write_sound, tone, share):
    stereo = np.stack([share * tone(), tone()], axis=1)
    got = read_audio(write_sound(samples=stereo, subtype="FLOAT"))
    np.testing.assert_array_equal(got.samples, tone() if share > -1 else -tone())
    number = 2 if share > -1 else 1
    assert got.changes == (f"channel {number} of 2 taken: the channels cancel each other",)
    assert [one.number for one in got.channels] == [1, 2]


def test_channels_that_have_nothing_to_do_with_each_other_do_not_cancel(write_sound, voice):
    two = np.stack([voice(1, 0), voice(4, 0)], axis=1)
    got = read_audio(write_sound(samples=two, subtype="FLOAT"))
    np.testing.assert_allclose(got.samples, two.mean(axis=1), atol=1e-7)
    assert got.changes == ("2 channels averaged, which differ",)


@pytest.mark.parametrize("hiss", [0.0, 0.001])
def test_silent_channels_do_not_lower_the_level_of_the_others(write_sound, voice, hiss):
    rng = np.random.default_rng(0)
    eight = hiss * rng.standard_normal((16000, 8)).astype(np.float32)
    eight[:, 4] = voice(1, 0)
    got = read_audio(write_sound(samples=eight, subtype="FLOAT"))
    np.testing.assert_array_equal(got.samples, eight[:, 4])
    assert got.changes == ("channel 5 of 8 taken: the others are silent",)
    assert got.channels == ()
    eight[:, 1] = voice(4, 0)
    got = read_audio(write_sound(samples=eight, subtype="FLOAT"))
    np.testing.assert_allclose(got.samples, eight[:, [1, 4]].mean(axis=1), atol=1e-7)
    how = "2 of 8 channels averaged, which differ: the others are silent"
    assert got.changes == (how,)
    assert [one.number for one in got.channels] == [2, 5]


def test_a_faint_voice_beside_a_loud_one_is_not_silent(write_sound, voice):
    two = np.stack([voice(1, 0), 0.01 * voice(4, 0)], axis=1)
    got = read_audio(write_sound(samples=two, subtype="FLOAT"))
    assert [one.number for one in got.channels] == [1, 2]


@pytest.mark.parametrize("number", [3, 9])
def test_a_channel_that_is_not_there_is_an_error(write_sound, tone, number):
    stereo = write_sound(samples=np.stack([tone(), tone()], axis=1))
    refused(
        stereo,
        "channels",
        f"channel {number} was asked for, and it has 2; choose one from 1 to 2",
        ReadSettings(channel=number),
    )


def test_a_clipped_channel_is_named_and_the_other_can_be_read(write_sound, tone):
    clipped = (20 * tone()).clip(-0.7, 0.7)
    stereo = write_sound(samples=np.stack([tone(), clipped], axis=1))
    refused(stereo, "clipped", "of the samples of channel 2 are cut off .*--channel")
    got = read_audio(stereo, ReadSettings(channel=1))
    assert (got.clipped_share, got.changes) == (0.0, ("channel 1 of 2 taken",))
    refused(stereo, "clipped", "of its samples are cut off", ReadSettings(channel=2))


def test_stereo_at_another_rate_records_both_changes(write_sound, tone):
    wave = tone(rate_hz=8000)
    got = read_audio(write_sound(samples=np.stack([wave, wave], axis=1), rate_hz=8000))
    assert got.changes == ("2 channels averaged", "resampled from 8000 Hz")


def test_span_reads_just_that(write_sound, tone):
    got = read_audio(write_sound(subtype="FLOAT"), span=(2000, 12000))
    np.testing.assert_array_equal(got.samples, tone()[2000:12000])
    whole = read_audio(write_sound(subtype="FLOAT"), span=(0, 16000))
    np.testing.assert_array_equal(whole.samples, tone())


@pytest.mark.parametrize("stop", [16001, 16160])
def test_a_span_that_rounding_made_too_long_ends_with_the_file(write_sound, stop):
    assert read_audio(write_sound(), span=(8000, stop)).samples.shape == (8000,)


@pytest.mark.parametrize("span", [(0, 16161), (5, 5), (9, 3), (-1, 9000)])
def test_span_outside_the_file_is_an_error(write_sound, span):
    refused(
        write_sound(), "too_short", "it has 16000 samples, the manifest asks for samples", span=span
    )


def test_span_longer_than_allowed_is_an_error_and_a_short_one_of_a_long_file_is_not(write_sound):
    settings = ReadSettings(max_duration_s=0.6)
    refused(write_sound(), "too_long", settings=settings, span=(0, 16000))
    assert read_audio(write_sound(), settings, span=(0, 9000)).samples.shape == (9000,)


def test_missing(tmp_path):
    refused(tmp_path / "none.wav", "missing", "it does not exist")


def test_broken_link(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "none")
    refused(tmp_path / "a.wav", "missing", "it is a broken link")


def test_link_to_a_file_is_read(write_sound, tmp_path):
    (tmp_path / "link.wav").symlink_to(write_sound())
    assert read_audio(tmp_path / "link.wav").samples.shape == (16000,)


def test_link_loop(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    refused(tmp_path / "a.wav", "unreadable", "cannot be read .*symbolic links")


def test_folder_named_like_audio(tmp_path):
    (tmp_path / "x.wav").mkdir()
    refused(tmp_path / "x.wav", "not_a_file", "it is a folder")


def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    refused(tmp_path / "x.wav", "not_a_file", "a device, pipe or socket")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(write_sound):
    path = write_sound()
    path.chmod(0)
    refused(path, "unreadable", "Permission denied")


def test_unreadable_by_whatever_cause(write_sound, monkeypatch):
    path = write_sound()

    def fail(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", fail)
    refused(path, "unreadable", "Permission denied.*check its permissions")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"hello, this is text\n" * 50, "not_audio"),
        (b"RIFF", "not_audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "not_audio"),
        (b"ID3" + bytes(600), "not_audio"),
        (b"OggS" + bytes(600), "not_audio"),
        (b"\x00" * 1000, "not_audio"),
    ],
)
def test_what_is_no_audio(tmp_path, data, code):
    (tmp_path / "x.wav").write_bytes(data)
    refused(tmp_path / "x.wav", code)


@pytest.mark.parametrize("keep", [20, 40])
def test_truncated_header(write_sound, keep):
    path = write_sound()
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "not_audio")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_picture_is_called_one(tmp_path, start):
    path = tmp_path / "a.png"
    path.write_bytes(start + bytes(600))
    with pytest.raises(
        AudioError, match="it is an image, which is not decoded here; choose an image model"
    ):
        read_audio(path)


def test_header_alone(write_sound):
    path = write_sound()
    path.write_bytes(path.read_bytes()[:44])
    refused(path, "empty", "holds 0 samples")


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_truncated_compressed_audio_is_damaged(write_sound, capfd, name):
    path = write_sound(name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    refused(path, "damaged")


def test_flac_overwritten_in_the_middle_is_damaged(write_sound):
    path = write_sound("a.flac")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    refused(path, "damaged", "it is audio, but decoding fails")


@pytest.mark.parametrize(
    ("name", "container", "encoding"),
    [
        ("a.wav", "FLAC", "FLAC/PCM_16"),
        ("a.mp3", "WAV", "WAV/PCM_16"),
        ("noending", "WAV", "WAV/PCM_16"),
        ("a.txt", "OGG", "OGG/VORBIS"),
        ("a.raw", "WAV", "WAV/PCM_16"),  # soundfile would want to be told everything about a raw
    ],
)
def test_content_not_name_tells_the_format(write_sound, name, container, encoding):
    assert read_audio(write_sound(name, container=container)).encoding == encoding


def test_text_named_raw_is_no_audio(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"hello")
    refused(tmp_path / "a.raw", "not_audio", "format not recognised")


@pytest.mark.parametrize("name", ["ünï çödé 声.wav", "line\nbreak.wav", "-rf *.wav", "%s{0}.wav"])
def test_odd_names(write_sound, name):
    assert read_audio(write_sound(name, container="WAV")).samples.shape == (16000,)


@pytest.mark.parametrize(
    ("samples", "code", "match"),
    [
        (np.zeros(0), "empty", "holds 0 samples"),
        (np.full(160, 0.1), "too_short", "it lasts 10 ms, at least 500 ms are needed"),
        (np.full(7999, 0.1), "too_short", "500 ms"),
        (np.zeros(16000), "silent", "silent or constant"),
        (np.full(16000, 0.25), "silent", "silent or constant .* at least 0.0001"),
        (np.full(16000, 1e-5), "silent", "silent"),
        (np.r_[np.full(15999, 0.1), np.nan], "not_finite", "1 of its samples are NaN or infinite"),
        (np.r_[np.full(15999, 0.1), np.inf], "not_finite", "infinite"),
        (np.sign(np.sin(np.arange(16000))), "clipped", "100% of its samples are cut off"),
    ],
    ids=["0", "10ms", "499ms", "silence", "dc", "quiet", "nan", "inf", "clipped"],
)
def test_useless_samples(write_sound, samples, code, match):
    refused(write_sound(samples=samples.astype(np.float32), subtype="FLOAT"), code, match)


def test_half_a_second_is_long_enough_and_a_little_clipping_is_counted(write_sound, tone):
    wave = tone(0.5)
    wave[:80] = np.repeat([1.0, -1.0], 40)
    got = read_audio(write_sound(samples=wave, subtype="FLOAT"))
    assert got.clipped_share == pytest.approx(0.01)
    assert got.changes == ()


@pytest.mark.parametrize("at_s", [0.0, 1.2, 2.7])
def test_a_little_speech_in_much_silence_is_an_error(write_sound, voice, at_s):
    samples = np.zeros(48000, np.float32)
    samples[round(16000 * at_s) :][:4800] = voice(0, 0)[:4800]
    path = write_sound(samples=samples)
    refused(path, "too_little_sound", r"it holds 0\.3 s of sound in 3\.0 s, .* 0\.5 s")
    for settings in (ReadSettings(min_sound_s=0.2), ReadSettings(min_duration_s=0.2)):
        assert read_audio(path, settings).sound_s == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("room", [0.0, 3e-3])
@pytest.mark.parametrize("pause_s", [0.1, 0.25, 0.5, 2.0])
def test_short_clips_with_pauses_are_read_as_they_are(write_sound, voice, pause_s, room):
    pause = np.zeros(round(16000 * pause_s), np.float32)
    said = voice(0, 0)[:9600]
    samples = np.concatenate([said[:4800], pause, said[4800:], pause])
    samples = samples + room * np.random.default_rng(0).standard_normal(len(samples))
    audio = read_audio(write_sound(samples=samples.astype(np.float32)))
    assert audio.duration_s == pytest.approx(0.6 + 2 * pause_s)
    assert audio.sound_s > 0.55
    left_out = ["silence left out of the voice" in change for change in audio.changes]
    assert left_out == ([True] if pause_s >= 0.5 and not room else [])


def test_samples_beyond_full_scale_are_cut_and_recorded(write_sound, tone):
    wave = tone()
    wave[100:103] = (3.0, -2.0, 1.0)
    got = read_audio(write_sound(samples=wave, subtype="FLOAT"))
    assert got.samples[100:103].tolist() == [1.0, -1.0, 1.0]
    assert got.changes == ("2 samples beyond full scale clipped",)


def test_too_long_is_told_without_decoding(write_sound, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    settings = ReadSettings(max_duration_s=0.9)
    refused(write_sound(), "too_long", r"it lasts 1 s, at most 0.9 s are allowed", settings)


def test_lying_header_cannot_make_it_decode_more_than_allowed(write_sound):
    path = write_sound()
    data = bytearray(path.read_bytes())
    data[40:44] = (0x7FFFFFF0).to_bytes(4, "little")  # promises 18 hours
    path.write_bytes(data)
    assert read_audio(path).samples.shape == (16000,)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sample_rate_hz": 0}, "sample rate is 0 Hz"),
        ({"min_duration_s": 0.0}, "0 < shortest < longest"),
        ({"min_duration_s": 3.0, "max_duration_s": 2.0}, "durations are 3.0–2.0 s"),
        ({"downmix": "left"}, "downmix is 'left', expected mean, first or error"),
    ],
)
def test_senseless_settings_are_errors(options, match):
    with pytest.raises(InputError, match=match):
        replace(ReadSettings(), **options)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_written_audio_comes_back_within_half_a_level(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    samples = torch.rand(16000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    samples[:3] = torch.tensor([-1.0, 0.0, 32767 / 32768])
    write_audio(path, samples, 16000)
    got = read_audio(path)
    assert (got.samples - samples).abs().max() <= 0.5 / 32768
    assert got.encoding.endswith("/PCM_16")
    write_audio(tmp_path / f"b{suffix}", got.samples, 16000)
    assert (tmp_path / f"b{suffix}").read_bytes() == path.read_bytes()


def test_a_path_may_be_text(tmp_path):
    write_audio(f"{tmp_path}/a.wav", torch.rand(8000) - 0.5, 16000)
    assert read_audio(f"{tmp_path}/a.wav").samples.shape == (8000,)


def test_plus_one_becomes_the_highest_level(tmp_path):
    write_audio(tmp_path / "a.wav", torch.cat([torch.ones(1), torch.rand(8000) - 0.5]), 16000)
    assert read_audio(tmp_path / "a.wav").samples[0].item() == 32767 / 32768


def test_float64_that_requires_grad_can_be_written(tmp_path):
    samples = torch.rand(8000, dtype=torch.float64, requires_grad=True)
    write_audio(tmp_path / "a.wav", samples, 16000)
    assert soundfile.info(tmp_path / "a.wav").frames == 8000


def test_written_audio_overwrites_only_when_told(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already; pass `force=True`"):
        write_audio(path, torch.zeros(10), 16000)
    assert path.read_bytes() == b"mine"
    write_audio(path, torch.zeros(10), 16000, force=True)
    assert soundfile.info(path).frames == 10


@pytest.mark.parametrize(
    ("name", "samples", "match"),
    [
        ("a.mp3", torch.zeros(10), r"a.mp3 ends in '.mp3', expected .wav or .flac"),
        ("a.wav", torch.zeros(1, 10), "expected finite floating"),
        ("a.wav", torch.zeros(0), "expected finite floating"),
        ("a.wav", torch.zeros(10, dtype=torch.int16), "expected finite floating"),
        ("a.wav", torch.tensor([0.0, float("nan")]), "expected finite floating"),
        ("a.wav", torch.tensor([0.0, -1.01]), r"samples reach 1.010, expected \[-1, 1\]"),
    ],
)
def test_unwritable_samples_are_errors_and_leave_no_file(tmp_path, name, samples, match):
    with pytest.raises(InputError, match=match):
        write_audio(tmp_path / name, samples, 16000)
    assert list(tmp_path.iterdir()) == []


# --- channels ---


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_channels_that_differ_are_kept_beside_their_mean(write_sound, tone, rate_hz):
    long = tone(rate_hz=rate_hz, duration_s=12.0)  # several blocks
    late = long.copy()
    late[-rate_hz:] *= 0.5  # they are equal for eleven seconds
    stereo = np.stack([long, late], axis=1)
    got = read_audio(write_sound(samples=stereo, rate_hz=rate_hz, subtype="FLOAT"))
    assert [channel.number for channel in got.channels] == [1, 2]
    for samples, channel in zip((long, late), got.channels, strict=True):
        alone = read_audio(write_sound(samples=samples, rate_hz=rate_hz, subtype="FLOAT"))
        assert channel.samples.dtype == torch.float32
        np.testing.assert_array_equal(channel.samples, alone.samples)
    mean = read_audio(write_sound(samples=stereo.mean(axis=1), rate_hz=rate_hz, subtype="FLOAT"))
    np.testing.assert_array_equal(got.samples, mean.samples)
    assert got.content_sha256 == mean.content_sha256


def test_channels_that_are_equal_silent_or_not_averaged_are_not_kept(write_sound, tone):
    one, none = tone(), np.zeros_like(tone())
    assert read_audio(write_sound()).channels == ()
    equal = write_sound(samples=np.stack([one, one], axis=1), rate_hz=16000)
    assert read_audio(equal).channels == ()
    half = write_sound(samples=np.stack([none, one], axis=1), subtype="FLOAT")
    got = read_audio(half)
    assert got.channels == ()
    np.testing.assert_array_equal(got.samples, one)
    refused(half, "silent", settings=ReadSettings(downmix="first"))
    loud = write_sound(samples=np.stack([one, none], axis=1), subtype="FLOAT")
    assert read_audio(loud, ReadSettings(downmix="first")).channels == ()


def test_of_many_channels_the_first_eight_are_kept(write_sound, tone):
    many = np.stack([tone() * (1 - 0.05 * i) for i in range(12)], axis=1)
    got = read_audio(write_sound(samples=many, subtype="FLOAT"))
    assert [channel.number for channel in got.channels] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert got.changes == (
        "12 channels averaged, which differ",
        "only the first 8 channels kept beside their mean",
    )
    np.testing.assert_array_equal(got.channels[7].samples, many[:, 7])
    assert got.channels_left_out == 4
