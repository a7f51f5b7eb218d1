from __future__ import annotations

import numpy as np
import pytest

from nip_audio.errors import InputError
from nip_audio.screening.duplicates import (
    Duplicate,
    correlation_peak,
    find_duplicates,
    nearest_elsewhere,
)

RNG = np.random.default_rng(0)
VOICES = [RNG.standard_normal(3000) for _ in range(4)]


def prints(*sounds: int) -> list[np.ndarray]:
    """Codes of recordings, equal where the number is."""
    return [np.random.default_rng(one).integers(1, 1 << 24, 50, np.uint32) for one in sounds]


def unit(*angles: float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def never(row: int) -> None:
    pytest.fail(f"row {row} was listened to")


def test_equal_samples_under_two_speakers_are_found_without_listening():
    hashes = [b"a", b"a", b"a", b"b"]
    found = find_duplicates(
        hashes, prints(0, 0, 0, 2), unit(0, 1, 2, 3), ["x", "x", "y", "y"], never
    )
    assert found == [Duplicate(0, 2, 1.0), Duplicate(1, 2, 1.0)]


def test_copies_of_one_speaker_are_no_finding():
    assert find_duplicates([b"a", b"a"], prints(0, 0), unit(0, 2), ["x", "x"], never) == []


def test_files_of_nobody_are_of_different_speakers():
    assert find_duplicates([b"a", b"a"], prints(0, 0), unit(0, 2), [None, None], never) == [
        Duplicate(0, 1, 1.0)
    ]


def test_listens_only_to_what_sounds_alike():
    recordings = [VOICES[0], -0.2 * VOICES[0][300:], VOICES[1]]
    listened = []

    def read(row: int) -> np.ndarray:
        listened.append(row)
        return recordings[row]

    found = find_duplicates(
        [b"a", b"b", b"c"], prints(0, 0, 2), unit(0, 2, 4), ["x", "y", "z"], read
    )
    assert [(pair.first, pair.second) for pair in found] == [(0, 1)]
    assert found[0].correlation > 0.99
    assert 2 not in listened


def test_what_the_fingerprint_misses_is_found_by_the_embedding():
    both = lambda row: VOICES[0]  # noqa: E731
    for angle, expected in ((0.1, [(0, 1)]), (2.0, [])):
        found = find_duplicates([b"a", b"b"], prints(0, 1), unit(0.0, angle), ["x", "y"], both)
        assert [(pair.first, pair.second) for pair in found] == expected


def test_two_people_who_sound_alike_are_no_duplicate():
    found = find_duplicates(
        [b"a", b"b"], prints(0, 0), unit(0, 2), ["x", "y"], lambda row: VOICES[row]
    )
    assert found == []


def test_a_file_that_is_gone_is_not_compared():
    assert (
        find_duplicates([b"a", b"b"], prints(0, 0), unit(0, 2), ["x", "y"], lambda row: None) == []
    )


@pytest.mark.parametrize("block", [512, 4096])
def test_nearest_of_another_speaker_in_blocks(monkeypatch, block):
    monkeypatch.setattr("nip_audio.screening.duplicates._BLOCK", block)
    angles = np.linspace(0, 3, 1200)
    codes = np.arange(1200) // 2
    pairs = dict(nearest_elsewhere(unit(*angles), codes, least=0.9))
    assert pairs[0] == 2
    assert all(codes[row] != codes[other] for row, other in pairs.items())
    assert len(pairs) == 1200


@pytest.mark.parametrize("block", [7, 500, 4096])
def test_nearest_of_another_speaker_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr("nip_audio.screening.duplicates._BLOCK", block)
    rows = np.random.default_rng(1).standard_normal((1200, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    codes = np.arange(1200) // 2
    cosines = rows.astype(float) @ rows.T.astype(float)
    cosines[codes[:, None] == codes] = -1
    expected = {i: int(row.argmax()) for i, row in enumerate(cosines) if row.max() >= 0.9}
    assert 100 < len(expected) < 1200
    assert dict(nearest_elsewhere(rows, codes, least=0.9)) == expected


@pytest.mark.parametrize("shift", [0, 700, 1400])
def test_correlation_finds_the_shift(shift):
    noisy = VOICES[0][shift:] + 0.5 * RNG.standard_normal(3000 - shift)
    assert correlation_peak(VOICES[0], noisy) == pytest.approx(1 / np.sqrt(1.25), abs=0.03)


def test_a_short_overlap_does_not_count():
    glued = np.concatenate([VOICES[0][:500], VOICES[1]])
    assert correlation_peak(VOICES[0], glued) < 0.3
    assert correlation_peak(np.zeros(10), VOICES[0]) == 0.0
    with pytest.raises(InputError, match="empty"):
        correlation_peak(np.zeros(0), VOICES[0])
