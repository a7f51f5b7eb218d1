from __future__ import annotations

import csv
import json
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio.audio.quality import TooLittleSpeechError
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError, OutputError
from nip_audio.evaluation import bench as bench_module
from nip_audio.evaluation import defences as defences_module
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.config import read_config
from nip_audio.evaluation.defences import NO_DEFENCE, ask, make_defences
from nip_audio.evaluation.report import write_report
from nip_audio.evaluation.runner import RESULTS_NAME, Runner
from nip_audio.evaluation.tables import defence_table, dsr_table
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import GaussianNoise

ATTACKS = [
    {"attack": "fgsm", "eps": [0.002, 0.02], "items": 4, "batch": 2},
    {"attack": "fgsm", "level": "input", "eps": ["8/255"], "items": 4, "batch": 4},
    {
        "attack": "pgd-e2e",
        "eps": [0.02],
        "items": 3,
        "settings": {"steps": 2, "restarts": 1},
        "protocol": "adaptive",
    },
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_config_to):
    """A configuration, the folder of its evaluation, and its results; only to be read."""
    folder = tmp_path_factory.mktemp("evaluation")
    path = write_config_to(folder, attacks=ATTACKS, defences=[{"name": "quantization"}])
    config = read_config(path)
    return config, folder / "out", Runner(config, folder / "out").run()


@pytest.fixture
def config(whole):
    return whole[0]


@pytest.fixture
def results(whole, tmp_path):
    """Of an evaluation in ``out``, which a test may do what it likes with."""
    _, out, found = whole
    shutil.copytree(out, tmp_path / "out")
    return deepcopy(found)


def test_matrix_is_complete_and_written(results, tmp_path):
    cells = results["cells"]
    unaware = [c for c in cells if c["protocol"] == "unaware"]
    assert [(c["attack"], c["level"], c["eps"]) for c in unaware] == [
        ("fgsm", "raw", 0.002),
        ("fgsm", "raw", 0.02),
        ("fgsm", "input", pytest.approx(8 / 255)),
    ]
    adaptive = [c["attacked_defence"] for c in cells if c["protocol"] == "adaptive"]
    assert adaptive == [
        "noise 20 dB",
        "quantisation 8 bits",
        "noise as strong as quantisation 8 bits",
    ]
    assert json.loads((tmp_path / "out" / RESULTS_NAME).read_text()) == results


def test_who_knows_some_defences_attacks_those_alone(write_config, tmp_path):
    plan = ATTACKS[2] | {"behind": ["quantisation 8 bits"]}
    config = read_config(write_config(attacks=[plan], defences=[{"name": "quantization"}]))
    cells = Runner(config, tmp_path / "out").run()["cells"]
    assert [c["attacked_defence"] for c in cells] == ["quantisation 8 bits"]


def test_attacked_defences_that_are_not_there_are_refused(write_config, tmp_path):
    plan = ATTACKS[2] | {"behind": ["noise 2 dB"]}
    config = read_config(write_config(attacks=[plan]))
    with pytest.raises(InputError, match="defence 'noise 2 dB', which is unknown.*noise 20 dB"):
        Runner(config, tmp_path / "out").run()


def test_no_defence_and_noise_stand_whatever_the_configuration(write_config, tmp_path):
    config = read_config(write_config())
    results = Runner(config, tmp_path / "out").run()
    assert list(results["systems"]["x"]["accuracy"]) == [NO_DEFENCE, "noise 20 dB"]
    assert [d["defence"] for d in results["cells"][0]["defences"]] == ["noise 20 dB"]


def test_counts_are_those_of_the_files(results, config, tmp_path, system):
    cell = results["cells"][1]
    manifest = tmp_path / "out" / "sets" / cell["set"] / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert cell["attacked"] == len(lines) == 4
    assert cell["fooled"] == "".join(str(int(line["fooled"])) for line in lines)
    assert cell["successes"] == cell["fooled"].count("1")
    assert cell["asr"]["value"] == pytest.approx(cell["successes"] / 4)
    assert cell["defences"][0]["dsr"] is None  # too few successes for a rate


def test_who_knows_a_defence_has_success_only_with_clips_that_stood(results):
    for cell in results["cells"]:
        knows = cell["protocol"] == "adaptive"
        stood, fooled = (np.array(list(cell[name])) == "1" for name in ("stood", "fooled"))
        assert len(stood) == cell["attacked"]
        assert knows or stood.all()
        assert cell["turned"]["value"] == pytest.approx(fooled[stood].mean(), abs=1e-5)
        assert cell["unchanged"] <= (fooled & stood).sum()
    assert any(cell["protocol"] == "adaptive" for cell in results["cells"])


def test_run_again_costs_no_attack(results, config, tmp_path, monkeypatch):
    import nip_audio.evaluation.adversarial_sets as sets

    def refuse(*args: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr(sets, "_attack", refuse)
    assert Runner(config, tmp_path / "out").run() == results


def test_no_set_is_judged_twice(results, config, tmp_path, monkeypatch):
    """But by a defence that is new, or has other settings, it is."""
    asked: list[str] = []

    def count(model, defence, batches, *, level, seed):
        asked.append("nothing" if defence is None else defence.name)
        return ask(model, defence, batches, level=level, seed=seed)

    monkeypatch.setattr("nip_audio.evaluation.bench.ask", count)
    assert Runner(config, tmp_path / "out").run() == results
    assert asked == []
    other = replace(
        config, defences=({"name": "quantization", "bits": 5},), attacks=config.attacks[:1]
    )
    Runner(other, tmp_path / "out").run()
    # behind each of the two sets; and without a defence, for the clean embeddings
    assert asked.count("quantisation 5 bits") == 2
    assert asked.count("noise 20 dB") == 0


def test_only_what_is_finished_is_reported(results, config, tmp_path):
    out = tmp_path / "out"
    manifest = out / "sets" / results["cells"][0]["set"] / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:3]))
    found = Runner(config, out, only_finished=True).run()
    assert found["cells"] == results["cells"][1:]
    assert [(c["attack"], c["eps"]) for c in found["unfinished"]] == [("fgsm", 0.002)]
    write_report(found, out)
    assert "Not evaluated: FGSM (waveform, ε 0.002)." in (out / "tables.md").read_text()
    assert len(manifest.read_text().splitlines()) == 3  # nothing was made


def test_deleted_set_is_made_again_alike(results, config, tmp_path):
    shutil.rmtree(tmp_path / "out" / "sets" / results["cells"][0]["set"])
    again = Runner(config, tmp_path / "out").run()

    def plain(cells):
        return [{k: v for k, v in c.items() if k != "seconds"} for c in cells]

    assert plain(again["cells"]) == plain(results["cells"])


class Spy(Purifier):
    """Writes down what it is shown."""

    level = "raw"
    differentiable = True
    random = False
    name = "spy"

    def __init__(self) -> None:
        self.shown: list[Batch] = []

    def settings(self):
        return {"name": "spy"}

    def purify(self, batch, *, generator):
        self.shown.append(batch)
        return batch.with_x(batch.x * 0.9)


def test_wrong_labels_do_not_reach_the_defence(config, system, tmp_path, monkeypatch):
    """Whatever the evaluation believes the speakers to be, the defence's output is the same."""
    attacks = config.attacks[:1]
    config = replace(config, attacks=attacks, defences=())
    seen = []
    for shift in (0, 1):
        spy = Spy()
        monkeypatch.setattr(defences_module, "GaussianNoise", lambda spy=spy, **settings: spy)
        bench = Bench.build(system, config, tmp_path / f"evidence {shift}")
        runner = Runner(config, tmp_path / "out")
        ((_, cell, examples), *_) = runner.sets([bench], lambda *a: None)
        names = system.model.labels
        believed = [
            replace(e, speaker=names[(names.index(e.speaker) + shift) % len(names)])
            for e in examples.examples
        ]
        bench.judge(cell, replace(examples, examples=tuple(believed)))
        seen.append(spy.shown)
    assert len(seen[0]) == len(seen[1]) > 0
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first.x, second.x)


def test_decisions_do_not_depend_on_who_asks_first(system):
    noise = GaussianNoise(snr_db=10, bounds=system.model.bounds)
    batches = [Batch(item.samples[None]) for item in system.items[:4]]
    first, second = (ask(system.model, noise, batches, level="raw", seed=1) for _ in range(2))
    assert np.array_equal(first.embeddings, second.embeddings)


def test_defence_fitted_on_a_test_clip_is_refused(system, monkeypatch):
    tested = [item.content_sha256 for item in system.items]
    monkeypatch.setattr(GaussianNoise, "seen", frozenset(tested[:2]))
    with pytest.raises(InputError, match="2 test items were seen when the defence noise"):
        make_defences([{"name": "noise", "snr_db": 10}], system.pretrained, system.model, tested)


def guided(seen: frozenset[str] = frozenset()) -> GuidedNip:
    """Untrained, so that it changes nothing."""
    net = InverseNet(width=4).eval().requires_grad_(False)
    return GuidedNip(net, bounds=Bounds(0.0, 1.0), seen=seen)


def test_fitted_defences_are_those_of_the_system(system, tmp_path):
    guided().save(tmp_path / "x.guided", model_id=system.pretrained.model_id)
    plans = [{"name": "guided", "path": tmp_path / "{system}.guided"}]
    found = make_defences(plans, system.pretrained, system.model, [], system="x")
    assert list(found) == [NO_DEFENCE, "noise 20 dB", "guided", "noise as strong as guided"]
    assert found["noise as strong as guided"].bounds == system.model.input_bounds
    with pytest.raises(InputError, match="guided, noise as strong as guided are listed twice"):
        make_defences(plans * 2, system.pretrained, system.model, [], system="x")


def test_a_purifier_that_was_trained_on_a_test_clip_is_refused(system, tmp_path):
    tested = [item.content_sha256 for item in system.items]
    path = tmp_path / "x.guided"
    guided(frozenset(tested[:1])).save(path, model_id=system.pretrained.model_id)
    plans = [{"name": "guided", "path": path}]
    with pytest.raises(InputError, match="1 test items were seen when the defence guided"):
        make_defences(plans, system.pretrained, system.model, tested)


def test_tables_of_defences(results):
    # four examples are too few for a success rate, and none is made up
    assert "quantisation" not in defence_table(results, "x")
    for cell in results["cells"]:
        for found in cell["defences"]:
            found["dsr"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    text = defence_table(results, "x")
    (row,) = [line for line in text.splitlines() if line.startswith("| quantisation")]
    assert row.count("50.0, worst 50.0; noise 50.0") == 2
    assert "noise as strong as" not in text
    assert "waveform, ε 0.002 (1 attacks)" in text
    rows = dsr_table(results, "x", "quantisation 8 bits").splitlines()[2:]
    assert [line.split(" | ")[2] for line in rows] == ["0.002", "0.02"]
    assert all("50.0 [40.0, 60.0]" in line for line in rows)


def test_report_can_be_read(results, tmp_path):
    files = write_report(results, tmp_path / "out")
    assert {f.name for f in files} == {"tables.md", "cells.csv", "success.png", "success.svg"}
    text = files[0].read_text()
    assert "adaptive, to noise 20 dB" in text
    assert "8/255" in text
    assert "`unaware`: the attacker knows the model" in text
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert {r["quantity"] for r in rows} == {"asr", "accuracy_attacked"}
    assert len([r for r in rows if r["quantity"] == "asr"]) == len(results["cells"])


def test_unwritable_folder_is_an_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be created"):
        Runner(config, tmp_path / "file").run()


def test_clips_that_are_mostly_pauses_have_no_intelligibility(
    config, system, tmp_path, monkeypatch
):
    """They do not end the evaluation; where all are, there is no median."""
    config = replace(config, attacks=config.attacks[:1], defences=())
    bench = Bench.build(system, config, tmp_path / "evidence")
    ((_, _, examples), *_) = Runner(config, tmp_path / "out").sets([bench], lambda *a: None)
    fooled = np.ones(len(examples.examples), dtype=bool)
    told = iter([0.5, None, 0.7, 0.9])

    def measured(*args: object, **kwargs: object) -> float:
        if (value := next(told, None)) is None:
            raise TooLittleSpeechError("pauses")
        return value

    monkeypatch.setattr(bench_module, "stoi_available", lambda: True)
    monkeypatch.setattr(bench_module, "stoi", measured)
    assert bench._intelligibility(examples, fooled) == 0.7
    assert bench._intelligibility(examples, fooled) is None
