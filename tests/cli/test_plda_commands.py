from __future__ import annotations

import json
import shutil

import pytest
import soundfile

RATE_HZ = 16000


@pytest.fixture(scope="module")
def others(tmp_path_factory, voice):
    """Two recordings each of the speakers of ``clean_folder``, to calibrate on."""
    root = tmp_path_factory.mktemp("others")
    for speaker in range(8):
        for take in (30, 31):
            path = root / f"s{speaker}" / f"take{take}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, voice(speaker, take), RATE_HZ, "PCM_16")
    return root


@pytest.fixture
def fit(run, clean_folder, tmp_path):
    """Fit to ``clean_folder``; return the file and what was printed."""

    def call(*options: object):
        path = tmp_path / "my.plda"
        code, out, err = run(
            "fit-plda", clean_folder, "--out", path, "--lda-dim", 6, "--json", *options
        )
        assert code == 0, err
        return path, json.loads(out)

    return call


def test_fit_plda_prints_what_it_was_fitted_on(fit, others, pretrained):
    path, printed = fit("--calibrate", others, "--rank", 4)
    threshold = printed.pop("threshold")
    assert isinstance(threshold, float)
    assert printed == {
        "out": str(path), "speakers": 8, "embeddings": 32, "dimensions": 6, "rank": 4,
        "failed": [], "model_id": pretrained.model_id,
    }  # fmt: skip
    assert fit("--crop-s", 0.5, "--force")[1]["embeddings"] == 64


def test_verify_by_ratio_with_the_files_own_threshold(run, fit, others, enrolment, folder):
    path, printed = fit("--calibrate", others)
    base = ["verify", folder / "s1/take10.wav", "-e", enrolment, "--plda", path]
    code, out, _ = run(*base, "-s", "s1", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["threshold"] == printed["threshold"]
    assert list(result) == ["file", "speaker", "llr", "threshold", "accepted", "changes", "error"]
    code, out, _ = run(*base, "-s", "s1")
    assert f"accepted as s1 (llr {result['llr']:.3f}, threshold" in out
    above = result["llr"] + 0.01
    code, out, _ = run(*base, "-s", "s1", "--json", "--threshold", above)
    assert (code, json.loads(out)["accepted"]) == (3, False)
    other = json.loads(run(*base, "-s", "s7", "--json")[1])["llr"]
    assert other < result["llr"]


def test_verify_needs_a_threshold_of_the_same_score(run, fit, enrolment, folder, tmp_path):
    path, _ = fit()
    base = ["verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s1", "--plda", path]
    code, _, err = run(*base)
    assert code == 65
    assert "the PLDA has no threshold; pass --threshold" in err
    code, _, err = run(*base, "--calibration", tmp_path / "any")
    assert code == 65
    assert "pass only one of --calibration and --plda" in err


def test_verify_refuses_what_is_no_plda(run, enrolment, folder):
    base = ["verify", folder / "s1/take10.wav", "-e", enrolment, "-s", "s1", "--plda"]
    code, _, err = run(*base, enrolment)
    assert code == 65
    assert "has kind enrolment and format 1, expected kind plda" in err


def test_fit_plda_leaves_out_short_files_with_4(run, clean_folder, tmp_path, voice):
    source = tmp_path / "voices"
    shutil.copytree(clean_folder, source)
    soundfile.write(source / "s0/short.wav", voice(0, 40, 0.7), RATE_HZ)
    code, out, err = run(
        "fit-plda", source, "--out", tmp_path / "p", "--lda-dim", 6, "--crop-s", 0.8
    )
    assert code == 4
    assert "short.wav: it lasts 0.70 s, less than one clip of 0.8 s" in err
    assert "32 embeddings of 8 speakers, threshold none" in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "or reduce the dimensions to 7 or fewer (--lda-dim)"),
        (["--lda-dim", "8"], "lda_dim is 8 for 8 speakers"),
        (["--lda-dim", "4", "--crop-s", "2.5"], "no recording could be embedded; the first"),
    ],
)
def test_fit_plda_refuses_too_little_data(run, clean_folder, tmp_path, options, text):
    code, _, err = run("fit-plda", clean_folder, "--out", tmp_path / "p", *options)
    assert code == 65
    assert text in " ".join(err.split())
    assert not (tmp_path / "p").exists()


def test_fit_plda_keeps_what_is_there(run, fit, clean_folder):
    path, _ = fit()
    before = path.read_bytes()
    code, _, err = run("fit-plda", clean_folder, "--out", path, "--lda-dim", "4")
    assert code == 65
    assert "exists already" in err
    assert path.read_bytes() == before
    assert run("fit-plda", clean_folder, "--crop-s", "-1", "--out", path)[0] == 64
