"""Study purifiers for speaker verification: attack trials of a corpus, and defend them.

The attacker does not know the defences. Speakers are enrolled from the ``calibrate`` role and
recordings of the ``test`` role are verified; what was fitted on ``train`` has seen neither. The
thresholds are at the equal error rate of ``train`` recordings against the same enrolments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks.registry import attack_entry, make_attack
from nip_audio.audio.corpus import ROLES
from nip_audio.audio.io import ReadSettings
from nip_audio.core.metrics import equal_error_rate
from nip_audio.core.model import CosineHead
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError
from nip_audio.evaluation.config import AttackPlan, EvaluationConfig
from nip_audio.evaluation.defences import NO_DEFENCE, make_defences
from nip_audio.evaluation.identification import Crop, read_crops
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.evaluation.systems import role_recordings
from nip_audio.models.plda import Plda, PldaHead
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purifiers.base import Defence
from studies.verification.attacked_trials import AttackedClips, TrialAttack
from studies.verification.trials import (
    P_TARGET,
    Scores,
    Side,
    Trial,
    Verifier,
    clips_of,
    draw_trials,
    error_rates,
    is_target,
    recovered,
    returned,
)

__all__ = ["EvaluatedDefence", "TrialCell", "VerificationStudy"]


@dataclass(frozen=True)
class TrialCell:
    """One attack on one side of one verifier.

    Attributes:
        plan: Plan of the attack.
        eps: Strength ε of the attack; None for an attack without one.
        rows: Indices of the attacked trials among the study's.
        attack: Attack on these trials.
    """

    plan: AttackPlan
    eps: float | None
    rows: Sequence[int]
    attack: TrialAttack

    def describe(self) -> dict[str, Any]:
        """Return the description of the cell for tables."""
        own = is_target(self.attack.trials)
        return {
            "back_end": self.attack.verifier.name,
            "side": self.attack.side,
            "attack": self.plan.attack,
            "title": attack_entry(self.plan.attack).title,
            "norm": self.attack.attack.norm,
            "eps": self.eps,
            "settings": self.attack.attack.settings(),
            "targets": int(own.sum()),
            "impostors": int((~own).sum()),
            "threshold": self.attack.threshold,
            "contrary": self.attack.contrary,
        }


@dataclass(frozen=True)
class EvaluatedDefence:
    """A defence under evaluation, with the embeddings of the unattacked trials.

    Attributes:
        name: Name of the defence in tables.
        defence: The defence itself; None for none.
        tested: (trials, D) embeddings of the purified test recordings.
        enrolled: (trials, D) embeddings of the purified enrolment recordings.
        trusted: (trials, D) embeddings of the enrolment recordings without purification.
        seed: Seed of the defence's random draws.
    """

    name: str
    defence: Defence | None
    tested: Tensor
    enrolled: Tensor
    trusted: Tensor
    seed: int

    @classmethod
    def build(
        cls,
        name: str,
        defence: Defence | None,
        verifier: Verifier,
        trials: Sequence[Trial],
        *,
        seed: int,
    ) -> EvaluatedDefence:
        """Embed the unattacked trials behind a defence."""
        clips = {side: clips_of(trials, side) for side in get_args(Side)}
        purified = {
            side: verifier.behind(defence, _generator(seed, name, side)).embed(clips[side])
            for side in clips
        }
        trusted = verifier.embed(clips["enrolment"])
        return cls(name, defence, purified["test"], purified["enrolment"], trusted, seed)

    def scores(self, cell: TrialCell, attacked: Tensor) -> tuple[Scores, Scores]:
        """Score a cell's trials, clean and attacked, (n,) each.

        If the test recording is attacked, the enrolment is trusted and not purified; if the
        enrolment is attacked, both recordings are purified.
        """
        attack = cell.attack
        generator = _generator(self.seed, self.name, f"attacked {attack.side}")
        changed = attack.verifier.behind(self.defence, generator).embed(attacked)
        tested, score = self.tested[cell.rows], attack.verifier.score
        if attack.side == "test":
            voices = self.trusted[cell.rows]
            return score(voices, tested), score(voices, changed)
        return score(self.enrolled[cell.rows], tested), score(changed, tested)


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


@dataclass(frozen=True)
class VerificationStudy:
    """Trials, and the verifiers that decide on them.

    Attributes:
        config: Configuration; ``items`` of an attack is its number of trials of each kind.
        pretrained: Model, which was not trained on the speakers.
        trials: Target and impostor trials, as many as the largest attack needs.
        verifiers: ``cosine``, and ``plda`` if one comes with the model.
        thresholds: Scores from which the verifiers accept.
        heard: Content hashes of the speakers' ``train`` role, which a defence may have seen.
    """

    config: EvaluationConfig
    pretrained: PretrainedModel
    trials: Sequence[Trial]
    verifiers: Mapping[str, Verifier]
    thresholds: Mapping[str, float]
    heard: frozenset[str]

    @classmethod
    def build(cls, config: EvaluationConfig) -> VerificationStudy:
        """Load the model, read the clips and draw the trials.

        Raises:
            InputError: If there are several systems or no ``crop_s``, a role has too few clips, an
                attack is adaptive, or model, PLDA, enrolment or threshold has seen a test
                recording.
        """
        _check(config)
        pretrained = load_pretrained(config.systems[0].model)
        train, voices, tested = (_clips(config, pretrained, role) for role in ROLES)
        verifiers = list(_verifiers(pretrained))
        enrolled, judged = _contents(voices), _contents(tested)
        refuse_overlap(enrolled, judged, what="enrolment")
        refuse_overlap(_contents(train), enrolled | judged, what="threshold")
        for verifier in verifiers:  # a PLDA may have seen enrolled speakers
            refuse_overlap(verifier.seen, judged, what=f"{verifier.name} verifier")
        most = max(attack.items for attack in config.attacks)
        return cls(
            config=config,
            pretrained=pretrained,
            trials=draw_trials(voices, tested, targets=most, impostors=most, seed=config.seed),
            verifiers={verifier.name: verifier for verifier in verifiers},
            thresholds=_thresholds(verifiers, voices, train),
            heard=_contents(train),
        )

    def cells(self) -> Iterator[TrialCell]:
        """List the attacks on both sides of all verifiers; each attacks the first trials."""
        for plan in self.config.attacks:
            for eps in plan.eps:
                for verifier in self.verifiers.values():
                    for side in get_args(Side):
                        yield self._cell(plan, eps, verifier, side)

    def controls(self) -> Iterator[TrialCell]:
        """List the controls: the first attack on each verifier's test side, in reverse."""
        plan = self.config.attacks[0]
        for verifier in self.verifiers.values():
            yield self._cell(plan, plan.eps[0], verifier, "test", contrary=True)

    def _cell(
        self,
        plan: AttackPlan,
        eps: float | None,
        verifier: Verifier,
        side: Side,
        *,
        contrary: bool = False,
    ) -> TrialCell:
        own = is_target(self.trials)
        rows = [int(r) for kind in (own, ~own) for r in np.flatnonzero(kind)[: plan.items]]
        attack = TrialAttack(
            verifier=verifier,
            side=side,
            attack=make_attack(plan.attack, eps=eps, settings=plan.settings),
            trials=[self.trials[row] for row in rows],
            threshold=self.thresholds[verifier.name],
            seed=self.config.seed,
            batch=plan.batch,
            contrary=contrary,
        )
        return TrialCell(plan, eps, rows, attack)

    def defences(self) -> list[EvaluatedDefence]:
        """Make the defences: none, noise, and each configured one with noise of equal strength.

        Raises:
            InputError: If a defence was fitted on a recording of a trial.
            StateError: If a defence was fitted to another model.
        """
        contents = _contents(clip for t in self.trials for clip in (t.enrolment, t.test))
        system = self.config.systems[0].name
        model = self.pretrained.model
        made = make_defences(self.config.defences, self.pretrained, model, contents, system=system)
        verifier = self.verifiers["cosine"]  # any verifier, since they share the model
        seed = self.config.seed
        return [
            EvaluatedDefence.build(n, d, verifier, self.trials, seed=seed) for n, d in made.items()
        ]

    def judge(
        self, cell: TrialCell, made: AttackedClips, defences: Sequence[EvaluatedDefence]
    ) -> dict[str, Any]:
        """Score a cell's trials behind every defence.

        Returns:
            JSON values: the cell's description, the size and cost of the attack, how many correct
            decisions it turned, and a row per defence.
        """
        attack, seed = cell.attack, self.config.seed
        scored = {defence.name: defence.scores(cell, made.clips) for defence in defences}
        clean, attacked = scored[NO_DEFENCE]
        rows = []
        for name, pair in scored.items():
            before, after = (
                error_rates(scores, attack.trials, threshold=attack.threshold, seed=seed)
                for scores in pair
            )
            shares = {
                key: share(clean, attacked, pair[1], attack.trials, seed=seed)
                for key, share in (("recovered", recovered), ("returned", returned))
            }
            rows.append(
                {
                    "defence": name,
                    "clean": {key: rate.to_json() for key, rate in before.items()},
                    "attacked": {key: rate.to_json() for key, rate in after.items()},
                    **{key: value and value.to_json() for key, value in shares.items()},
                }
            )
        own = is_target(attack.trials)
        right = (clean >= attack.threshold) == own
        signal = clips_of(attack.trials, attack.side)
        change = made.clips - signal
        snr_db = 20 * torch.log10(signal.norm(dim=1) / change.norm(dim=1).clamp_min(1e-9))
        return {
            **cell.describe(),
            "right_before": int(right.sum()),
            "turned": int((right & ((attacked >= attack.threshold) != own)).sum()),
            "median_linf": float(change.abs().amax(dim=1).median()),
            "median_l2": float(change.norm(dim=1).median()),
            "median_snr_db": float(snr_db.median()),
            "queries": made.queries,
            "gradients": made.gradients,
            "seconds": made.seconds,
            "rows": rows,
        }

    def describe(self, defences: Sequence[EvaluatedDefence]) -> dict[str, Any]:
        """Return what all cells have in common, as JSON values."""
        plan = self.config.systems[0]
        own = [t for t in self.trials if t.is_target]
        chapters = [{clip.recording.folder for clip in (t.enrolment, t.test)} for t in own]
        return {
            "title": self.config.title,
            "seed": self.config.seed,
            "protocol": "unaware",
            "split_sha256": file_sha256(self.config.split),
            "model": plan.model,
            "model_id": self.pretrained.model_id,
            "verifiers": {name: v.identity for name, v in self.verifiers.items()},
            "thresholds": dict(self.thresholds),
            "subset": plan.subset,
            "crop_s": plan.crop_s,
            "speakers": len({t.test.speaker for t in self.trials}),
            "targets": len(own),
            "targets_of_one_chapter": sum(len(found) == 1 for found in chapters),
            "impostors": len(self.trials) - len(own),
            "p_target": P_TARGET,
            "defences": {defence.name: self._known(defence.defence) for defence in defences},
        }

    def _known(self, defence: Defence | None) -> dict[str, Any] | None:
        """Return a defence's settings, and how many recordings of these speakers it has seen."""
        if defence is None:
            return None
        seen = defence.seen
        counts = {"seen": len(seen), "seen_of_the_speakers": len(seen & self.heard)}
        return defence.settings() | counts


def _check(config: EvaluationConfig) -> None:
    crop_s = config.systems[0].crop_s
    if len(config.systems) > 1 or crop_s is None:
        raise InputError(
            f"got {len(config.systems)} systems and crop_s {crop_s}, expected one system and clips "
            "of one length; name one, with crop_s"
        )
    for plan in config.attacks:
        if plan.protocol != "unaware" or plan.level != "raw":
            raise InputError(
                f"{plan.attack} is {plan.protocol} at level {plan.level!r}, expected unaware at "
                "'raw': other threat models of verification are not implemented; leave them out"
            )


def _contents(clips: Iterable[Crop]) -> frozenset[str]:
    return frozenset(clip.content_sha256 for clip in clips)


def _clips(config: EvaluationConfig, pretrained: PretrainedModel, role: str) -> list[Crop]:
    plan = config.systems[0]
    settings = ReadSettings(pretrained.card.sample_rate_hz, min_duration_s=0.2)
    return read_crops(role_recordings(config, plan.subset, role), settings, crop_s=plan.crop_s)


def _verifiers(pretrained: PretrainedModel) -> Iterator[Verifier]:
    model, identity = pretrained.model, pretrained.model_id
    seen = pretrained.card.seen
    yield Verifier("cosine", model, f"cosine {identity}", CosineHead, seen)
    path = pretrained.card.plda_path
    if path is not None:
        plda = Plda.load(path, model_id=identity)
        back_end = partial(PldaHead, plda)
        name = f"plda {identity} {file_sha256(path)}"
        yield Verifier("plda", model, name, back_end, seen | set(plda.provenance))


def _thresholds(
    verifiers: Sequence[Verifier], voices: Sequence[Crop], clips: Sequence[Crop]
) -> dict[str, float]:
    """Return the thresholds at the equal error rate of all clips against all voices."""
    enrolled, tested = (
        verifiers[0].embed(torch.stack([clip.samples for clip in part])) for part in (voices, clips)
    )
    names = [np.array([clip.speaker for clip in part]) for part in (voices, clips)]
    own = names[1][:, None] == names[0]
    found = {}
    for verifier in verifiers:
        scores = verifier.score_all(enrolled, tested)
        threshold = equal_error_rate(scores[own], scores[~own]).threshold
        # rounded, so that the attacks do not depend on the last bits of a sum
        found[verifier.name] = round(threshold, 4)
    return found
