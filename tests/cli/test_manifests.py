"""Commands that read recordings take every kind of manifest, and keep to what they were given."""

from __future__ import annotations

import json

import pytest

from nip_audio.audio.manifest import walk_audio
from nip_audio.cli._exit import EXIT_DEFECT, EXIT_REFUSED


@pytest.fixture
def rows(clean_folder) -> list[dict[str, object]]:
    recordings = list(walk_audio(clean_folder))[:4]
    return [{"path": r.path.as_posix(), "speaker": r.speaker, "id": r.id} for r in recordings]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_enrols_from_a_manifest(run, rows, clean_folder, tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        table = [",".join(map(str, row.values())) for row in rows]
        path.write_text("path,speaker,id\n" + "\n".join(table))
    else:
        data = {row["id"]: {"wav": row["path"], "spk_id": row["speaker"]} for row in rows}
        path.write_text(json.dumps(data))
    command = ["enroll", path, "--out", tmp_path / "voices", "--json"]
    code, _, err = run(*command)
    assert code == EXIT_REFUSED
    assert "outside the manifest's folder" in " ".join(err.split())
    assert not (tmp_path / "voices").exists()
    code, out, _ = run(*command, "--data-root", clean_folder)
    assert code == 0
    assert json.loads(out)["speakers"] == {"s0": 4}


def test_speakers_are_found_in_paths(run, clean_folder, tmp_path):
    mixed = tmp_path / "session"
    for file in list(walk_audio(clean_folder))[:4]:
        (mixed / "x").mkdir(parents=True, exist_ok=True)
        (mixed / "x" / f"{file.speaker}_{file.path.name}").write_bytes(file.path.read_bytes())
    command = ["enroll", mixed, "--out", tmp_path / "voices", "--json", "--speaker-from"]
    code, _, err = run(*command, "{speaker}/*/*")
    assert code == EXIT_REFUSED
    assert "does not match the pattern of speakers" in " ".join(err.split())
    code, out, _ = run(*command, "*/{speaker}_*")
    assert code == 0
    assert json.loads(out)["speakers"] == {"s0": 4}


def test_links_are_followed_only_if_asked(run, clean_folder, tmp_path):
    (tmp_path / "in" / "ann").mkdir(parents=True)
    (tmp_path / "in" / "ann" / "a.wav").symlink_to(clean_folder / "s0" / "take0.wav")
    (tmp_path / "in" / "bob").symlink_to(clean_folder / "s1")
    command = ["enroll", tmp_path / "in", "--out", tmp_path / "voices"]
    code, _, err = run(*command)
    assert code == EXIT_REFUSED
    assert "allow it (--follow-links" in " ".join(err.split())
    assert run(*command, "--follow-links")[0] == 0


def test_a_defect_does_not_exit_as_if_something_was_flagged(run, monkeypatch):
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("nip_audio.cli.models.list_pretrained", fail)
    code, _, err = run("models")
    assert code == EXIT_DEFECT
    assert "RuntimeError: a bug" in err
    assert "please report it" in err
