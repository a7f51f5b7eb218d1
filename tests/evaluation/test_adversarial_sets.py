from __future__ import annotations

import errno
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest
import torch

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import seed_of
from nip_audio.errors import HashMismatchError, OutputError
from nip_audio.evaluation.adversarial_sets import (
    Example,
    Recipe,
    _read_manifest,
    finished_set,
    make_set,
)
from nip_audio.purifiers.noise import GaussianNoise

EPS = 0.004


@pytest.fixture
def recipe(system) -> Recipe:
    right = [i for i, hit in zip(system.items, system.is_correct, strict=True) if hit]
    return Recipe(
        system=system,
        source=system,
        purifier=None,
        guard=None,
        attack=GradientAttack("pgd", EPS, steps=3),
        level="raw",
        items=right[:4],
        seed=1,
        batch=2,
    )


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".lock"}


def test_waveforms_are_judged_as_they_are_read_back(recipe, tmp_path):
    made = make_set(recipe, tmp_path / "s")
    assert [e.id for e in made.examples] == [i.id for i in recipe.items]
    for example, item in zip(made.examples, recipe.items, strict=True):
        audio = read_audio(tmp_path / "s" / example.file, ReadSettings())
        assert audio.encoding == "FLAC/PCM_16"
        delta = audio.samples - item.samples
        assert 0.5 * EPS < float(delta.abs().max()) <= EPS + 1 / 32768
        assert example.linf == pytest.approx(float(delta.abs().max()))
        assert example.l2 == pytest.approx(float(delta.norm()), rel=1e-5)
        snr_db = 20 * torch.log10(item.samples.norm() / delta.norm())
        assert example.snr_db == pytest.approx(float(snr_db), abs=1e-3)
        named = recipe.system.model.predict(Batch(audio.samples[None]))
        assert example.fooled == (recipe.system.model.labels[int(named)] != item.speaker)
    torch.testing.assert_close(made.values([2]).x[0], audio_of(made, 2))


def audio_of(made, index):
    return read_audio(made.folder / made.examples[index].file, ReadSettings()).samples


def test_spectrograms_keep_to_their_own_bounds(recipe, tmp_path):
    spectral = replace(recipe, level="input", attack=GradientAttack("fgsm", 0.03))
    made = make_set(spectral, tmp_path / "s")
    model = recipe.system.model
    clean = model.to_input(Batch(torch.stack([i.samples for i in recipe.items]))).x
    x = torch.cat([batch.x for batch in made.batches(3)])
    assert x.shape == clean.shape
    assert (x - clean).abs().max() <= 0.03 + 1e-6
    assert x.min() >= 0
    assert x.max() <= 1
    fooled = [e.fooled for e in made.examples]
    named = model.without_front_end().predict(Batch(x))
    labels = torch.tensor([model.labels.index(i.speaker) for i in recipe.items])
    assert (named != labels).tolist() == fooled


def test_interrupted_set_ends_as_an_undisturbed_one(recipe, tmp_path):
    whole = make_set(recipe, tmp_path / "whole")
    make_set(recipe, tmp_path / "cut")
    manifest = tmp_path / "cut" / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:2]) + lines[2][:20])  # killed while writing
    (tmp_path / "cut" / whole.examples[3].file).unlink()
    counted = []
    resumed = make_set(recipe, tmp_path / "cut", progress=counted.append)
    assert counted == [2, 2]
    drop = {"seconds"}
    for a, b in zip(whole.examples, resumed.examples, strict=True):
        assert {k: v for k, v in vars(a).items() if k not in drop} == {
            k: v for k, v in vars(b).items() if k not in drop
        }
    assert len(manifest.read_text().splitlines()) == 4


def test_who_only_looks_leaves_another_process_line_alone(recipe, tmp_path):
    make_set(recipe, tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.jsonl"
    written = manifest.read_text()[:-30]  # the last line is just being written
    manifest.write_text(written)
    assert finished_set(recipe, tmp_path / "s") is None
    assert manifest.read_text() == written


def test_key_depends_on_everything_a_set_depends_on(recipe):
    noise = GaussianNoise(snr_db=20, bounds=recipe.system.model.bounds)
    variants = [
        recipe,
        replace(recipe, attack=GradientAttack("pgd", EPS, steps=4)),
        replace(recipe, level="input"),
        replace(recipe, items=recipe.items[:3]),
        replace(recipe, seed=2),
        replace(recipe, batch=3),
        replace(recipe, purifier=noise),
    ]
    assert len({r.key for r in variants}) == len(variants)


def test_folder_of_another_set_is_refused(recipe, tmp_path):
    make_set(recipe, tmp_path / "s")
    with pytest.raises(OutputError, match="holds a set of another recipe"):
        make_set(replace(recipe, seed=2), tmp_path / "s")


def test_changed_example_is_refused(recipe, tmp_path):
    made = make_set(recipe, tmp_path / "s")
    path = tmp_path / "s" / made.examples[1].file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(HashMismatchError, match="has changed since it was written"):
        made.values([1])


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 1 + int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path, number):
    """Another process that is at a part of a set."""
    command = [sys.executable, "-c", HOLD, str(path), str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.communicate()


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_that_another_process_is_at_is_left_to_it(recipe, tmp_path, number):
    folder = tmp_path / "s"
    folder.mkdir()
    told = []
    with held(folder / ".lock", number):
        assert make_set(recipe, folder, progress=told.append) is None
    other = recipe.items[2:] if number == 0 else recipe.items[:2]
    assert set(_read_manifest(folder / "manifest.jsonl", repair=False)) == {i.id for i in other}
    assert told == [2]
    whole = make_set(recipe, folder)
    alone = make_set(recipe, tmp_path / "alone")
    assert [e.sha256 for e in whole.examples] == [e.sha256 for e in alone.examples]


def test_a_file_system_without_locks_is_an_error_not_a_wait(recipe, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("nip_audio.evaluation.adversarial_sets.fcntl.lockf", refuse)
    with pytest.raises(OutputError, match="on a file system without locks .*another `out`"):
        make_set(recipe, tmp_path / "s")


def test_what_a_process_that_died_was_at_is_made(recipe, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    with held(folder / ".lock", 0) as process:
        process.kill()
    assert make_set(recipe, folder) is not None


def test_attacker_and_defender_draw_apart(recipe, tmp_path):
    """Two parts of a set through a random defence: reproducible, and not the same draws."""
    noise = GaussianNoise(snr_db=20, bounds=recipe.system.model.bounds)
    adaptive = replace(recipe, purifier=noise)
    first, second = make_set(adaptive, tmp_path / "a"), make_set(adaptive, tmp_path / "b")
    assert [e.sha256 for e in first.examples] == [e.sha256 for e in second.examples]
    draws = [adaptive.objective(recipe.items[:2], n).model.generator for n in (0, 1)]
    assert draws[0].initial_seed() != draws[1].initial_seed()
    assert draws[0].initial_seed() != seed_of(recipe.seed, "defence")


def test_description_is_the_whole_recipe(recipe, tmp_path):
    make_set(recipe, tmp_path / "s")
    assert json.loads((tmp_path / "s" / "set.json").read_text()) == recipe.describe()


@pytest.mark.parametrize("line", ["[]", "{}", '{"id": 1}', "no json", "[" * 100_000, "UNHASHABLE"])
def test_a_damaged_line_of_a_set_is_an_error_of_ours(tmp_path, line):
    names = {field.name: 0 for field in fields(Example)}
    line = json.dumps({**names, "id": []}) if line == "UNHASHABLE" else line
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(OutputError, match=r"manifest.jsonl is damaged .*use another folder"):
        _read_manifest(tmp_path / "manifest.jsonl", repair=False)
