"""The study of ranks by NCCR: its arithmetic, and the whole way on synthetic voices."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from nip_audio.cli import main
from nip_audio.core.state import file_sha256
from nip_audio.models.pretrained import load_pretrained
from studies.robustness import doubts, measure, measured, page

EPS = [0.0005, 0.002]


@pytest.fixture
def few_noises(monkeypatch) -> None:
    """Fewer noises and draws."""
    for module in (measured, doubts, measure):
        monkeypatch.setattr(module, "NOISES", measured.NOISES[:3])
    monkeypatch.setattr(measured, "DRAWS", 2)


def made_of(target: Path, *, noise: float) -> Path:
    """A model like the shipped x-vector, its weights somewhat off."""
    source = load_pretrained("xvector-libri251").card
    target.mkdir()
    for name in source.data["files"]:
        shutil.copy(source.directory / name, target / name)
    weights = load_file(target / "embedding_model.safetensors")
    rng = np.random.default_rng(3)
    for key, value in weights.items():
        if key.endswith("weight") and value.dim() > 1:
            weights[key] = value * (1 + noise * rng.choice([-1, 1], size=1)[0])
    save_file(weights, target / "embedding_model.safetensors")
    files = {name: file_sha256(target / name) for name in source.data["files"]}
    card = {**source.data, "name": target.name, "files": files}
    for companion in ("calibration", "plda", "purifier"):
        card.pop(companion, None)
    card["calibration"] = None
    (target / "model_card.json").write_text(json.dumps(card))
    return target


@pytest.fixture
def config(tmp_path, write_config):
    models = [made_of(tmp_path / f"m{i}", noise=0.05 * i) for i in range(3)]
    systems = {m.name: {"model": str(m), "subset": "voices", "enrol": True} for m in models}
    one_step = {"steps": 1}
    return write_config(
        systems=systems,
        attacks=[
            {
                "attack": "pgd-e2e",
                "eps": EPS,
                "items": 6,
                "settings": {"steps": 2, "restarts": 1},
            },
            {
                "attack": "autoattack",
                "eps": [0.002],
                "items": 6,
                "settings": {"steps": 2, "targets": 1, "square_steps": 5},
            },
            {"attack": "pgd", "eps": [0.002], "items": 6, "settings": one_step, "systems": ["m0"]},
        ],
    )


def test_the_whole_way(few_noises, config, tmp_path, monkeypatch, capsys):
    out, results, plots = (tmp_path / name for name in ("out", "r.json", "plots"))
    plots.mkdir()
    assert main(["evaluate", str(config), "--out", str(out)]) == 0
    arguments = ["--evaluation", out, "--clips", 8, "--results", results, "--plots", plots]
    monkeypatch.setattr(sys, "argv", ["study", str(config), *map(str, arguments)])
    measure.main()
    found = json.loads(results.read_text())
    ((_, group),) = found["groups"].items()
    assert list(group["models"]) == ["m0", "m1", "m2"]
    assert group["accuracy"]["0.0005"]["m0"]["attacks"] == ["pgd-e2e"]
    assert group["accuracy"]["0.002"]["m0"]["attacks"] == ["autoattack", "pgd-e2e"]
    layers = len(load_pretrained("xvector-libri251").card.default_taps) + 1
    assert len(group["settings"]) == 3 * layers
    ranks = [row["rank"] for row in group["ranking"]["logits"]]
    assert ranks == [1, 2, 3]
    # what is ranked is what the grid has for the default noise
    by_name = {row["model"]: row["mean"]["value"] for row in group["ranking"]["logits"]}
    assert group["settings"][layers - 1]["nccr"] == pytest.approx(by_name, abs=1e-5)
    assert set(group["attacked"]["logits"]) >= {"clean"}
    assert {p.name for p in plots.iterdir()} == {
        "nccr_models_m0.png",
        "nccr_attacked_m0.png",
        "activations_m0.png",
    }
    text = page.PAGE.made_from({"robustness": found}, partial=True)
    assert "{" not in text.replace("{0", "")
    assert "m2" in text
    capsys.readouterr()


def test_an_evaluation_of_other_models_is_refused(few_noises, config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text(json.dumps({"systems": {"m0": {"identity": "other"}}}))
    arguments = ["--evaluation", out, "--results", tmp_path / "r.json", "--plots", tmp_path]
    monkeypatch.setattr(sys, "argv", ["study", str(config), *map(str, arguments)])
    with pytest.raises(Exception, match="evaluate these models first"):
        measure.main()


def test_the_worst_of_two_attacks_is_what_either_fools():
    cells = [
        {"system": "m", "eps": 0.1, "level": "raw", "attack": "pgd-e2e", "fooled": "0110"},
        {"system": "m", "eps": 0.1, "level": "raw", "attack": "autoattack", "fooled": "0011"},
        {"system": "m", "eps": 0.1, "level": "raw", "attack": "fgsm", "fooled": "1111"},
        {"system": "n", "eps": 0.1, "level": "raw", "attack": "pgd-e2e", "fooled": "1111"},
    ]
    fooled, attacks = doubts.fooled_by(cells, "m", 0.1)
    assert fooled.tolist() == [False, True, True, True]
    assert attacks == ["autoattack", "pgd-e2e"]
    assert doubts.fooled_by(cells, "m", 0.2) == (None, [])


def test_only_pairs_with_intervals_apart_are_clear():
    def between(low, high):
        return {"value": (low + high) / 2, "low": low, "high": high}

    accuracy = {"a": between(0.6, 0.8), "b": between(0.5, 0.7), "c": between(0.0, 0.1)}
    found = doubts.compare({"a": 0.1, "b": 0.2, "c": 0.3}, accuracy)
    assert (found["kendall"], found["same_order"]) == (1.0, True)
    assert (found["clear"], found["clear_right"]) == (2, 2)
    found = doubts.compare({"a": 0.1, "b": 0.4, "c": 0.3}, accuracy)
    assert (found["clear"], found["clear_right"]) == (2, 1)
    alike = dict.fromkeys("abc", between(0.0, 0.1))
    assert doubts.compare({"a": 0.1, "b": 0.2, "c": 0.3}, alike) is None


class Linear:
    """Stands for what was measured: three neurons, logits that are twice them."""

    def __init__(self, name: str, embeddings: np.ndarray, noisy: np.ndarray) -> None:
        self.name, self.layers = name, ("pool", "logits")
        self.embeddings, self.noisy = embeddings, noisy
        moved = np.linalg.norm(noisy - embeddings[:, None], axis=-1).mean(axis=1)
        rate = moved / np.linalg.norm(embeddings, axis=-1)
        self.rates = np.stack([rate, rate], axis=1)[:, None]

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        return 2 * embeddings


def test_a_constant_gives_a_weak_model_the_nccr_of_a_strong_one():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.5, 1.5, (5, 3))
    drawn = rng.standard_normal((5, 4, 3))
    weak, strong = (
        Linear(n, clean, clean[:, None] + s * drawn) for n, s in (("w", 1.0), ("s", 0.1))
    )
    for row in doubts.shifted(weak, strong):
        values = clean if row["layer"] == "last tap" else 2 * clean
        noisy = weak.noisy if row["layer"] == "last tap" else 2 * weak.noisy
        moved = np.linalg.norm(noisy - values[:, None], axis=-1).mean(axis=1)
        shifted = (moved / np.linalg.norm(values + row["constant"], axis=-1)).mean()
        assert row["constant"] > 0
        assert shifted == pytest.approx(row["nccr_strong"], rel=0.02)
        assert row["nccr_weak"] > 5 * row["nccr_strong"]
    for row in doubts.shifted(strong, weak):
        assert row["constant"] == 0.0
