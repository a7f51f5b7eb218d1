from __future__ import annotations

import hashlib

import torch

from nip_audio.core.seeds import generator_of, seed_of


def test_a_seed_is_the_first_bits_of_the_digest_of_its_parts():
    digest = hashlib.sha256(b"7:clip:2").digest()
    assert seed_of(7, "clip", 2) == int.from_bytes(digest[:7], "big")
    assert seed_of(7, "clip", 2, bits=63) == int.from_bytes(digest[:8], "big") >> 1


def test_committed_results_depend_on_these_numbers():
    """Another rule would give other draws behind calibrations and results that are committed."""
    assert seed_of(0, "a") == 44459602984103823
    assert seed_of(0, "a", bits=63) == 5690829181965289459


def test_a_generator_has_its_seed():
    first, again = (torch.rand(3, generator=generator_of(0, "a", bits=63)) for _ in range(2))
    assert torch.equal(first, again)
    assert generator_of(0, "a").initial_seed() == seed_of(0, "a")
