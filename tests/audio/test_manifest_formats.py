from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nip_audio.audio import manifest_formats
from nip_audio.audio.io import Seconds
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.audio.manifest_formats import entries_of
from nip_audio.errors import InputError
from nip_audio.screening.measure import stamp_of


def cut(**changes: object) -> dict[str, object]:
    """A Lhotse cut as its documentation shows them."""
    recording = {
        "id": "rec",
        "sources": [{"type": "file", "channels": [0], "source": "rec.flac"}],
        "sampling_rate": 16000,
        "num_samples": 64000,
        "duration": 4.0,
        "channel_ids": [0],
    }
    supervision = {
        **{"id": "sup", "recording_id": "rec", "start": 0.0, "duration": 1.5, "channel": 0},
        **{"text": "hello", "speaker": "ann"},
    }
    return {
        **{"id": "cut-1", "start": 1.0, "duration": 1.5, "channel": 0},
        **{"supervisions": [supervision], "recording": recording, "type": "MonoCut"},
        **changes,
    }


def changed(name: str, value: object) -> dict[str, object]:
    recording = cut()["recording"]
    assert isinstance(recording, dict)
    return cut(recording={**recording, name: value})


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def read(tmp_path: Path, name: str, text: str, **options: object) -> list[Recording]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_recordings(tmp_path / name, **options)


def test_plain_csv_and_jsonl_say_the_same(tmp_path):
    expected = [
        Recording("a.wav", tmp_path / "a.wav", "ann"),
        Recording("u2", tmp_path / "b.wav", "bob", Seconds(0.5, 2.25)),
        Recording("u3", tmp_path / "b.wav", None, Seconds(3.0)),
    ]
    table = (
        "path, speaker, id, start_s, end_s, text\n"
        "a.wav,ann,,,,hello\nb.wav,bob,u2,0.5,2.25,\nb.wav,,u3,3,,\n"
    )
    assert read(tmp_path, "m.csv", "\ufeff" + table) == expected
    rows = [
        {"path": "a.wav", "speaker": "ann", "text": "hello"},
        {"path": "b.wav", "speaker": "bob", "id": "u2", "start_s": 0.5, "end_s": 2.25},
        {"path": "b.wav", "speaker": None, "id": "u3", "start_s": 3},
    ]
    assert read(tmp_path, "m.jsonl", lines(*rows[:2]) + "\n" + lines(rows[2])) == expected


def test_speechbrain_json(tmp_path):
    data = {
        "u1": {"wav": "{data_root}/a.flac", "spk_id": 103, "duration": 3.0},
        "u2": {"wav": "a.flac", "spk_id": None, "start": 16, "stop": 32},
        "u3": {"wav": {"file": "a.flac", "start": 5, "stop": 9}, "spk_id": "ann"},
    }
    assert read(tmp_path, "m.json", json.dumps(data), data_root=tmp_path / "x") == [
        Recording("u1", tmp_path / "x/a.flac", "103"),
        Recording("u2", tmp_path / "a.flac", None, (16, 32)),
        Recording("u3", tmp_path / "a.flac", "ann", (5, 9)),
    ]


TABLE = [["path", "speaker"], ["a.wav", "ann"], ["m\u00fc b.wav", "bob"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "between"), [("m.csv", ","), ("m.csv", ";"), ("m.tsv", "\t")])
def test_a_table_in_any_common_form(tmp_path, name, between, encoding):
    text = "\r\n".join(between.join(row) for row in TABLE) + "\r\n"
    if encoding.endswith(("le", "be")):
        text = "\ufeff" + text
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_recordings(tmp_path / name) == [
        Recording("a.wav", tmp_path / "a.wav", "ann"),
        Recording("m\u00fc b.wav", tmp_path / "m\u00fc b.wav", "bob"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("m.csv", "path,speaker\na,M\u00fcller\n".encode("latin-1"), "0xfc.*iconv -f WINDOWS-1252"),
        ("m.jsonl", '{"path": "\u00fc"}\n'.encode("latin-1"), "0xfc.*iconv -f WINDOWS-1252"),
        ("m.json", '{"\u00fc": {}}'.encode("latin-1"), "0xfc.*iconv -f WINDOWS-1252"),
        ("wav.scp", "u1 \u00fc.wav\n".encode("latin-1"), "0xfc.*iconv -f WINDOWS-1252"),
        ("m.jsonl", '{"path": "a"}\n'.encode("utf-16"), "is UTF-16, expected UTF-8; convert it"),
        ("m.csv", "path\na\n".encode("utf-16-le"), "zero bytes.*iconv -f UTF-16LE"),
        ("m.7z", b"7z", "is an archive of a kind that is not read, expected .zip, .tar, .tar.gz"),
        ("m.tar.gz", b"", "is an archive, expected a manifest; pass it where a folder is taken"),
        ("a.wav", b"RIFF", "is a single recording, .*use nip-audio detect for single files"),
        ("utt2spk", b"a b", "is a file of a Kaldi folder, expected its wav.scp"),
    ],
)
def test_what_cannot_be_read_gets_one_true_hint(tmp_path, name, data, match):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=match):
        read_recordings(tmp_path / name)


def test_nemo_lines_of_json(tmp_path):
    rows = [
        {"audio_filepath": "a.wav", "offset": 0, "duration": 2.5, "label": "ann"},
        {"audio_filepath": "a.wav", "offset": 2.5, "duration": 1.5, "label": "ann"},
        {"audio_filepath": "b.wav", "duration": None, "text": "hello"},
    ]
    expected = [
        Recording("a.wav", tmp_path / "a.wav", "ann", Seconds(0.0, 2.5)),
        Recording("a.wav@2.5+1.5", tmp_path / "a.wav", "ann", Seconds(2.5, 4.0)),
        Recording("b.wav", tmp_path / "b.wav"),
    ]
    for name in ("m.json", "m.jsonl"):
        assert read(tmp_path, name, lines(*rows)) == expected
    assert read(tmp_path, "one.json", json.dumps(rows[0])) == expected[:1]


def test_three_d_speaker_table(tmp_path):
    table = "ID,dur,path,start,stop,spk\nu1_0_4,6.5,a.wav,0.0,4.0,ann\nu2,3.0,b.wav,,,bob\n"
    assert read(tmp_path, "train.csv", table) == [
        Recording("u1_0_4", tmp_path / "a.wav", "ann", Seconds(0.0, 4.0)),
        Recording("u2", tmp_path / "b.wav", "bob"),
    ]


def test_kaldi_lists(tmp_path):
    scp = "u1 a b.wav\n\nu2   $data_root/b.wav\n"
    alone = read(tmp_path, "wav.scp", scp, data_root=tmp_path)
    assert alone == [
        Recording("u1", tmp_path / "a b.wav"),
        Recording("u2", tmp_path / "b.wav"),
    ]
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\n")
    named = read(tmp_path, "wav.scp", scp, data_root=tmp_path)
    assert [r.speaker for r in named] == ["ann", "bob"]
    (tmp_path / "segments").write_text("s1 u1 0.5 2.0\ns2 u2 1 -1\n")
    (tmp_path / "utt2spk").write_text("s1 ann\ns2 bob\n")
    assert read(tmp_path, "wav.scp", scp, data_root=tmp_path) == [
        Recording("s1", tmp_path / "a b.wav", "ann", Seconds(0.5, 2.0)),
        Recording("s2", tmp_path / "b.wav", "bob", Seconds(1.0)),
    ]
    (tmp_path / "segments").write_text("s1 u9 0.5 2.0\n")
    with pytest.raises(InputError, match="segments, line 1: got 'u9 0.5 2.0' for 's1', expected"):
        read(tmp_path, "wav.scp", scp, data_root=tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("u sph2pipe -f wav a.sph |", "line 1: 'u' is the output of a command, which is not run"),
        ("u |touch evil", "which is not run"),
        ("u raw.ark:12", "lies in an archive"),
        ("u", "'u' has no file, expected a name and a path"),
        ("u ../../etc/passwd", "outside the manifest's folder"),
    ],
)
def test_kaldi_commands_are_not_run(tmp_path, line, match):
    with pytest.raises(InputError, match=match):
        read(tmp_path, "wav.scp", line + "\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wav.scp"]


def test_outer_spaces_and_unicode_forms_make_no_second_speaker(tmp_path):
    rows = "path , speaker\na.wav,ann \nb.wav, ann\nc.wav,Zoe\u0308\nd.wav,Zo\u00eb \n"
    got = read(tmp_path, "m.csv", rows)
    assert [r.speaker for r in got] == ["ann", "ann", "Zo\u00eb", "Zo\u00eb"]
    data = {"u": {"wav": "a.wav", "spk_id": " ann "}, "v": {"wav": "b.wav", "spk_id": "  "}}
    assert [r.speaker for r in read(tmp_path, "m.json", json.dumps(data))] == ["ann", None]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("wav\\s1\\a.wav", "wav/s1/a.wav"),
        ("wav/e\u0301.wav", "wav/\u00e9.wav"),
        ("wav/\u00e9.wav", "wav/e\u0301.wav"),
        ("wav\\e\u0301.wav", "wav/\u00e9.wav"),
        ("wav/a.wav ", "wav/a.wav"),
        ("wav/a\\b.wav", "wav/a\\b.wav"),  # a file may be called that
    ],
)
def test_a_path_is_found_as_other_systems_spell_it(tmp_path, write_sound, written, stored):
    write_sound(stored)
    (recording,) = read(tmp_path, "m.jsonl", lines({"path": written}))
    assert recording.path == tmp_path / stored
    assert recording.read().duration_s == 1.0


def test_a_backslash_leads_nowhere_else(tmp_path, write_sound):
    write_sound("secret/a.wav")
    (tmp_path / "lists").mkdir()
    with pytest.raises(InputError, match="outside the manifest's folder"):
        read(tmp_path / "lists", "m.jsonl", lines({"path": "..\\secret\\a.wav"}))


def test_a_relative_data_root_is_one_of_the_working_directory(tmp_path, write_sound, monkeypatch):
    write_sound("here/data/a.wav")
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for root in ("data", Path("data"), "./data/"):
        (recording,) = read(
            tmp_path / "lists", "m.jsonl", lines({"path": "$data_root/a.wav"}), data_root=root
        )
        assert recording.path == tmp_path / "here/data/a.wav"
        assert recording.read().duration_s == 1.0


def test_lhotse_cuts_plain_and_zipped(tmp_path):
    text = lines(cut(), cut(id="whole", start=0, duration=4.0, supervisions=[]))
    expected = [
        Recording("cut-1", tmp_path / "rec.flac", "ann", Seconds(1.0, 2.5)),
        Recording("whole", tmp_path / "rec.flac"),
    ]
    assert read(tmp_path, "cuts.jsonl", text) == expected
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read_recordings(tmp_path / "cuts.jsonl.gz") == expected


def test_part_in_seconds_is_that_part(tmp_path, write_sound):
    write_sound("a.wav", rate_hz=8000)
    rows = [{"path": "a.wav", "start_s": 0.25}, {"path": "a.wav", "end_s": 0.75, "id": "x"}]
    late, early = read(tmp_path, "m.jsonl", lines(*rows))
    whole = Recording("w", tmp_path / "a.wav").read()
    assert (late.read().duration_s, early.read().duration_s) == (0.75, 0.75)
    part = Recording("p", tmp_path / "a.wav", span=(2000, 8000)).read()
    assert late.read().content_sha256 == part.content_sha256 != whole.content_sha256


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("m.txt", "a.wav\n", "m.txt has no known format, expected a .csv, .tsv, .json, .jsonl"),
        ("m.csv", "path,wav\na.wav,b.wav\n", "lacks column ID, spk_id; expected SpeechBrain's"),
        ("m.csv", "path,ID,wav,spk_id\na,b,c,d\n", "mixes the columns of two formats"),
        ("m.csv", "path,path\na,b\n", "line 1: column path occurs twice"),
        ("m.csv", "path\na.wav,b.wav\n", "line 2: it has more columns than the header"),
        ("m.csv", "path,start\na.wav,1\n", "line 2: 'start' has no unit; use start_s and end_s"),
        ("m.csv", "path,end_s\na.wav,nan\n", "line 2: end_s is 'nan', expected seconds"),
        ("m.csv", "path,end_s\na.wav,0\n", "line 2: the part from 0.0 s to 0.0 s is empty"),
        ("m.csv", "path,id\n,x\n", "line 2: path is '', expected text"),
        ("m.csv", 'path\n"a.wav\n', "cannot be read as a manifest"),
        ("m.csv", "path\n" + "a" * 200_000, "cannot be read as a manifest"),
        ("m.json", "[]", "holds a list, expected SpeechBrain's"),
        ("m.json", "{}", "has no rows"),
        ("m.json", '{"u": 1}', "entry 'u': expected {\"wav\""),
        ("m.json", '{"u": {"wav": "a"}}', 'expected {"wav": …, "spk_id": …}'),
        ("m.json", '{"u": {"wav": {"files": []}, "spk_id": "a"}}', 'needs "file"; name one file'),
        ("m.json", '{"u": {"wav": "a", "spk_id": {}}}', "spk_id is {}, expected text"),
        (
            "m.json",
            '{"u": {"wav": "a", "spk_id": "a", "start": 1.5}}',
            "expected whole numbers of samples",
        ),
        ("m.json", '{"u": {}, "u": {}}', "m.json is not valid JSON .'u' occurs twice"),
        ("m.json", "[" * 100_000, "is not valid JSON .it is nested too deeply"),
        ("m.jsonl", "", "has no rows"),
        ("m.jsonl", '{"path": "a"}\n{"path": ', "line 2: "),
        ("m.jsonl", '{"wav": "a"}\n', "line 1: it describes no recording, expected an object with"),
        ("m.jsonl", lines({"path": "a"}, cut()), "line 2: it has another format than the lines"),
        ("m.jsonl", lines({**cut(), "path": "a"}), "line 1: it describes no recording"),
        ("m.jsonl", lines({"path": True}), "path is True, expected text"),
        ("m.jsonl", lines({"path": "a", "start_s": "1e400"}), "start_s is '1e400'"),
        ("m.jsonl", lines(cut(type="MixedCut")), "the cut is a 'MixedCut', expected MonoCut"),
        ("m.jsonl", lines(cut(recording=None)), "has no recording with sources"),
        ("m.jsonl", lines(changed("transforms", [{"name": "Speed"}])), "save the result as a file"),
        ("m.jsonl", lines(changed("sources", [])), "has 0 sources, expected 1"),
        (
            "m.jsonl",
            lines(changed("sources", [{"type": "command", "source": "rm -r /"}])),
            "line 1: the source is a 'command', expected file or url; commands are not run",
        ),
        (
            "m.jsonl",
            lines(changed("sources", [{"type": "file", "source": "a", "channels": []}])),
            r"has channels \[\], expected a list",
        ),
        (
            "m.jsonl",
            lines(changed("sources", [{"type": "file", "source": "a", "channels": [1, 2]}])),
            "the cut is of channel 0, expected one of the file's channels .1, 2.",
        ),
        ("m.csv", "path,channel\na.wav,0\n", "channel is '0', expected a number from 1 on"),
        ("m.csv", "path,channel\na.wav,left\n", "channel is 'left', expected a number"),
        (
            "m.json",
            '{"u": {"wav": "a", "spk_id": "a", "channel": true}}',
            "channel is True, expected a number",
        ),
        ("m.jsonl", lines(cut(duration=None)), "the cut has no duration"),
        ("m.jsonl", lines(cut(supervisions=[{"speaker": "a"}, {"speaker": "b"}])), "2 speakers"),
        ("m.jsonl", lines(cut(supervisions={})), "supervisions must be a list"),
    ],
)
def test_wrong_manifests_say_where_and_what_to_do(tmp_path, name, text, match):
    with pytest.raises(InputError, match=match) as err:
        read(tmp_path, name, text)
    assert name in str(err.value)


def test_a_torn_or_damaged_archive_is_an_error(tmp_path):
    whole = gzip.compress(lines(*[cut()] * 100).encode())
    for number, data in enumerate((whole[:-20], b"\x1f\x8b" + bytes(50), whole[:60] + b"x" * 60)):
        path = tmp_path / f"{number}.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{number}.jsonl.gz"):
            read_recordings(path)


def test_a_zip_bomb_is_given_up_early(tmp_path):
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(bytes(1 << 26)))
    with pytest.raises(InputError, match="line 1: the line is longer than 1048576 bytes"):
        read_recordings(tmp_path / "bomb.jsonl.gz")


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.jsonl"])
def test_what_is_no_bounded_file_is_not_read(tmp_path, name, monkeypatch):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is not a file"):
        read_recordings(tmp_path / name)
    (tmp_path / name).unlink()
    with (tmp_path / name).open("wb") as file:
        file.truncate(manifest_formats._MAX_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(InputError, match="expected at most .*; split it"):
        read_recordings(tmp_path / name)


@pytest.mark.parametrize(
    "place", ["../a.wav", "sub/../../a.wav", "/etc/passwd", "/", "..", "$data_root/../../a.wav"]
)
def test_files_outside_are_refused_with_a_remedy(tmp_path, place):
    with pytest.raises(InputError, match="line 1: .*outside the manifest's folder; .*`data_root`"):
        read(tmp_path, "m.jsonl", lines({"path": place}), data_root=tmp_path / "data")


@pytest.mark.parametrize("place", ["a\0b.wav", "", "\ud800.wav"])
def test_what_is_no_file_name_is_refused(tmp_path, place):
    with pytest.raises(InputError, match=r"line 1: .*(is not a valid file name|expected text)"):
        read(tmp_path, "m.jsonl", lines({"path": place}))


def test_the_data_root_allows_what_lies_below_it(tmp_path, write_sound):
    sound = write_sound("data/a.wav")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "lists").mkdir()
    text = lines({"path": str(sound)})
    for root in (tmp_path / "data", str(tmp_path / "link"), "/"):
        (recording,) = read(tmp_path / "lists", "m.jsonl", text, data_root=root)
        assert recording.read().duration_s == 1.0
    with pytest.raises(InputError, match="outside the manifest's folder"):
        read(tmp_path / "lists", "m.jsonl", text, data_root=tmp_path / "dat")


def test_links_out_of_the_manifests_folder_are_reported(tmp_path, write_sound):
    sound = write_sound("secret/a.wav")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.wav").symlink_to(sound)
    text = lines({"path": "a.wav"})
    assert read(tmp_path / "lists", "m.jsonl", text)[0].leads_out
    (followed,) = read(tmp_path / "lists", "m.jsonl", text, follow_links=True)
    assert followed.read().duration_s == 1.0


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.json", "list.jsonl.gz"])
def test_a_manifest_has_a_bounded_number_of_rows(tmp_path, monkeypatch, name):
    monkeypatch.setattr(manifest_formats, "_MAX_ROWS", 3)
    path = tmp_path / name
    for rows in (3, 4):
        if name.endswith(".csv"):
            path.write_text("path\n" + "".join(f"{i}.wav\n" for i in range(rows)))
        elif name.endswith(".json"):
            path.write_text(
                json.dumps({str(i): {"wav": "a.wav", "spk_id": "s"} for i in range(rows)})
            )
        else:
            text = "".join(f'{{"path": "{i}.wav"}}\n' for i in range(rows)).encode()
            path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        if rows == 3:
            assert len(list(entries_of(path))) == 3
        else:
            with pytest.raises(InputError, match="more than 3 recordings.*split it"):
                list(entries_of(path))


def test_a_gzipped_manifest_expands_to_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_formats, "_FREE_BYTES", 1000)
    path = tmp_path / "list.jsonl.gz"
    row = b'{"path": "a.wav", "speaker": "s"}\n'
    path.write_bytes(gzip.compress(row * 20))
    assert len(list(entries_of(path))) == 20
    path.write_bytes(gzip.compress(row * 100_000))
    with pytest.raises(InputError, match="the file holds more than .*; split it"):
        list(entries_of(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "path,channel\na.wav,2\n"),
        ("m.csv", "ID,wav,spk_id,channel\na,a.wav,ann,2\n"),
        ("m.json", '{"u": {"wav": "a.wav", "spk_id": "ann", "channel": 2}}'),
        ("m.json", '{"u": {"wav": {"file": "a.wav", "channel": 2}, "spk_id": "ann"}}'),
        ("m.jsonl", lines({"path": "a.wav", "channel": 2})),
        (
            "m.jsonl",
            lines(
                cut(
                    channel=1,
                    recording={
                        "sources": [{"type": "file", "source": "a.wav", "channels": [0, 1]}],
                    },
                )
            ),
        ),
    ],
)
def test_a_manifest_may_name_the_channel_to_read(tmp_path, name, text, write_sound, tone):
    write_sound("a.wav", np.stack([tone(), 0.5 * tone()], axis=1).repeat(4, axis=0))
    (tmp_path / name).write_text(text)
    (entry,) = entries_of(tmp_path / name)
    assert entry.channel == 2
    (recording,) = read_recordings(tmp_path / name)
    assert "channel 2 of 2 taken" in recording.read().changes
    assert stamp_of(recording) != stamp_of(replace(recording, channel=1))


def test_a_cut_of_a_file_with_one_channel_names_none(tmp_path):
    (tmp_path / "m.jsonl").write_text(lines(cut(channel=3)))
    assert [entry.channel for entry in entries_of(tmp_path / "m.jsonl")] == [None]
