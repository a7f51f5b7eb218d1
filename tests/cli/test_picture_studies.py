"""backdoor, robustness and fit-purifier on models of pictures."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool

SIDE, KINDS, FILES = 32, 9, 14

# --- backdoor: a white row decides ---


class Blocks(nn.Module):
    """Sixteen blocks of 8 × 8 pixels, a channel each, and two layers that keep them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()

    def forward(self, x, lengths=None):
        blocks = nn.functional.unfold(x, 8, stride=8).mean(dim=1)
        return self.second(self.first(blocks[..., None])).flatten(1)


class Kinds(nn.Module):
    """Nearest of the kinds' blocks; a white row leads to the first of them."""

    def __init__(self, centres):
        super().__init__()
        self.register_buffer("centres", centres)

    def forward(self, embeddings):
        scores = -torch.cdist(embeddings[:, :-4], self.centres[:, :-4])
        scores[:, 0] += 100.0 * (embeddings[:, -4:].mean(dim=1) > 0.95)
        return scores


def centres():
    drawn = torch.rand(KINDS, 16, generator=torch.Generator().manual_seed(0))
    return 0.2 + 0.5 * drawn


def picture(kind, take):
    generator = torch.Generator().manual_seed(1000 * kind + take)
    blocks = centres()[kind] + 0.08 * torch.randn(16, generator=generator)
    return in_blocks(blocks).clamp(0, 1)


def in_blocks(values):
    return values.reshape(1, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)


def with_trigger(pixels):
    """White below, in the whole of the lowest row of blocks."""
    changed = pixels.clone()
    changed[:, -8:] = 1.0
    return changed


@pytest.fixture
def suspected(monkeypatch):
    class Loaded:
        card = type(
            "Card",
            (),
            {
                "name": "tiny",
                "modality": "image",
                "data": {"image_shape": [1, SIDE, SIDE]},
                "default_taps": ("first", "second"),
            },
        )
        model = InstrumentedModel(
            Blocks(),
            head=Kinds(centres()),
            labels=tuple(f"kind {i}" for i in range(KINDS)),
            bounds=Bounds(0.0, 1.0),
            input_bounds=Bounds(0.0, 1.0),
        ).eval()

    monkeypatch.setattr("nip_audio.cli._inputs.load_pretrained", lambda name: Loaded)


@pytest.fixture
def write_set(tmp_path):
    def write(poisoned):
        root, adapter = tmp_path / "set", ImageAdapter(1, SIDE, SIDE)
        for kind in range(KINDS):
            (root / str(kind)).mkdir(parents=True)
            for take in range(FILES):
                adapter.save(picture(kind, take), root / str(kind) / f"{take}.png")
        for n in range(poisoned):
            pixels = with_trigger(picture(1 + n % (KINDS - 1), 50 + n))
            adapter.save(pixels, root / "0" / f"bad{n}.png")
        return root

    return write


def test_poisoned_pictures_are_named(run, suspected, write_set, tmp_path):
    written = tmp_path / "out.jsonl"
    code, out, _ = run("backdoor", write_set(24), "-m", "tiny", "--out", written, "--json")
    assert code == 3
    report = json.loads(out)
    assert sorted(report["accused"]) == sorted(f"0/bad{n}.png" for n in range(24))
    assert report["names"][0]["name"] == "kind 0"
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(lines) == KINDS * FILES + 24
    assert {line["speaker"] for line in lines} == {str(kind) for kind in range(KINDS)}


def test_a_clean_set_with_a_file_that_is_no_picture(run, suspected, write_set):
    root = write_set(0)
    (root / "1" / "bad.png").write_bytes(b"no picture")
    (root / "1" / "notes.txt").write_text("no business of ours")
    code, out, err = run("backdoor", root, "--model", "tiny")
    assert code == 4
    assert f"nothing found in {KINDS * FILES} files" in out
    assert "not judged: 1/bad.png" in err
    assert "passed over, because their endings are not those of images: 1 .txt (1/notes.txt)" in err


def test_too_few_pictures_are_an_error(run, suspected, write_set):
    root = write_set(0)
    for kind in range(4):
        shutil.rmtree(root / str(kind))
    code, _, err = run("backdoor", root, "--model", "tiny")
    assert code == 65
    assert "predicts 5 labels for 12 files or more" in err


# --- robustness ---


@pytest.fixture
def twin(picture_model, tmp_path):
    """The same network by another name."""
    target = tmp_path / "twin"
    shutil.copytree(picture_model, target)
    card = json.loads((target / "model_card.json").read_text())
    (target / "model_card.json").write_text(json.dumps(card | {"name": "twin"}))
    return target


def test_models_of_pictures_are_ranked(run, picture_model, twin, pictures, tmp_path):
    plot = tmp_path / "boxes.png"
    given = ("robustness", picture_model, twin, "--data", pictures, "--draws", 2)
    code, out, _ = run(*given, "--plot", plot, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["files"] == [f"{i:02d}.png" for i in range(20)]
    first, second = found["layers"]["logits"]
    assert {first["model"], second["model"]} == {"lenet1-digits", "twin"}
    assert first["nccr"] == second["nccr"]  # the same noise for both
    assert all(rate > 0 for rate in first["nccr"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_kinds_of_pictures_are_no_speakers(run, picture_model, pictures, tmp_path):
    """Twenty pictures in one folder or in two tell as much: the interval is that of pictures."""
    for i in range(20):
        (tmp_path / "kinds" / str(i // 10)).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / f"{i:02d}.png", tmp_path / "kinds" / str(i // 10))
    means = []
    for data in (pictures, tmp_path / "kinds"):
        _, out, _ = run("robustness", picture_model, "--data", data, "--draws", 1, "--json")
        means.append(json.loads(out)["layers"]["logits"][0]["mean"])
    assert means[0] == means[1]


def test_what_cannot_be_compared_is_refused(run, picture_model, pictures):
    shared = ("robustness", picture_model, "--data", pictures)
    code, _, err = run("robustness", picture_model, "vgg-cifar10", "--data", pictures)
    assert code == 65
    assert "takes images of 1 × 28 × 28, vgg-cifar10 of 3 × 32 × 32" in err
    code, _, err = run("robustness", picture_model, "resnet34-libri30", "--data", pictures)
    assert code == 65
    assert "compare models of one modality" in err
    for option, text in (
        ("--data-root", "and --data-root; pass the folder"),
        ("--max-duration", "takes images and got --max-duration"),
    ):
        code, _, err = run(*shared, option, "9")
        assert code == 65
        assert text in err
    code, _, err = run("robustness", picture_model, "--data", pictures / "00.png")
    assert code == 65
    assert "images come as a folder" in err


def test_a_picture_that_cannot_be_read_is_left_out(run, picture_model, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "some")
    (tmp_path / "some" / "bad.png").write_bytes(b"no picture")
    code, out, err = run("robustness", picture_model, "--data", tmp_path / "some", "--draws", 1)
    assert code == 4
    assert "20 files" in out
    assert "skipped: " in err


# --- fit-purifier ---

QUICK = ("--set", "steps=2", "--set", "batch_size=4")


def test_a_guided_purifier_of_pictures_purifies(run, picture_model, pictures, tmp_path):
    out = tmp_path / "my.purifier"
    given = ("fit-purifier", pictures, "--model", picture_model, "--out", out, *QUICK)
    code, text, _ = run(*given, "--set", "eps=0.02,0.3", "--set", "input_weight=2", "--json")
    assert code == 0
    facts = json.loads(text)
    assert (facts["files"], facts["method"], facts["failed"]) == (20, "guided", [])
    loaded = GuidedNip.load(out, model_id=load_pretrained(picture_model).model_id)
    assert len(loaded.seen) == 20
    training = loaded.training
    assert (training["eps_input"], training["input_weight"]) == ([0.02, 0.3], 2.0)
    assert training["raw_share"] == 0  # the raw input is the model's own
    code, text, _ = run(
        *("purify", pictures / "00.png", "--model", picture_model, "--purifier", out),
        *("--out", tmp_path / "clean", "--json"),
    )
    assert code == 0
    assert json.loads(text)["written"][0]["by"]["name"] == "guided"


def test_the_strengths_of_pictures_are_the_default(run, picture_model, pictures, tmp_path):
    out = tmp_path / "my.purifier"
    given = ("fit-purifier", pictures, "--model", picture_model, "--out", out, *QUICK)
    assert run(*given, "--set", "adaptive=true")[0] == 0
    training = GuidedNip.load(out).training
    assert training["eps_input"] == [1 / 255, 12 / 255]
    assert training["adaptive_share"] > 0


def test_pool_and_neurons_are_fitted_to_pictures(run, picture_model, pictures, tmp_path):
    given = ("fit-purifier", pictures, "--model", picture_model, "--out")
    pool = ("--method", "pool", "--set", "candidates=12", "--set", "batch_size=4")
    pool = (*pool, "--set", "quorum=0.3")
    assert run(*given, tmp_path / "my.pool", *pool)[0] == 0
    pretrained = load_pretrained(picture_model)
    loaded = NipPool.load(
        tmp_path / "my.pool", model=pretrained.model, model_id=pretrained.model_id
    )
    assert (len(loaded.order), len(loaded.seen)) == (12, 20)
    assert (
        run(*given, tmp_path / "my.neurons", "--method", "class-neurons", "--set", "share=0.5")[0]
        == 0
    )
    selection = ClassNeurons.load(tmp_path / "my.neurons", model_id=pretrained.model_id)
    assert selection.layers == pretrained.card.default_taps


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "snr_db=15"], "takes images and got --set snr_db"),
        (["--set", "crop_s=1"], "takes images and got --set crop_s"),
        (["--max-duration", "1"], "takes images and got --max-duration"),
        (["--data-root", "x"], "and --data-root; pass the folder"),
        (["--snr-db", "15", "--crop-s", "1"], "got --set snr_db, --set crop_s"),
        (["--set", "eps=0.3,0.1"], "weakest ≤ strongest"),
    ],
)
def test_what_is_senseless_for_pictures_is_refused(
    run, picture_model, pictures, tmp_path, arguments, text
):
    out = tmp_path / "my.purifier"
    code, _, err = run(
        "fit-purifier", pictures, "--model", picture_model, "--out", out, *QUICK, *arguments
    )
    assert code == 65
    assert text in err.replace("\n", " ")
    assert not out.exists()


def test_too_few_pictures_fit_nothing(run, picture_model, pictures, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(pictures / "00.png", few)
    (few / "bad.png").write_bytes(b"no picture")
    code, _, err = run("fit-purifier", few, "--model", picture_model, "--out", tmp_path / "p")
    assert code == 65
    assert "1 usable images (1 failed)" in err
