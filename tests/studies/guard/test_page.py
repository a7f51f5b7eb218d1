"""What docs/results/speechbrain.md says must work, in the order in which it says it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from nip_audio import speechbrain
from tests.tolerance import rounding

TEMPLATE = Path(__file__).parents[3] / "studies/guard/template.md"
PAGE = TEMPLATE.read_text(encoding="utf-8")


@pytest.fixture
def working_folder(tmp_path, folder, calibration, monkeypatch) -> Path:
    calibration.save(tmp_path / "my.calibration")
    files = sorted(folder.glob("s*/*.wav"))
    (tmp_path / "enrolled.wav").write_bytes(files[0].read_bytes())
    (tmp_path / "claimed.wav").write_bytes(files[1].read_bytes())
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "wav", "spk_id"])
        for path in files:
            row = f"$data_root/{path.relative_to(folder)}"
            writer.writerow([f"{path.parent.name}-{path.stem}", row, path.parent.name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_code_runs(working_folder, capsys):
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    # the small world's calibration allows no rate of 1 %
    recipe = recipe.replace("fpr: 0.01", "fpr: 0.05")
    (working_folder / "train.yaml").write_text(recipe)
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        code = code.replace('"my.calibration"', '"my.calibration", fpr=0.05')
        exec(compile(code, "speechbrain.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["enrolled.wav", "claimed.wav"]
    assert len(names["verdicts"]) == 2
    assert names["scores"][1] == pytest.approx(1.0, abs=rounding())
    assert names["scores"][0] == pytest.approx(float(names["score"]), abs=rounding())
    assert len(names["train_set"]) > 0
    assert names["new_manifest"] == Path("guard/train.csv")
    assert (working_folder / "guard/screening/results.jsonl").exists()
    assert issubclass(names["MyBrain"], speechbrain.ScreenedTraining)


def test_what_is_public_is_named_on_it():
    unnamed = {name for name in speechbrain.__all__ if name not in PAGE}
    assert unnamed == {"babble_like", "EmbeddingCache"}
