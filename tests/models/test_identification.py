from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.models.identification import identify


def test_ranks_by_score_and_posteriors_sum_to_one(pretrained, voice):
    samples = torch.from_numpy(voice(0, 0))
    everyone = identify(pretrained, samples, top=251)
    assert len(everyone) == 251
    scores = [c.score for c in everyone]
    assert scores == sorted(scores, reverse=True)
    assert sum(c.posterior for c in everyone) == pytest.approx(1, abs=1e-5)
    assert identify(pretrained, samples, top=2) == everyone[:2]
    assert set(everyone[0].to_json()) == {"speaker", "score", "posterior"}


def test_refuses_a_model_without_speakers_and_a_senseless_top(pretrained):
    bare = SimpleNamespace(model=SimpleNamespace(head=None), card=SimpleNamespace(name="bare"))
    with pytest.raises(InputError, match="bare only embeds.*nip-audio enroll"):
        identify(bare, torch.zeros(16000))
    with pytest.raises(InputError, match="top is 0"):
        identify(pretrained, torch.zeros(16000), top=0)
