"""Every command on a model of every kind: it works, or one error says why not and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.cli import main
from tests.small_ecapa import write_ecapa

NETWORK = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 12, 400, stride=160)
        self.second = nn.Conv1d(12, 16, 5, padding=2)
        self.last = nn.Linear(32, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.log(self.first(x.unsqueeze(1)).square() + 1e-4)
        y = torch.relu(self.second(y))
        return self.last(torch.cat([y.mean(2), y.amax(2)], 1))


def make():
    torch.manual_seed(0)
    return Small().eval()
"""
QUICK = ("--set", "steps=2", "--set", "crop_s=0.5", "--set", "batch_size=2")
POOL = ("--set", "candidates=2", "--set", "crop_s=0.5", "--set", "batch_size=2")
KINDS = ("speechbrain", "resemblyzer", "torchscript", "onnx", "python")
WHITE = ("speechbrain", "resemblyzer", "torchscript", "python")
NO_GRADIENT = "this model gives no gradient, because it runs as a black box"
NO_CLASSES = "only embeds and knows no speakers; enrol speakers with nip-audio enroll"
OTHER_FRONT_END = "expected LogMel; only models of speech that come with nip-audio"


def speechbrain(folder: Path) -> str:
    return str(write_ecapa(folder))


def resemblyzer(folder: Path) -> str:  # noqa: ARG001
    for package in ("resemblyzer", "librosa"):
        if find_spec(package) is None:
            pytest.skip(f"the extra resemblyzer brings {package}")
    return "resemblyzer"


def torchscript(folder: Path) -> str:
    space: dict[str, Any] = {"__name__": "any_model_scripted"}
    exec(compile(NETWORK, "nets", "exec"), space)  # noqa: S102 - the text above
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is deprecated; files of it remain
        traced = torch.jit.trace(space["make"](), 0.1 * torch.randn(1, 16000))
        torch.jit.save(traced, folder / "small.pt")
    return f"torchscript:{folder / 'small.pt'}"


def onnx(folder: Path) -> str:
    """A graph with an operator that the converter does not know: it stays a black box."""
    made = pytest.importorskip("onnx", reason="the extra onnx reads ONNX files")
    for package in ("onnxruntime", "onnx2torch"):
        pytest.importorskip(package, reason="the extra onnx runs ONNX files")
    node, array = made.helper.make_node, made.numpy_helper.from_array
    rng = np.random.default_rng(0)
    first = (0.1 * rng.standard_normal((12, 1, 400))).astype(np.float32)
    second = (0.1 * rng.standard_normal((12, 12, 5))).astype(np.float32)
    small = np.array(1e-4, dtype=np.float32)
    constants = {"first": first, "second": second, "axis": np.array([1]), "small": small}
    nodes = [
        node("Unsqueeze", ["wav", "axis"], ["rows"]),
        node("Conv", ["rows", "first"], ["c"], strides=[160]),
        node("Mul", ["c", "c"], ["power"]),
        node("Add", ["power", "small"], ["raised"]),
        node("Log", ["raised"], ["levels"]),
        node("Shrink", ["levels"], ["shrunk"], lambd=0.1),
        node("Conv", ["shrunk", "second"], ["d"]),
        node("ReduceMean", ["d"], ["embs"], axes=[2], keepdims=0),
    ]
    value, kind = made.helper.make_tensor_value_info, made.TensorProto.FLOAT
    graph = made.helper.make_graph(
        nodes,
        "g",
        [value("wav", kind, ("b", "n"))],
        [value("embs", kind, ("b", 12))],
        [array(values, name) for name, values in constants.items()],
    )
    model = made.helper.make_model(graph, opset_imports=[made.helper.make_opsetid("", 13)])
    model.ir_version = 8
    made.save(model, folder / "box.onnx")
    return f"onnx:{folder / 'box.onnx'}"


def python(folder: Path) -> str:
    (folder / "any_model_nets.py").write_text(NETWORK)
    return "python:any_model_nets:make"


MAKE = {f.__name__: f for f in (speechbrain, resemblyzer, torchscript, onnx, python)}


class Adopted:
    """An adopted model with everything that later commands need."""

    def __init__(self, root: Path, kind: str, clean: Path) -> None:
        self.kind, self.clean = kind, clean
        self.white = kind in WHITE
        self.directory, self.calibration = root / "adopted", root / "calibration"
        self.voices, self.purifier, self.pool = (
            root / name for name in ("voices", "purifier", "pool")
        )
        (root / "source").mkdir()
        source = MAKE[kind](root / "source")
        trust = ["--trust-model"] if kind == "torchscript" else []
        self.must("adopt", source, "--out", self.directory, "--data", clean, *trust)
        model = ("--model", self.directory)
        self.must("calibrate", clean, *model, "--clean-only", "--out", self.calibration)
        self.must("enroll", clean, *model, "--out", self.voices)
        if self.white:
            self.must("fit-purifier", clean, *model, "--out", self.purifier, *QUICK)
            pooled = ("fit-purifier", clean, *model, "--method", "pool", "--out", self.pool)
            self.must(*pooled, *POOL)

    @staticmethod
    def must(*arguments: object) -> None:
        assert main([str(a) for a in arguments]) == 0, arguments


@pytest.fixture(scope="module", params=KINDS)
def adopted(request, tmp_path_factory, clean_folder) -> Iterator[Adopted]:
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))  # the store of trusted models
        patch.syspath_prepend(root / "source")  # where the Python module lies
        yield Adopted(root, request.param, clean_folder)


# what each command is given, and what it says: one text if it works for all kinds, else a text for
# each group of kinds
FILE, CAL, VOICES, OUT, CLEAN = "{file}", "{calibration}", "{voices}", "{out}", "{clean}"
FITTED = (0, "fitted in the fixture")
JUDGE = ("-c", CAL, "--fpr", "0.2")
AIM = ("--threshold", "0.5", "--out", OUT)
TABLE: dict[str, tuple[tuple[str, ...], dict[str, tuple[int, str]]]] = {
    "detect": (("detect", FILE, *JUDGE), {"all": (0, "clean")}),
    "screen": (("screen", "{few}", *JUDGE, "--out", OUT), {"all": (-1, "2 files")}),
    "verify": (
        ("verify", FILE, "-e", VOICES, "-s", "s1", "-c", CAL),
        {"all": (-1, "s1 (cosine")},
    ),
    "verify without a calibration": (
        ("verify", FILE, "-e", VOICES, "-s", "s1"),
        {"all": (65, "comes without a calibration; make one with: nip-audio calibrate")},
    ),
    "identify": (
        ("identify", FILE),
        {"speechbrain": (0, "%"), "all": (65, NO_CLASSES)},
    ),
    "pgd": (
        ("attack", FILE, "--attack", "pgd", "--set", "steps=2", *AIM),
        {"onnx": (65, "the system gives no gradient"), "all": (0, "in the written file")},
    ),
    "fakebob": (
        ("attack", FILE, "--attack", "fakebob", "--set", "steps=1", *AIM),
        {"all": (0, "in the written file")},
    ),
    "hopskipjump": (
        ("attack", FILE, "--attack", "hopskipjump", "--set", "queries=9", *AIM),
        {"all": (0, "in the written file")},
    ),
    "square": (
        ("attack", FILE, "--attack", "square", "--set", "queries=5", *AIM),
        {"all": (0, "in the written file")},
    ),
    "fit-purifier": (
        ("fit-purifier", CLEAN, "--out", OUT, *QUICK),
        {"onnx": (65, NO_GRADIENT), "all": FITTED},
    ),
    "fit a pool": (
        ("fit-purifier", CLEAN, "--method", "pool", "--out", OUT, *POOL),
        {"onnx": (65, NO_GRADIENT), "all": FITTED},
    ),
    "purify": (
        ("purify", FILE, "-p", "{purifier}", "--out", OUT, "--plot", *JUDGE),
        {"onnx": (65, "cannot be read"), "all": (0, "SNR")},
    ),
    "purify by a pool": (
        ("purify", FILE, "--method", "pool", "-p", "{pool}", "--out", OUT),
        {"onnx": (65, "cannot be read"), "all": (0, "SNR")},
    ),
    "purify by noise": (
        ("purify", FILE, "--method", "noise", "--out", OUT, "--plot"),
        {"all": (0, "SNR")},
    ),
    "purify without a purifier": (
        ("purify", FILE, "--out", OUT),
        {"all": (65, "comes without a fitted guided purifier; pass --purifier FILE")},
    ),
    "robustness": (
        ("robustness", "{model}", "--data", "{few}", "--draws", "2", "--level", "raw"),
        {"all": (0, "NCCR")},
    ),
    "backdoor": (
        ("backdoor", "{few}"),
        {"speechbrain": (65, "expected at least"), "all": (65, "has no classifier")},
    ),
    "fit-plda": (
        ("fit-plda", CLEAN, "--out", OUT, "--lda-dim", "6"),
        {"all": (0, "32 embeddings of 8 speakers")},
    ),
    "export": (("export", "{model}", "--out", OUT), {"all": (65, OTHER_FRONT_END)}),
}
NO_MODEL_OPTION = ("robustness", "export")


@pytest.mark.parametrize("case", TABLE)
def test_every_command(case, adopted, clean_folder, tmp_path, run):
    words, expected = TABLE[case]
    wanted, text = expected.get(adopted.kind, expected.get("all", (0, "")))
    if (wanted, text) == FITTED:
        assert (adopted.purifier.is_file(), adopted.pool.is_file()) == (True, True)
        return
    few = tmp_path / "few"
    few.mkdir()
    for take in (0, 1):
        (few / f"{take}.wav").write_bytes((clean_folder / f"s1/take{take}.wav").read_bytes())
    places = {
        "file": clean_folder / "s1/take0.wav",
        "clean": clean_folder,
        "few": few,
        "out": tmp_path / "out",
        "model": adopted.directory,
        "calibration": adopted.calibration,
        "voices": adopted.voices,
        "purifier": adopted.purifier,
        "pool": adopted.pool,
    }
    given = [word.format(**places) for word in words]
    if words[0] not in NO_MODEL_OPTION:
        given += ["--model", str(adopted.directory)]
    code, out, err = run(*given)
    said = out + err
    assert text in said, said
    assert code in ((0, 3) if wanted == -1 else (wanted,)), said
    if code >= 64:
        assert err.count("error: ") == 1
        assert "Traceback" not in err


def test_the_report_draws_flagged_files(adopted, clean_folder, tmp_path, run):
    few = tmp_path / "few"
    few.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(few / "noise.wav", 0.3 * rng.standard_normal(16000), 16000, "PCM_16")
    given = ("--model", adopted.directory, *("-c", adopted.calibration), "--fpr", 0.2)
    code, _, err = run("screen", few, *given, "--out", tmp_path / "out")
    assert code in (0, 3, 4), err
    code, _, err = run("report", tmp_path / "out", *given[:4])
    assert code == 0, err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    if "Listen and look" in page:
        assert ("decision rests on" in page) == adopted.white


def test_embeds_from_python(adopted, clean_folder):
    import nip_audio

    voice = nip_audio.embed(clean_folder / "s1/take0.wav", model=adopted.directory)
    assert voice.norm().item() == pytest.approx(1.0, abs=1e-5)  # of a 32-bit vector
