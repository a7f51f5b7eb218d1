"""What the recipe knows of VCTK: its layouts, its two microphones, its table of speakers."""

from __future__ import annotations

import io
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio import read_audio
from nip_audio.audio.corpus import ROLES
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.errors import InputError
from nip_audio.training import corpora

# rows of speaker-info.txt as they are, blanks and all; s5's is made up
INFO = """\
ID  AGE  GENDER  ACCENTS  REGION COMMENTS 
p225  23  F    English    Southern  England
p226  22  M    English    Surrey
p227  38  M    English    Cumbria
p228  22  F    English    Southern  England
p230  22  F    English    Stockton-on-tees
p234  22  F    Scottish  West  Dumfries
p237  22  M    Scottish  Fife
p248  23  F    Indian  
p251  26  M    Indian  
p280  25  F    Unknown    France (mic2 files unavailable)
p315  18  M    American  New  England (Text and mic2 files unavailable)
s5  24  M    English    Surrey

"""  # noqa: W291
WOMEN = {"p225", "p228", "p230", "p234", "p248", "p280"}
MEN = {"p226", "p227", "p237", "p251", "p315", "s5"}


MIC2 = "wav48_silence_trimmed/*/*_mic2.flac"
FLAT = "./*/*.flac"


@pytest.fixture(scope="module")
def prepare():
    """The corpora here are small: five utterances of a speaker are enough."""
    return partial(corpora.prepare_vctk, min_utterances=5)


@pytest.fixture(scope="module")
def utterance() -> bytes:
    """A FLAC file of 0.1 s at 48 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.full(4800, 0.1), 48000, format="FLAC")
    return file.getvalue()


@pytest.fixture
def corpus(tmp_path, utterance) -> Path:
    """Twelve speakers with five utterances of 0.1 s by two microphones, two of them by one."""
    root = tmp_path / "VCTK-Corpus-0.92"
    for speaker in WOMEN | MEN:
        microphones = ["mic1"] if speaker in ("p280", "p315") else ["mic1", "mic2"]
        write_speaker(root, speaker, utterance, microphones)
    (root / "wav48_silence_trimmed/log.txt").write_text("p315_mic2 is missing")
    (root / "speaker-info.txt").write_text(INFO)
    (root / "txt/p225").mkdir(parents=True)
    (root / "txt/p225/p225_001.txt").write_text("Please call Stella.")
    return root


def write_speaker(root: Path, speaker: str, utterance: bytes, microphones: list[str]) -> None:
    folder = root / "wav48_silence_trimmed" / speaker
    folder.mkdir(parents=True)
    for i in range(1, 6):
        for microphone in microphones:
            (folder / f"{speaker}_{i:03d}_{microphone}.flac").write_bytes(utterance)


def read(folder: Path, corpus: Path) -> dict[str, list[Recording]]:
    return {r: read_recordings(folder / f"{r}.csv", data_root=corpus) for r in ROLES}


@pytest.fixture
def speakers_of(prepare, corpus, tmp_path):
    """Prepare, and say whose voices are in the manifests."""

    def prepare_and_read(**options) -> set[str]:
        prepare(str(corpus), str(tmp_path / "out"), **options)
        return {r.speaker for part in read(tmp_path / "out", corpus).values() for r in part}

    return prepare_and_read


def test_every_utterance_of_one_microphone_is_dealt_once(prepare, corpus, tmp_path):
    prepare(str(corpus), str(tmp_path / "out"))
    dealt = read(tmp_path / "out", corpus)
    for role, count in (("train", 3), ("calibrate", 1), ("test", 1)):
        assert Counter(r.speaker for r in dealt[role]) == dict.fromkeys(WOMEN | MEN, count)
    every = [r for role in ROLES for r in dealt[role]]
    assert sorted(r.path for r in every) == sorted(corpus.rglob("*_mic1.flac"))
    assert {r.span for r in every} == {(0, 4800)}  # at 48 kHz: nothing is resampled here


def test_seed_and_shares_reach_the_deal(prepare, corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(str(corpus), str(tmp_path / name), role_shares=(0.4, 0.4, 0.2), seed=seed)
    a, b, c = (read(tmp_path / name, corpus) for name in "abc")
    assert a == b != c
    assert [len(a[role]) for role in ROLES] == [24, 24, 12]


def test_second_microphone_lacks_two_speakers(speakers_of):
    assert speakers_of(utterances=MIC2) == (WOMEN | MEN) - {"p280", "p315"}


def test_genders_are_read_from_the_table(corpus, tmp_path):
    expected = dict.fromkeys(WOMEN, "F") | dict.fromkeys(MEN, "M")
    assert corpora._read_genders(corpus / "speaker-info.txt") == expected
    assert corpora._read_genders(tmp_path / "none.txt") == {}


@pytest.mark.parametrize(("count", "women"), [(1, 0), (4, 2), (7, 3), (12, 6)])
def test_half_of_the_speakers_drawn_are_women(speakers_of, count, women):
    drawn = speakers_of(n_speakers=count)
    assert (len(drawn), len(drawn & WOMEN)) == (count, women)


@pytest.mark.parametrize(("missing", "women"), [(WOMEN, 1), (MEN, 5)])
def test_too_few_of_one_gender_are_made_up_for(speakers_of, corpus, missing, women):
    for speaker in sorted(missing)[1:]:
        for file in (corpus / "wav48_silence_trimmed" / speaker).iterdir():
            file.unlink()
    drawn = speakers_of(n_speakers=6)
    assert (len(drawn), len(drawn & WOMEN)) == (6, women)


def test_without_the_table_any_speakers_are_drawn(speakers_of, corpus):
    (corpus / "speaker-info.txt").unlink()
    assert len(speakers_of(n_speakers=8)) == 8


def test_draw_follows_the_seed(speakers_of):
    draws = [frozenset(speakers_of(n_speakers=4, seed=seed)) for seed in range(8)]
    assert speakers_of(n_speakers=4, seed=3) == draws[3]
    assert len(set(draws)) > 4


@pytest.mark.parametrize("seed", range(4))
def test_one_more_speaker_displaces_one_at_most_and_deals_no_other_anew(
    prepare, corpus, utterance, tmp_path, seed
):
    prepare(str(corpus), str(tmp_path / "before"), n_speakers=6, seed=seed)
    write_speaker(corpus, "p110", utterance, ["mic1"])
    with (corpus / "speaker-info.txt").open("a") as file:
        file.write("p110  30  F    English    Surrey\n")
    prepare(str(corpus), str(tmp_path / "after"), n_speakers=6, seed=seed)
    before, after = (read(tmp_path / name, corpus) for name in ("before", "after"))
    stayed = {r.speaker for r in before["train"]} & {r.speaker for r in after["train"]}
    assert len(stayed) >= 5
    for role in ROLES:
        unchanged = [r for r in after[role] if r.speaker in stayed]
        assert unchanged == [r for r in before[role] if r.speaker in stayed]


def test_speakers_can_be_named_instead_of_drawn(speakers_of):
    assert speakers_of(speakers=["s5", "p280"], n_speakers=4) == {"s5", "p280"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_speakers": 13}, "asked for 13 of 12 speakers"),
        ({"n_speakers": 11, "utterances": MIC2}, "asked for 11 of 10 speakers"),
        ({"n_speakers": 0}, "asked for 0 of 12 speakers"),
        ({"n_speakers": -1}, "asked for -1 of 12 speakers"),
        ({"speakers": ["p225", "p999", "p000"]}, "p000, p999 of 12 speakers with 5 .*0.92"),
        ({"speakers": ["p280"], "min_utterances": 6}, "p280 of 0 speakers with 6 or more utter"),
        ({"min_utterances": 6}, "asked for all of 0 speakers with 6 or more utterances"),
    ],
)
def test_speakers_that_are_not_there_are_an_error(prepare, corpus, tmp_path, options, match):
    with pytest.raises(InputError, match=match):
        prepare(str(corpus), str(tmp_path / "out"), **options)


def test_a_folder_of_another_layout_is_an_error_that_names_both(prepare, corpus, tmp_path):
    flat = corpus / "wav48_silence_trimmed"
    with pytest.raises(InputError, match=r"no file in .* matches wav48.*'\./\*/\*\.flac'"):
        prepare(str(flat), str(tmp_path / "out"))
    prepare(str(flat), str(tmp_path / "out"), utterances="./*/*_mic1.flac")
    dealt = read(tmp_path / "out", flat)
    every = [r.path for role in ROLES for r in dealt[role]]
    assert sorted(every) == sorted(flat.glob("*/*_mic1.flac"))


@pytest.mark.parametrize("glob", ["*.flac", "", "../*/*.flac", "/tmp/*/*.flac"])
def test_a_glob_without_folders_of_speakers_below_the_root_is_an_error(
    prepare, corpus, tmp_path, glob
):
    with pytest.raises(InputError, match="expected a glob below the data folder that has a folder"):
        prepare(str(corpus), str(tmp_path / "out"), utterances=glob)


def test_a_missing_folder_is_an_error(prepare, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; --data_folder must be"):
        prepare(str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_a_file_that_is_no_audio_is_an_error(prepare, corpus, tmp_path):
    with pytest.raises(InputError, match=r"p225_001.txt cannot be read as audio"):
        prepare(str(corpus), str(tmp_path / "out"), utterances="txt/*/*", min_utterances=1)


def test_speakers_with_too_little_are_left_out_and_the_log_names_them(
    corpus, utterance, tmp_path, caplog
):
    folder = corpus / "wav48_silence_trimmed/p225"
    for i in range(6, 11):
        (folder / f"p225_{i:03d}_mic1.flac").write_bytes(utterance)
    with caplog.at_level("INFO", logger="nip_audio.training.corpora"):
        corpora.prepare_vctk(str(corpus), str(tmp_path / "out"))
    dealt = read(tmp_path / "out", corpus)
    assert {role: Counter(r.speaker for r in dealt[role]) for role in ROLES} == {
        "train": {"p225": 8},
        "calibrate": {"p225": 1},
        "test": {"p225": 1},
    }
    assert "left out, fewer than 10 utterances: p226, p227, p228" in caplog.text


def test_split_file_is_followed_at_48_khz(prepare, corpus, tmp_path):
    split = tmp_path / "split.csv"
    flac = "wav48_silence_trimmed/p225/p225_001_mic2.flac"
    lines = [f"{flac},p225,train,0,0.05", f"{flac},p225,calibrate,0.05,0.075"]
    lines.append(f"{flac},p225,test,0.075,0.1")
    split.write_text("\n".join(["path,speaker,role,start_s,end_s", *lines]))
    prepare(str(corpus), str(tmp_path / "out"), split_file=str(split))
    dealt = read(tmp_path / "out", corpus)
    spans = {role: [(r.path, r.span) for r in dealt[role]] for role in ROLES}
    assert spans == {
        "train": [(corpus / flac, (0, 2400))],
        "calibrate": [(corpus / flac, (2400, 3600))],
        "test": [(corpus / flac, (3600, 4800))],
    }


def test_real_recordings_are_found_and_read_at_16_khz(prepare, vctk_root, tmp_path):
    """Ten speakers with one sentence each: a single file of a speaker is always dealt to train."""
    corpus = vctk_root / "VCTK-mini"
    prepare(str(corpus), str(tmp_path), n_speakers=10, min_utterances=1)
    recordings = read_recordings(tmp_path / "train.csv", data_root=corpus)
    assert sorted(r.path for r in recordings) == sorted(corpus.rglob("*.flac"))
    assert len({r.speaker for r in recordings}) == len(recordings) == 10
    for recording in recordings:
        audio = read_audio(recording.path, span=recording.span)
        assert (audio.source_rate_hz, audio.sample_rate_hz) == (48000, 16000)
        assert 5.0 < audio.duration_s < 20.0
        assert audio.duration_s == pytest.approx(recording.span[1] / 48000, abs=1e-3)
    for role in ("calibrate", "test"):
        with pytest.raises(InputError, match=f"{role}.csv has no rows"):
            read_recordings(tmp_path / f"{role}.csv", data_root=corpus)


def test_real_recordings_at_16_khz_are_dealt_by_sentence(vctk_root, tmp_path):
    corpus = vctk_root / "VCTK-16k"
    corpora.prepare_vctk(str(corpus), str(tmp_path), utterances=FLAT)
    dealt = read(tmp_path, corpus)
    voices = ("p225", "p226", "p227", "p228")
    for role, count in (("train", 8), ("calibrate", 1), ("test", 1)):
        assert Counter(r.speaker for r in dealt[role]) == dict.fromkeys(voices, count)
    every = [r for role in ROLES for r in dealt[role]]
    assert sorted(r.path for r in every) == sorted(corpus.rglob("*.flac"))
    audio = read_audio(every[0].path, span=every[0].span)
    assert (audio.source_rate_hz, audio.sample_rate_hz) == (16000, 16000)
