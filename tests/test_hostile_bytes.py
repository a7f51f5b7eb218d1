"""Whatever bytes a stranger gives: something whole comes of them, or an error of ours.

A few hundred inputs of each kind; benchmarks/fuzz.py gives as many as one has time for.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.audio.manifest import read_recordings
from nip_audio.errors import AudioError, NipAudioError, ResumeError, StateError
from nip_audio.models.cards import read_card
from nip_audio.models.enrolment import Enrolment
from nip_audio.screening.journal import Journal, from_line, to_line
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.records import Finding, ScreenRecord, SpeakerRecord

# one folder for all examples is what is wanted: each writes its own file anew
FEW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sound(container: str, subtype: str, seconds: float = 0.6) -> bytes:
    rng = np.random.default_rng(0)
    steps = np.arange(int(16000 * seconds))
    wave = 0.3 * np.sin(steps / 9) + 0.01 * rng.standard_normal(len(steps))
    file = io.BytesIO()
    soundfile.write(file, wave, 16000, subtype, format=container)
    return file.getvalue()


SOUNDS = {
    "wav": sound("WAV", "PCM_16"),
    "flac": sound("FLAC", "PCM_16"),
    "ogg": sound("OGG", "VORBIS"),
    "mp3": sound("MP3", "MPEG_LAYER_III"),
    "aiff": sound("AIFF", "PCM_16"),
    "au": sound("AU", "PCM_16"),
    "caf": sound("CAF", "PCM_16"),
    "w64": sound("W64", "PCM_16"),
    "rf64": sound("RF64", "PCM_16"),
    "nist": sound("NIST", "PCM_16"),
    "opus": sound("OGG", "OPUS"),
    "adpcm": sound("WAV", "MS_ADPCM"),
    "gsm": sound("WAV", "GSM610"),
    "aifc": sound("AIFF", "ULAW"),
    "alac": sound("CAF", "ALAC_16"),
    "mp3 without header": sound("MP3", "MPEG_LAYER_III")[288:],
}
SIZES = st.builds(
    lambda value, bytes_, order: (value % (1 << 8 * bytes_)).to_bytes(bytes_, order),
    st.sampled_from([0, 1, 40, 9600, 19200, 0x7F000008, 2**31 - 1, 2**32 - 1, 2**63, -1]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(["little", "big"]),
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from([b"\0", b"\x7f\xff", b"\x01"]) | SIZES),
    min_size=1,
    max_size=3,
)


@settings(FEW, max_examples=500)
@given(st.sampled_from(sorted(SOUNDS)), CHANGES, st.integers(0, 20000))
def test_headers_that_lie_are_read_or_refused(tmp_path, kind, changes, length):
    data = bytearray(SOUNDS[kind])
    for place, patch in changes:
        data[place : place + len(patch)] = patch
    (tmp_path / "a").write_bytes(data[: max(length, 30)])
    try:
        audio = read_audio(tmp_path / "a")
    except AudioError:
        return
    assert bool(audio.samples.isfinite().all())
    assert float(audio.samples.abs().max()) <= 1.0
    assert 0.4 < audio.duration_s <= 120.0


@pytest.mark.parametrize("first", sorted(SOUNDS))
def test_of_two_files_in_one_no_half_is_heard_alone(tmp_path, first):
    """Whatever the second is, and whatever noise is between them."""
    for second in sorted(SOUNDS):
        for between in (b"", bytes(300), bytes(range(256)) * 10):
            (tmp_path / "a").write_bytes(SOUNDS[first] + between + SOUNDS[second])
            try:
                audio = read_audio(tmp_path / "a")
            except AudioError:
                continue
            assert audio.duration_s > 1.1, second


MANIFESTS = {
    "csv": b"ID,wav,spk_id,start,stop\nu,a.wav,ann,0,9\nv,$data_root/b.wav,,,\n",
    "json": b'{"u": {"wav": "a.wav", "spk_id": "ann", "start": 1, "stop": 9}}',
    "jsonl": b'{"path": "a.wav", "speaker": "ann", "id": "u", "start_s": 0.5, "end_s": 2}\n',
}
TOKENS = st.sampled_from(
    [b"../", b"/etc/", b"null", b"1e999", b"NaN", b'"', b"\n", b",", b"{", b"[", b"\xff", b"\0"]
)


@FEW
@given(st.sampled_from(sorted(MANIFESTS)), st.integers(0, 80), TOKENS, st.integers(0, 5))
def test_manifests_are_read_or_refused_and_lead_nowhere_else(tmp_path, kind, place, token, cut):
    data = MANIFESTS[kind]
    path = tmp_path / f"m.{kind}"
    path.write_bytes(data[:place] + token + data[place + cut :])
    try:
        recordings = read_recordings(path, data_root=tmp_path / "data")
    except NipAudioError:
        return
    assert recordings
    assert all(Path(recording.path).is_relative_to(tmp_path) for recording in recordings)


def files(screener, folder) -> list[MeasuredFile]:
    from nip_audio.screening.sources import FolderSource

    (folder / "s0/broken.wav").write_text("no audio")
    return [screener.measurer(recording) for recording in list(FolderSource(folder))[:4]]


def test_of_a_torn_journal_only_whole_lines_are_taken(screener, folder, tmp_path):
    lines = [to_line(file) for file in files(screener, folder)]
    whole = b"".join(lines)
    path = tmp_path / "measured.jsonl"
    for size in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        with Journal(path) as journal:
            assert len(journal) == complete
        assert path.read_bytes() == b"".join(lines[:complete])


def test_a_changed_line_is_a_record_of_the_same_form_or_refused(screener, folder):
    for file in files(screener, folder):
        line = to_line(file)
        assert to_line(from_line(line)) == line
        data = json.loads(line.partition(b" ")[2])
        for name in data:
            for strange in (1, "x", [], {}, True, {"code": 1}, [None]):
                if isinstance(strange, str) and name in ("id", "speaker", "stamp"):
                    continue
                with pytest.raises(ResumeError, match="expected a measured file"):
                    from_line(checked(json.dumps({**data, name: strange}).encode()))


def checked(text: bytes) -> bytes:
    """A line as a forger writes it, who knows the checksum."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


@FEW
@given(st.data())
def test_a_changed_record_is_a_record_or_refused(data):
    finding = Finding.of("adversarial", "why")
    line = data.draw(
        st.sampled_from(
            [
                ScreenRecord("a", "b", "adversarial", (finding,), 1.0, sha256="ab").to_line(),
                SpeakerRecord("ann", "clean", 3, 0, 0, (finding,)).to_line(),
            ]
        )
    )
    place = data.draw(st.integers(0, len(line)))
    token = data.draw(st.sampled_from(["", "null", "-1", '"', "{}", "[]", "1e999", ",", "\\ud800"]))
    changed = line[:place] + token + line[place + data.draw(st.integers(0, 6)) :]
    for kind in (ScreenRecord, SpeakerRecord):
        try:
            record = kind.from_line(changed)
        except ResumeError:
            continue
        assert kind.from_line(record.to_line()) is not None


@FEW
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=8))
def test_a_damaged_state_is_refused(tmp_path, place, patch):
    path = tmp_path / "e"
    voices = torch.arange(8.0).reshape(2, 4)
    Enrolment("m", ("ann",), (voices,), {"ann": ["x", "y"]}).save(path, force=True)
    whole = path.read_bytes()
    changed = bytearray(whole)
    place %= len(whole)
    changed[place : place + len(patch)] = patch
    path.write_bytes(changed)
    try:
        again = Enrolment.load(path, model_id="m")
    except StateError:
        return
    assert torch.equal(again.embeddings[0], voices)  # only what changed nothing is let through


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"hyperparams.yaml": 1}},
        {"files": {"hyperparams.yaml": "x", "../x.safetensors": "y"}},
        {"labels": [1]},
        {"default_taps": [None]},
        {"sample_rate_hz": 10**30},
        {"sample_rate_hz": -1},
        {"calibration": {"file": "/etc/passwd", "sha256": "x"}},
    ],
)
def test_a_strange_model_card_is_refused(pretrained, tmp_path, changes):
    card = {**pretrained.card.data, **changes}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(StateError, match=r"has wrong|plain file names"):
        read_card(tmp_path)


# --- headers that promise much: bounded time and memory ---


def wav(*, rate: int = 16000, channels: int = 1, claimed: int = 0x7FFFFFFF) -> bytes:
    size = 2 * channels
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", claimed, b"WAVE", b"fmt ", 16, 1, channels,
                       rate, (rate * size) % 2**32, size % 2**16, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", claimed) + bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (wav(claimed=1 << 30), "damaged"),
        (wav(), "too_short"),
        (wav(rate=2**31 - 1), "sample_rate"),
        (wav(rate=1), "sample_rate"),
        (wav(rate=48000, channels=1000), "channels"),
        (SOUNDS["aiff"].replace(struct.pack(">I", 9600), struct.pack(">I", 2**30))[:1000], None),
        (SOUNDS["au"][:8] + b"\x7f\xff\xff\xff" + SOUNDS["au"][12:1000], None),
        (SOUNDS["flac"][:21] + b"\x0f\xff\xff\xff\xff" + SOUNDS["flac"][26:], None),
    ],
)
def test_a_gigabyte_claimed_in_a_kilobyte(tmp_path, data, code):
    import tracemalloc

    (tmp_path / "a").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError) as err:
            read_audio(tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert code in (None, err.value.code)
    assert peak < 20e6


def test_what_decodes_to_hours_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("nip_audio.audio._decoding._blocks", lambda *_: pytest.fail("decoded"))
    silence = np.zeros(16000, np.float32)
    for container, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        path = tmp_path / "bomb"
        with soundfile.SoundFile(path, "w", 16000, 1, subtype, format=container) as file:
            for _ in range(300):
                file.write(silence)
        with pytest.raises(AudioError, match="lasts 300 s, at most 120 s are allowed"):
            read_audio(path)


def test_many_channels_are_averaged_as_they_come(tmp_path):
    import tracemalloc

    with soundfile.SoundFile(tmp_path / "a", "w", 16000, 64, "PCM_16", format="WAV") as file:
        for second in range(20):
            wave = np.sin(np.arange(16000) / 5)[:, None] * np.ones(64)
            file.write((0.01 * (second + 1) * wave).astype(np.float32))
    tracemalloc.start()
    audio = read_audio(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert audio.duration_s == 20
    assert peak < 16000 * 64 * 20 * 4 / 4  # all channels at once would be four times that


def test_a_huge_file_is_not_even_hashed(tmp_path):
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(AudioError, match="at most 4294967296 are allowed; split it") as err:
        read_audio(tmp_path / "a.wav")
    assert err.value.code == "too_large"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_archives_are_not_looked_into(tmp_path, name):
    import tarfile
    import zipfile

    (tmp_path / "x.wav").write_bytes(SOUNDS["wav"])
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(tmp_path / "x.wav")
    else:
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(tmp_path / "x.wav")
    with pytest.raises(AudioError, match="archive, which is not decoded here; unpack it") as err:
        read_audio(tmp_path / name)
    assert err.value.code == "not_audio"


def test_a_file_name_that_is_none(tmp_path):
    with pytest.raises(AudioError, match="it is not a valid file name"):
        read_audio(tmp_path / "a\0b.wav", ReadSettings())
