"""The stage of the data pipeline, on SpeechBrain's own data sets."""

from __future__ import annotations

import csv
import json
import logging

import numpy as np
import pytest
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.cli import main
from nip_audio.errors import InputError, ResumeError
from nip_audio.screening.measure import FileMeasurer
from nip_audio.speechbrain.data_stage import recordings_of, without
from nip_audio.speechbrain.screened_data import ScreenedData


@pytest.fixture
def manifest(folder, write_sound, tmp_path, voice):
    """The small world as a CSV: nine good files, an adversarial-looking one, one unreadable."""
    rng = np.random.default_rng(0)
    noisy = voice(0, 12) + 0.01 * rng.standard_normal(16000).astype(np.float32)
    write_sound("enrolment/s0/noisy.wav", noisy)
    (folder / "s1" / "torn.wav").write_bytes(b"RIFF....")
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "duration", "wav", "spk_id"])
        for wav in sorted(folder.glob("s*/*.wav")):
            name = f"{wav.parent.name}-{wav.stem}"
            writer.writerow([name, 1.0, f"$data_root/{wav.relative_to(folder)}", wav.parent.name])
    return path


@pytest.fixture
def dataset(manifest, folder):
    found = DynamicItemDataset.from_csv(str(manifest), replacements={"data_root": str(folder)})
    found.add_dynamic_item(lambda wav: wav.upper(), takes="wav", provides="loud")
    found.set_output_keys(["id", "spk_id", "loud"])
    return found


BAD = {"s0-noisy", "s1-torn"}


def test_flagged_items_are_dropped_before_training(dataset, guard, tmp_path):
    screening = ScreenedData(guard, tmp_path / "guard")
    kept = screening(dataset)
    assert isinstance(kept, DynamicItemDataset)
    assert set(dataset.data_ids) - set(kept.data_ids) == BAD
    assert kept.data_ids == [name for name in dataset.data_ids if name not in BAD]
    assert len(dataset) == 11
    batches = list(SaveableDataLoader(kept, batch_size=3, collate_fn=list))
    assert [item["loud"].endswith(".WAV") for batch in batches for item in batch] == [True] * 9
    assert "adversarial" in {finding.risk for finding in screening.records["s0-noisy"].findings}
    assert screening.records["s1-torn"].error["code"] == "not_audio"


def test_a_second_run_measures_nothing(dataset, guard, tmp_path, monkeypatch):
    first = ScreenedData(guard, tmp_path / "guard")
    expected = first(dataset).data_ids

    def measure(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(FileMeasurer, "__call__", measure)
    again = ScreenedData(guard, tmp_path / "guard")
    assert again(dataset).data_ids == expected
    assert again.records == first.records


def test_only_what_is_new_is_measured(dataset, guard, tmp_path, monkeypatch):
    few = without(dataset, set(dataset.data_ids[3:]))
    ScreenedData(guard, tmp_path / "guard")(few)
    seen = []
    real = FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: seen.append(r.id) or real(self, r)
    )
    ScreenedData(guard, tmp_path / "guard")(dataset)
    assert seen == dataset.data_ids[3:]


def test_flagged_items_are_marked(dataset, guard, tmp_path):
    marked = ScreenedData(guard, tmp_path / "guard", on_flagged="mark")(dataset)
    marked.set_output_keys(["id", "verdict", "flagged"])
    found = {item["id"]: (item["verdict"], item["flagged"]) for item in marked}
    assert {name for name, (_, flagged) in found.items() if flagged} == BAD
    assert found["s1-torn"] == ("error", True)
    assert found["s0-take10"] == ("clean", False)
    assert "verdict" not in dataset.pipeline.key_to_node


def test_verdicts_can_be_chosen(dataset, guard, tmp_path):
    kept = ScreenedData(guard, tmp_path / "guard", verdicts=["error"])(dataset)
    assert set(dataset.data_ids) - set(kept.data_ids) == {"s1-torn"}


@pytest.mark.parametrize("on_flagged", ["drop", "mark"])
def test_a_csv_is_written_anew(manifest, folder, guard, tmp_path, on_flagged):
    screening = ScreenedData(guard, tmp_path / "guard", on_flagged=on_flagged)
    new = screening.manifest(manifest, data_root=folder)
    assert new == tmp_path / "guard" / "train.csv"
    rows = {row["ID"]: row for row in csv.DictReader(new.read_text().splitlines())}
    assert all(row["wav"].startswith("$data_root/") for row in rows.values())
    loaded = DynamicItemDataset.from_csv(str(new), replacements={"data_root": str(folder)})
    if on_flagged == "drop":
        assert len(loaded) == 9
        assert not BAD & set(rows)
    else:
        assert len(loaded) == 11
        assert {name for name, row in rows.items() if row["flagged"] == "True"} == BAD
        assert rows["s1-torn"]["verdict"] == "error"


def test_a_json_is_written_anew(folder, guard, tmp_path):
    rows = {
        f"{wav.parent.name}-{wav.stem}": {
            "wav": {"file": f"{{data_root}}/{wav.relative_to(folder)}", "start": 0, "stop": 12000},
            "spk_id": wav.parent.name,
        }
        for wav in sorted(folder.glob("s*/*.wav"))
    }
    (folder / "s0" / "take10.wav").write_bytes(b"")
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows))
    new = ScreenedData(guard, tmp_path / "guard").manifest(path, data_root=folder)
    kept = json.loads(new.read_text())
    assert set(rows) - set(kept) == {"s0-take10"}
    assert all(kept[name] == rows[name] for name in kept)


def test_a_recipe_can_name_it(calibration, tmp_path):
    calibration.save(tmp_path / "my.calibration")
    screening = load_hyperpyyaml(
        f"save_folder: {tmp_path}\n"
        "guard: !new:nip_audio.speechbrain.Guard\n"
        f"  calibration: {tmp_path / 'my.calibration'}\n"
        "  fpr: 0.05\n"
        "screening: !new:nip_audio.speechbrain.ScreenedData\n"
        "  guard: !ref <guard>\n"
        "  out: !ref <save_folder>/guard\n"
    )["screening"]
    assert screening.out == tmp_path / "guard"
    assert screening.verdicts[-2:] == ("out_of_domain", "error")


def test_what_was_dropped_is_logged(dataset, guard, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="nip_audio.speechbrain.screened_data"):
        ScreenedData(guard, tmp_path / "guard")(dataset)
    assert "2 of 11 recordings are flagged or could not be judged (" in caplog.text
    assert "1 error" in caplog.text


def test_where_no_file_could_be_read_the_paths_are_blamed(dataset, guard, tmp_path):
    for row in dataset.data.values():
        row["wav"] = row["wav"].replace("enrolment", "nowhere")
    with pytest.raises(InputError, match=r"none of 11 .*\(11 missing\).*nowhere.*data root") as err:
        ScreenedData(guard, tmp_path / "guard")(dataset)
    assert "calibrat" not in str(err.value)


def test_report_works_on_what_was_screened(manifest, folder, guard, tmp_path, capsys):
    ScreenedData(guard, tmp_path / "guard").manifest(manifest, data_root=folder)
    run = str(tmp_path / "guard" / "screening")
    assert main(["report", run, "--details", "0"]) == 0
    assert main(["report", run]) == 65  # a run may be a stranger's: it must not name any file
    assert "pass the folder of its files as --data-root" in capsys.readouterr().err
    calibration = tmp_path / "my.calibration"
    guard.screener.judge.calibration.save(calibration)
    options = ["--data-root", str(folder), "--calibration", str(calibration), "--details", "1"]
    assert main(["report", run, *options]) == 0
    assert (tmp_path / "guard" / "screening" / "report.html").exists()
    assert "s0-noisy" in (tmp_path / "guard" / "screening" / "results.csv").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,speaker\nx.wav,ann\n"),
        ("a.json", '{"audio_filepath": "a.wav"}\n{"audio_filepath": "b.wav"}\n'),
        ("a.json", "[]"),
    ],
)
def test_manifests_of_others_are_refused(guard, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="is not one of SpeechBrain's manifests"):
        ScreenedData(guard, tmp_path / "out").manifest(tmp_path / name)


def test_an_empty_set_is_no_training_set(dataset, guard, tmp_path):
    bad = without(dataset, set(dataset.data_ids) - {"s0-noisy"})
    with pytest.raises(InputError, match="none of 1 recordings would be left"):
        ScreenedData(guard, tmp_path / "guard")(bad)


def test_another_file_under_a_known_id_is_refused(dataset, guard, tmp_path):
    screening = ScreenedData(guard, tmp_path / "guard")
    screening(dataset)
    dataset.data["s0-take10"] = {**dataset.data["s0-take10"], "start": "0", "stop": "9000"}
    with pytest.raises(ResumeError, match=r"'s0-take10' is .*, it is .*9000.* now; use another"):
        screening(dataset)


def test_a_damaged_list_is_refused(dataset, guard, tmp_path):
    for text in ("[", "[]"):
        (tmp_path / "guard").mkdir(exist_ok=True)
        (tmp_path / "guard" / "recordings.json").write_text(text)
        with pytest.raises(ResumeError, match=r"recordings\.json is damaged"):
            ScreenedData(guard, tmp_path / "guard")(dataset)


def test_wrong_settings_are_errors(guard, tmp_path):
    with pytest.raises(InputError, match=r"got on_flagged 'drop' and verdicts \['bad'\]"):
        ScreenedData(guard, tmp_path, verdicts=["bad"])
    with pytest.raises(InputError, match="got on_flagged 'hide'"):
        ScreenedData(guard, tmp_path, on_flagged="hide")
    with pytest.raises(InputError, match=r"expected a \.csv or \.json"):
        ScreenedData(guard, tmp_path).manifest(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("wav\nx\n")
    with pytest.raises(InputError, match=r"a\.csv, expected a \.csv or \.json that is not in"):
        ScreenedData(guard, tmp_path).manifest(tmp_path / "a.csv")
    with pytest.raises(InputError, match="is not one of SpeechBrain's manifests"):
        ScreenedData(guard, tmp_path / "out").manifest(tmp_path / "a.csv")


def test_recordings_are_those_that_the_data_set_reads():
    data = {
        "a": {"wav": "x.wav", "spk_id": "ann", "start": "10", "stop": "20"},
        "b": {"wav": {"file": "y.wav", "start": 0, "stop": 5}, "spk_id": ""},
        "c": {"wav": "z.wav", "start": "", "stop": ""},
    }
    found = recordings_of(DynamicItemDataset(data))
    assert [(r.id, str(r.path), r.speaker, r.span) for r in found] == [
        ("a", "x.wav", "ann", (10, 20)),
        ("b", "y.wav", None, (0, 5)),
        ("c", "z.wav", None, None),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "x.wav"}, "'a' has no 'wav', only 'path'; pass wav_key"),
        ({"wav": ["x.wav"]}, "expected one path"),
        ({"wav": {"files": ["x.wav"]}}, "expected one path"),
        ({"wav": "x.wav", "start": "1"}, "must both be samples"),
        ({"wav": "x.wav", "start": "1", "stop": "z"}, "must both be samples"),
    ],
)
def test_entries_without_a_recording_are_errors(row, message):
    with pytest.raises(InputError, match=message):
        recordings_of(DynamicItemDataset({"a": row}))
