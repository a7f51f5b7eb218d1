"""The command that gives a model of any origin a card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from nip_audio import load_pretrained
from tests.models.speechbrain_directories import LABELS, write_directory


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "account"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory("ecapa", tmp_path_factory.mktemp("original") / "ecapa")


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A model of which a test may do what it likes."""
    return Path(shutil.copytree(original, tmp_path / "ecapa"))


@pytest.fixture(scope="module")
def adopted(
    original: Path, clean_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, str]:
    """A card with noises of its own, the exit code and the lines that were printed."""
    import contextlib
    import io

    from nip_audio.cli import main

    out = tmp_path_factory.mktemp("adopted") / "card"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["adopt", str(original), "--data", str(clean_folder), "--out", str(out)])
    return out, code, printed.getvalue()


def test_says_what_was_found(run, source, clean_folder, tmp_path):
    out = tmp_path / "card"
    code, text, err = run("adopt", source, "--data", clean_folder, "--out", out, "--name", "mine")
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert lines[0] == (
        "mine: ECAPA_TDNN of SpeechBrain, 16 kHz, 12 numbers an embedding, 4 labels"
    )
    card = load_pretrained(out).card
    assert card.name == "mine"
    assert f"licence: not stated; identity {card.model_id[:12]}" in lines
    assert any(
        line.startswith(f"layers measured: {', '.join(card.default_taps)}") for line in lines
    )
    noises = [f"{noise['scale']:g}" for noise in card.data["noises"]]
    assert f"noises of the detector: {', '.join(noises)} (rms)" in lines
    assert "yes  embed, enroll, verify: repeats exactly" in lines
    assert "yes  calibrate, detect, screen: noises chosen on 24 clean recordings" in lines
    assert lines[-1] == f"next: nip-audio calibrate CLEAN --model {out} --out {out}/calibration"


def test_json_is_the_card(run, source, tmp_path):
    out = tmp_path / "card"
    code, text, err = run("adopt", source, "--out", out, "--json")
    assert (code, err) == (0, "")
    found = json.loads(text)
    assert found.pop("out") == str(out)
    assert found.pop("model_id") == load_pretrained(out).model_id
    assert found == json.loads((out / "model_card.json").read_text())
    assert found["labels"] == list(LABELS)


def test_an_existing_card_needs_force(run, source, tmp_path):
    out = tmp_path / "card"
    assert run("adopt", source, "--out", out)[0] == 0
    before = (out / "model_card.json").read_bytes()
    code, text, err = run("adopt", source, "--out", out, "--name", "other")
    assert code >= 64
    assert text == ""
    assert "--force" in err
    assert (out / "model_card.json").read_bytes() == before
    assert run("adopt", source, "--out", out, "--name", "other", "--force")[0] == 0
    assert load_pretrained(out).card.name == "other"


@pytest.mark.parametrize(
    ("source_text", "match"),
    [
        ("nothing", "expected a directory of SpeechBrain or one of"),
        ("onnx:", "names no model, expected onnx:FILE"),
        ("onnx:no.onnx", "no.onnx"),
        ("speechbrain:no-such-directory", "is no directory"),
        ("torchscript:no.pt", "adopt --trust-model"),
        ("python:no_such_module_anywhere:f", "set PYTHONPATH"),
        ("resemblyzer?rate=8000", "leave it out"),
    ],
)
def test_bad_sources_are_refused_with_one_line(run, source_text, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, err = run("adopt", source_text, "--out", tmp_path / "card")
    assert code >= 64
    assert text == ""
    assert match in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "card").exists()


def test_bad_recordings_are_refused(run, source, tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    for i in range(9):
        (folder / f"{i}.wav").write_bytes(b"RIFF")
    code, _, err = run("adopt", source, "--data", folder, "--out", tmp_path / "card")
    assert code >= 64
    assert "0 of 9 clean recordings could be read" in " ".join(err.split())
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("arguments", [(), ("--out",)])
def test_needs_an_output(run, source, arguments):
    assert run("adopt", source, *arguments)[0] == 64


def test_a_file_as_output_is_refused(run, source, tmp_path):
    (tmp_path / "card").write_text("")
    code, _, err = run("adopt", source, "--out", tmp_path / "card")
    assert code >= 64
    assert "is no directory" in " ".join(err.split())


def test_a_model_that_runs_code_is_trusted_by_name(run, source, tmp_path, monkeypatch):
    (source / "adopted_network.py").write_text(
        "from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN as Own\n"
    )
    path = source / "hyperparams.yaml"
    path.write_text(
        path.read_text().replace(
            "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN", "adopted_network.Own"
        )
    )
    monkeypatch.syspath_prepend(str(source))
    code, _, err = run("adopt", source, "--out", tmp_path / "card")
    assert code >= 64
    assert "--trust-model" in err
    code, text, _ = run("adopt", source, "--out", tmp_path / "card", "--trust-model")
    assert code == 0
    assert f"trusted to run code by this account: {tmp_path}/account" in text
    assert load_pretrained(tmp_path / "card").card.data["trusted"]


def test_a_module_fixture_adopts_with_noises(adopted):
    out, code, printed = adopted
    assert code == 0
    assert "noises of the detector" in printed
    assert (out / "model_card.json").is_file()


def screened(out: Path) -> list[tuple[str, object]]:
    """Return name and p-value of every screened file."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return sorted((row["id"], row["p_value"]) for row in rows)


@pytest.mark.parametrize("bare", [False, True], ids=["card", "source"])
def test_workers_load_it(bare, run, adopted, original, clean_folder, tmp_path):
    model = original if bare else adopted[0]
    state = tmp_path / "calibration"
    code, _, err = run("calibrate", clean_folder, "--model", model, "--clean-only", "--out", state)
    assert code == 0, err
    voices = tmp_path / "voices"
    voices.mkdir()
    for path in sorted(clean_folder.rglob("take0.wav"))[:4]:
        samples, rate = soundfile.read(path)
        soundfile.write(voices / f"{path.parent.name}.wav", 0.9 * samples, rate)
    given = ("screen", voices, "--model", model, "--calibration", state, "--fpr", 0.05)
    found = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        code, _, err = run(*given, "--out", out, "--workers", workers)
        assert code in (0, 3), err
        found.append(screened(out))
    assert len(found[0]) == 4
    assert found[0] == found[1]
