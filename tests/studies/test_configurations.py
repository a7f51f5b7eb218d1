"""Configurations of the studies that ``nip-audio evaluate`` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nip_audio.evaluation.config import read_config

STUDIES = Path(__file__).parents[2] / "studies"
SHIPPED = sorted(
    path
    for name in ("attacks", "nccr", "nip", "robustness", "verification")
    for path in (STUDIES / name).rglob("*.yaml")
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_make_sense(path, corpus):
    """Every attack is known, has the settings it is given, and works at its level."""
    config = read_config(path, data_root=corpus, split=corpus / "split.csv")
    assert config.seed == 1234
    assert config.attacks
