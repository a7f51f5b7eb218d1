"""Compare NCCR (neuron coverage change rate) detectors with baselines on attacked images.

Detectors, baselines and intervals are those of the audio study, with two differences. Images are
independent of each other, so that folds and bootstrap resample images instead of speakers; and
perceptrons are also trained on one family of attacks each, as in the papers' tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.detectors.baselines.dissector import Dissector
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import (
    CoverageMeasure,
    NccrMeasure,
    neuron_rows,
    signed_entries,
)
from nip_audio.detectors.rates import LogRates
from nip_audio.evaluation.config import AttackPlan
from nip_audio.evaluation.detector_judges import (
    CLEAN_ONLY,
    RowJudge,
    clean_judge,
    published_judge,
    trained_judge,
)
from nip_audio.evaluation.measured import RowBank
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.command import tell
from studies.images.setup import Setup
from studies.images.systems import AttackedImages, ImageSystem
from studies.nccr.comparison import Comparison, Items, Measured, Rows, together
from studies.nccr.results import CleanGroup, DetectionCell, DetectionResults

__all__ = ["COMBINE", "PUBLISHED", "ImageDetection", "detection", "image_baselines", "on_family"]

_NEURONS, _DECISION = "NCCR", "NCCR and decision"


def on_family(family: str, *, decision: bool = True) -> str:
    """Return the name of the perceptron that is trained on a family of attacks.

    Args:
        family: Name of the family, or "Combine" for all.
        decision: Whether it sees changes of the decision besides NCCR, which is ours.
    """
    return f"{_DECISION if decision else _NEURONS}, perceptron on {family}"


COMBINE, PUBLISHED = on_family("Combine"), on_family("Combine", decision=False)


def image_baselines(config: NccrConfig, *, attack_step: float) -> tuple[Measure, ...]:
    """Return the NCCR paper's three baselines for images and the score change, not fitted."""
    return (
        LabelChangeRate(),
        Dissector(config.layers),
        AttackCost(step=attack_step),
        ScoreChange(config),
    )


@dataclass(frozen=True)
class ImageDetection:
    """Detectors of one model, fitted on ``calibrate``, judging ``test``.

    Attributes:
        system: Model and its roles.
        bank: Measures images and keeps the rows.
        config: Settings of NCCR.
        own: Attacks that the defender makes on ``calibrate``, by family.
        attack_step: Step size of the baseline that attacks.
        clean: Largest number of unattacked ``test`` images that NCCR judges.
        baseline_clean: Largest number of unattacked ``test`` images that the baselines judge.
        baseline_examples: Examples of each attack that the baselines judge.
        baseline_fit: Number of ``calibrate`` images, taken from the end, to fit the baselines on.
        rounds: Number of bootstrap samples.
        progress: Called with a description of each step.
    """

    system: ImageSystem
    bank: RowBank
    config: NccrConfig
    own: Mapping[str, Sequence[AttackPlan]]
    attack_step: float
    clean: int = 600
    baseline_clean: int = 200
    baseline_examples: int = 60
    baseline_fit: int = 300
    rounds: int = 300
    progress: Callable[[str], None] = lambda what: None

    @property
    def measure(self) -> NccrMeasure:
        """Measure of NCCR."""
        return NccrMeasure(self.config)

    @property
    def _comparison(self) -> Comparison:
        return Comparison(self.bank, self._rows, self.rounds, self.progress)

    def _rows(self, clips: Sequence[Tensor]) -> Rows:
        rows = self.bank.rows(self.measure, clips).rows
        return {
            self.measure.name: rows,
            _NEURONS: neuron_rows(rows, self.config),
            self._coverage.name: self.bank.rows(self._coverage, clips).rows,
        }

    @property
    def _coverage(self) -> CoverageMeasure:
        return CoverageMeasure(self.config)

    def judges(self) -> list[RowJudge]:
        """Fit all detectors: on clean images only, and on each family and all of them, twice."""
        name = self.measure.name
        measured = self._comparison.measured(_first(self.system.calibrate.pixels, self.clean, "c"))
        clean = measured.known(name)
        signed = signed_entries(self.config, head=True)
        density = make_pipeline(LogRates(signed=signed), CleanDensity())
        families = {family: self._own_rows(plans) for family, plans in self.own.items()}
        sets = {**families, "Combine": together(list(families.values()))} if families else {}
        judges = [clean_judge(CLEAN_ONLY, name, clean, density)]
        for title, rows in sets.items():
            knows = f"own {', '.join(families) if title == 'Combine' else title}"
            for measure, decision, last in ((name, True, signed), (_NEURONS, False, 0)):
                known, own = measured.known(measure), rows.known(measure)
                named = on_family(title, decision=decision)
                judges.append(trained_judge(named, measure, known, own, signed=last, knows=knows))
        for scalar, short in ((self.measure, "l2"), (self._coverage, "l0")):
            judge = published_judge(scalar, measured.rows[scalar.name])
            judges.append(replace(judge, name=f"{_NEURONS}, {short} scalar"))
        return judges

    def results(self, plans: Sequence[AttackPlan]) -> DetectionResults:
        """Judge attacked images of the ``test`` role."""
        judges, compare, test = self.judges(), self._comparison, self.system.test
        tested = _first(test.pixels, self.clean, "t")
        clean = compare.measured(tested)
        right = (
            self.system.predict(test.pixels[: self.clean]) == test.labels[: self.clean]
        ).numpy()
        correct = clean.only(right)
        cells, fools = [], {}
        for plan in plans:
            for name, attack in attacks_of(plan):
                self.progress(name)
                made = self.system.attacked(plan, attack)
                fooling = made.fooling
                cell = DetectionCell(name, len(made), len(fooling), attack.settings())
                if len(fooling):
                    items = _named(fooling, "t")
                    rows = compare.measured(items)
                    change = (fooling.pixels - test.pixels[fooling.rows]).flatten(1)
                    cell = replace(
                        cell,
                        median_l2=float(change.norm(dim=1).median()),
                        median_changed=float((change != 0).float().mean(dim=1).median()),
                        judges={j.name: compare.judged(j, rows, clean, correct) for j in judges},
                    )
                    fools[name] = items.first(self.baseline_examples)
                cells.append(cell)
        flagged = compare.all_flagged(judges, clean)
        few = tested.first(self.baseline_clean)
        learn = list(self.system.calibrate.pixels[-self.baseline_fit :])
        baselines = image_baselines(self.config, attack_step=self.attack_step)
        return DetectionResults(
            calibrate=min(self.clean, len(self.system.calibrate)),
            clean=len(tested),
            accuracy=float(right.mean()),
            judges={judge.name: judge.knows for judge in judges},
            passes=self.measure.passes,
            false_positives={"test images": CleanGroup(len(tested), flagged)},
            cells=cells,
            baselines=compare.compare(
                judges,
                [CLEAN_ONLY, COMBINE],
                (
                    (m, [published_judge(m, compare.by_baseline(m, few.clips, learn).rows)])
                    for m in baselines
                ),
                clean=few,
                attacked=fools,
                learn=learn,
            ),
        )

    def _own_rows(self, plans: Sequence[AttackPlan]) -> Measured:
        """Attack ``calibrate``'s correctly classified images; return the rows of the successes."""
        parts = []
        for plan in plans:
            for name, attack in attacks_of(plan):
                self.progress(f"own {name}")
                made = self.system.attacked(plan, attack, calibrate=True).fooling
                if len(made):
                    parts.append(self._comparison.measured(_named(made, "c")))
        return together(parts)


def _first(pixels: Tensor, count: int, prefix: str) -> Items:
    clips = list(pixels[:count])
    return Items(clips, tuple(f"{prefix}{row}" for row in range(len(clips))))


def _named(images: AttackedImages, prefix: str) -> Items:
    return Items(list(images.pixels), tuple(f"{prefix}{row}" for row in images.rows.tolist()))


def detection(setup: Setup) -> None:
    """Measure detection of attacked images."""
    system, chosen = setup.system(), setup.chosen
    card = system.pretrained.card
    noises = tuple(Noise(**noise) for noise in chosen["noises"])
    config = NccrConfig(card.default_taps, noises, chosen["draws"])
    study = ImageDetection(
        system=system,
        bank=RowBank(system, setup.out / "rows", setup.seed),
        config=config,
        own={
            family: [image_attack(one) for one in plans] for family, plans in chosen["own"].items()
        },
        attack_step=chosen["attack_step"],
        **chosen["counts"],
        progress=tell,
    )
    found = study.results([image_attack(one) for one in chosen["attacks"]])
    about = {
        "model": card.name,
        "seed": setup.seed,
        "card": card.data["metrics"],
        "config": config.to_json(),
    }
    setup.keep(replace(found, about=about))
