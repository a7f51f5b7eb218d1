"""The sound that purifiers write is measured as a user would hear and score it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from nip_audio.audio.io import to_16_bits
from nip_audio.audio.quality import MAX_SNR_DB
from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.sound import PurifiedSound, sound_table
from nip_audio.purifiers.activation_pruning import ActivationPruning
from nip_audio.purifiers.base import Level, Purifier
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization

CLIPS = 3


class Untouched(Purifier):
    """Changes nothing."""

    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False
    level: Level = "raw"

    name = "untouched"

    def settings(self):
        return {"name": self.name}

    def purify(self, batch, *, generator):
        return batch


class Quieter(Untouched):
    """Takes 10 of 100 dB from a spectrogram."""

    level: Level = "input"
    name = "quieter"

    def purify(self, batch, *, generator):
        return batch.with_x((batch.x - 0.1).clamp_min(0.0))


def sound_of(system, *purifiers, **others) -> PurifiedSound:
    defences = {NO_DEFENCE: None, **{p.name: p for p in purifiers}, **others}
    return PurifiedSound.of(system, defences, clips=CLIPS, seed=1)


def test_what_is_not_changed_sounds_as_before(system):
    (row,) = sound_of(system, Untouched()).clean().values()
    rounded = {"clips": CLIPS, "accuracy": row["accuracy_before"]}
    assert {key: row[key] for key in rounded} == rounded
    assert 60 < row["snr_db"]["median"] <= MAX_SNR_DB


def test_a_purifier_of_spectrograms_is_heard_as_sound(system):
    sound = sound_of(system, Quieter())
    clip = system.items[0].samples
    made = sound.written("quieter", clip)
    assert made.shape == clip.shape
    assert torch.equal(made, to_16_bits(made))
    level = 20 * torch.log10(made.norm() / clip.norm())
    assert float(level) == pytest.approx(-10, abs=1.5)
    assert sound.clean()["quieter"]["snr_db"]["median"] == pytest.approx(3.3, abs=1.5)


def test_stronger_noise_is_heard_and_is_drawn_alike(system):
    loud, soft = (GaussianNoise(snr_db=db, bounds=system.model.bounds) for db in (5.0, 30.0))
    rows = sound_of(system, loud, soft).clean()
    assert rows[loud.name]["snr_db"]["median"] == pytest.approx(5, abs=0.5)
    assert rows[soft.name]["snr_db"]["median"] == pytest.approx(30, abs=0.5)
    assert sound_of(system, loud).clean()[loud.name] == rows[loud.name]


def test_layers_of_a_network_write_no_sound(system):
    layers = ActivationPruning(layers=system.pretrained.card.default_taps)
    assert set(sound_of(system, Untouched(), layers=layers).purifiers) == {"untouched"}


def test_a_rate_needs_enough_examples(system, monkeypatch):
    clips = [item.samples for item in system.items]
    owners = [item.speaker for item in system.items]
    sound = sound_of(system, Quantization(bits=8, level="raw", bounds=system.model.bounds))
    (name,) = sound.purifiers
    assert sound.recovered(name, clips, owners) == {"clips": CLIPS, "dsr": None}
    monkeypatch.setattr("nip_audio.evaluation.sound.MIN_SUCCESSES", CLIPS)
    found = sound.recovered(name, clips, owners)
    assert found["clips"] == CLIPS
    assert 0 <= found["dsr"]["value"] <= 1


def test_the_table_sets_written_beside_scored():
    row = {
        "clips": 40,
        "snr_db": {"median": 4.0, "low": 3.0, "high": 5.0},
        "stoi": None,
        "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9},
        "accuracy_before": {"value": 0.9, "low": 0.8, "high": 1.0},
    }
    cell = {
        **{"system": "x", "protocol": "unaware", "level": "raw", "norm": "linf", "eps": 0.002},
        "defences": [
            {
                "defence": "guided",
                "dsr": {"value": 0.95},
                "written": {"clips": 40, "dsr": {"value": 0.5}},
            }
        ],
    }
    results = {"systems": {"x": {"sound": {"guided": row}}}, "cells": [cell]}
    table = sound_table(results, "x")
    assert "| guided | 40 | 4.0 (3.0–5.0) | not evaluated |" in table
    assert "50.0 of 95.0 (1)" in table
    assert sound_table({"systems": {"x": {"sound": None}}, "cells": []}, "x") == ""
