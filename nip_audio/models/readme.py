"""README.md of a model directory, made from its card after the conventions of the Hugging Face hub.

It begins with the YAML block that the hub reads (licence, library, data sets, results) and states
what people look for in a model card. ``model_card.json`` stays the source: nothing is known here
that is not in it, but for the licences of the corpora that its words name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nip_audio.models.cards import CARD_NAME, Modality, ModelCard, read_card

__all__ = [
    "CORPORA",
    "NOT_STATED",
    "README_NAME",
    "Corpus",
    "Measured",
    "corpora_of",
    "licence_of_data",
    "measured_of",
    "misuses_of",
    "readme_of",
    "words_of_data",
    "write_readme",
]

README_NAME = "README.md"
NOT_STATED = "not stated"
"""What stands where a card says nothing."""


@dataclass(frozen=True)
class Corpus:
    """A published set of data.

    Attributes:
        name: Name by which cards mention it.
        licence: Its licence in words.
        source: Who published it.
        hub: Its identifier on the hub; None if it has none.
    """

    name: str
    licence: str
    source: str
    hub: str | None


CORPORA = (
    Corpus("LibriSpeech", "CC BY 4.0", "Panayotov et al. 2015", "openslr/librispeech_asr"),
    Corpus("VCTK", "CC BY 4.0", "Yamagishi et al. 2019", "CSTR-Edinburgh/vctk"),
    Corpus("MNIST", "CC BY-SA 3.0", "LeCun et al. 1998", "ylecun/mnist"),
    Corpus("CIFAR-10", "no explicit licence", "Krizhevsky 2009", "uoft-cs/cifar10"),
    Corpus("GTSRB", "no explicit licence", "Stallkamp et al. 2012", None),
)


@dataclass(frozen=True)
class Measured:
    """One result of a card.

    Attributes:
        task: Identification, verification or classification.
        metric: ``accuracy`` or ``eer`` (equal error rate), as the hub calls them.
        on: What it was measured on, in words.
        value: Share in [0, 1].
        low: Lower end of the 95 % interval.
        high: Its upper end.
        items: Number of clips or images; None if the card does not state it.
    """

    task: str
    metric: str
    on: str
    value: float
    low: float
    high: float
    items: int | None

    @property
    def percent(self) -> str:
        """Value and interval in percent."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def items_text(self) -> str:
        """Number of clips or images in words."""
        what = "images" if self.task == "Image classification" else "clips"
        return f"number of {what} not stated" if self.items is None else f"{self.items} {what}"

    @property
    def name(self) -> str:
        """Metric and what it was measured on, in words."""
        return f"{_METRICS[self.metric]}, {self.on}"


_METRICS = {"accuracy": "Accuracy", "eer": "EER"}
_GROUPS = {
    "all": "test clips",
    "closed_set": "test clips",
    "new_chapter": "test clips of chapters not trained on",
}
_ENROLLED = {
    "all": "enrolled speakers not trained on, all test clips",
    "new_chapter": "enrolled speakers not trained on, test clips of chapters not enrolled from",
}


@dataclass(frozen=True)
class _Words:
    """What a README says of the models of one modality."""

    pipeline: str
    tags: tuple[str, ...]
    classes: str
    research: str
    closed: str
    people: str
    elsewhere: str
    file: str
    other_library: str


_WORDS: Mapping[Modality, _Words] = {
    "audio": _Words(
        pipeline="audio-classification",
        tags=("speaker-recognition", "speaker-identification", "speechbrain"),
        classes="speakers",
        research="speaker recognition",
        closed="It names one of its {} speakers whatever it hears, strangers too.",
        people="It must not decide about people by itself: access, evidence and surveillance need "
        "more than the answer of one model.",
        elsewhere="other languages, microphones, rooms and telephone lines are",
        file="recording.wav",
        other_library="\n\nSpeechBrain loads the same directory: "
        '`EncoderClassifier.from_hparams(source="DIRECTORY")`.',
    ),
    "image": _Words(
        pipeline="image-classification",
        tags=("image-classification",),
        classes="classes of images",
        research="image classifiers",
        closed="It names one of its {} classes whatever it is shown.",
        people="It must not decide by itself what can harm people.",
        elsewhere="other cameras and other data are",
        file="image.png",
        other_library="",
    ),
}

_HUB_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"}


def write_readme(directory: Path) -> Path:
    """Write the README.md of a model directory from its card; one that is there is replaced.

    Raises:
        ModelCardError: If the card is wrong.
        OutputError: If the file cannot be written.
    """
    from nip_audio.core.state import write_atomic  # needs torch, and all else here does not

    path = directory / README_NAME
    write_atomic(path, readme_of(read_card(directory)).encode(), force=True)
    return path


def readme_of(card: ModelCard) -> str:
    """Return the text of the README.md: the hub's YAML block, then what people look for."""
    metadata = yaml.safe_dump(metadata_of(card), sort_keys=False, allow_unicode=True, width=100)
    sections = {
        "Intended use": _intended(card),
        "What it must not be used for": _list(misuses_of(card)),
        "How to get started": _start(card),
        "Training data": _training(card),
        "Evaluation": _evaluation(card),
        "Limitations": _list(_limitations(card)),
        "Licence": _licence(card),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    return f"---\n{metadata}---\n\n# {card.name}\n\n{_summary(card)}\n\n{text}\n"


def metadata_of(card: ModelCard) -> dict[str, Any]:
    """Return what the hub reads: licence, library, tags, data sets, metrics and results."""
    words, found = _WORDS[card.modality], measured_of(card)
    metadata: dict[str, Any] = {
        **_hub_licence(card),
        "library_name": "nip-audio",
        "pipeline_tag": words.pipeline,
        "tags": [*words.tags, "adversarial-robustness"],
        "datasets": [corpus.hub for corpus in corpora_of(card) if corpus.hub],
        "metrics": sorted({m.metric for m in found}),
    }
    if found:
        tasks = dict.fromkeys(m.task for m in found)
        results = [_hub_result(card, [m for m in found if m.task == task]) for task in tasks]
        metadata["model-index"] = [{"name": card.name, "results": results}]
    return {key: value for key, value in metadata.items() if value}


def _hub_licence(card: ModelCard) -> dict[str, str]:
    stated = str(card.data.get("licence") or "")
    if not stated:
        return {}
    name = stated.split()[0].lower()
    return (
        {"license": name} if name in _HUB_LICENCES else {"license": "other", "license_name": stated}
    )


def _hub_result(card: ModelCard, measured: list[Measured]) -> dict[str, Any]:
    """Return the results of one task."""
    corpora = corpora_of(card)
    kind = corpora[0].hub or corpora[0].name.lower() if corpora else "unpublished"
    name = corpora[0].name if corpora else "a data set that is not published"
    metrics = [
        {
            "type": m.metric,
            "value": m.value,
            "name": f"{m.name} (95 % interval {m.low:.5g} to {m.high:.5g})",
        }
        for m in measured
    ]
    return {
        "task": {"type": _WORDS[card.modality].pipeline, "name": measured[0].task},
        "dataset": {"type": kind, "name": f"{name}, held out from training"},
        "metrics": metrics,
    }


def corpora_of(card: ModelCard) -> list[Corpus]:
    """Return the published corpora that the card's words about the training data name."""
    words = words_of_data(card)
    return [c for c in CORPORA if re.search(rf"(?<!\w){c.name.replace('-', '-?')}(?!\w)", words)]


def words_of_data(card: ModelCard) -> str:
    """Return the card's words about the training data."""
    return _training_of(card, "data") or NOT_STATED


def licence_of_data(card: ModelCard) -> str:
    """Return the licence of the training data in words."""
    stated = _training_of(card, "data_licence")
    known = "; ".join(f"{c.name}: {c.licence} ({c.source})" for c in corpora_of(card))
    return stated or known or NOT_STATED


def misuses_of(card: ModelCard) -> list[str]:
    """Return what the model must not be used for, the card's own words first."""
    words, limits = _WORDS[card.modality], card.data.get("limits")
    own = [str(limits)] if limits else []
    closed = [words.closed.format(len(card.labels))] if card.labels else []
    return [*own, *closed, words.people]


def measured_of(card: ModelCard) -> list[Measured]:
    """Return the results that the card states, each with its 95 % interval."""
    metrics = card.data["metrics"]
    return list(_measured(metrics)) if isinstance(metrics, dict) else []


def _measured(metrics: Mapping[str, Any]) -> Iterator[Measured]:
    groups = _mapping(metrics.get("groups"))
    for group, words in _GROUPS.items():
        found = _mapping(metrics.get(group))
        items = _count(found.get("clips") or _mapping(groups.get(group)).get("crops"))
        for name, value in found.items():
            if (condition := _condition(name)) and (interval := _interval(value)):
                on = f"{words}, {condition}"
                yield Measured("Speaker identification", "accuracy", on, *interval, items)
    verification = _mapping(metrics.get("verification"))
    if interval := _interval(verification.get("eer")):
        on = "all pairs of clips of speakers not trained on"
        items = _count(verification.get("clips"))
        yield Measured("Speaker verification", "eer", on, *interval, items)
    for group, on in _ENROLLED.items():
        found = _mapping(_mapping(verification.get("enrolled")).get(group))
        if interval := _interval(found):
            items = _count(found.get("clips"))
            yield Measured("Speaker verification", "eer", on, *interval, items)
    if items := _count(metrics.get("test")):  # of images, each of which stands for itself
        for name, value in metrics.items():
            if (condition := _condition(name)) and (interval := _exact(value, items)):
                on = f"test images, {condition}"
                yield Measured("Image classification", "accuracy", on, *interval, items)


def _condition(name: str) -> str | None:
    """Return the condition of a result in words; None if it is none."""
    if name == "clean":
        return "clean"
    found = re.fullmatch(r"noise_([\d.]+)(_rms|_db_snr)?", name)
    if found is None:
        return None
    level = {"_rms": "{} rms", "_db_snr": "{} dB SNR", None: "standard deviation {}"}[found[2]]
    return f"white noise, {level.format(found[1])}"


def _interval(value: object) -> tuple[float, float, float] | None:
    found = [_mapping(value).get(key) for key in ("value", "low", "high")]
    value, low, high = (float(n) if isinstance(n, int | float) else -1.0 for n in found)
    return (value, low, high) if 0 <= low <= high <= 1 and 0 <= value <= 1 else None


def _exact(value: object, items: int) -> tuple[float, float, float] | None:
    """Return a share with its exact binomial interval."""
    from scipy.stats import binomtest  # takes a second to import, and cards are read by all

    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    exact = binomtest(round(value * items), items).proportion_ci(0.95)
    return float(value), float(exact.low), float(exact.high)


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _training_of(card: ModelCard, field: str) -> str:
    return str(_mapping(card.data["training"]).get(field) or "")


def _summary(card: ModelCard) -> str:
    what, size = _WORDS[card.modality].classes, card.data.get("parameters")
    parameters = f" It has {size:,} parameters." if type(size) is int else ""
    built = str(card.data.get("architecture") or "A model")
    return (
        f"{built[:1].upper()}{built[1:]}, which tells {len(card.labels)} {what} apart; input: "
        f"{card.input_text}.{parameters} Identity: `{card.model_id}`."
    )


def _intended(card: ModelCard) -> str:
    what = _WORDS[card.modality].research
    return f"Research on attacks on {what} and on defences against them, and tests of nip-audio."


def _limitations(card: ModelCard) -> list[str]:
    elsewhere = _WORDS[card.modality].elsewhere
    return [
        f"It was measured on data of the kind that it was trained on; {elsewhere} not evaluated.",
        "An attacker who knows the model changes its answers by perturbations that people hardly "
        "notice. Defences lower the success of attackers who do not know them.",
    ]


def _start(card: ModelCard) -> str:
    words = _WORDS[card.modality]
    name = card.name if card.shipped else f"./{card.name}/"
    return (
        "With nip-audio installed from its source:\n\n"
        f"```sh\nnip-audio identify {words.file} --model {name}\n```\n\n"
        f"```python\nimport nip_audio\n\n"
        f'pretrained = nip_audio.load_pretrained("{name}")\n```{words.other_library}'
    )


def _training(card: ModelCard) -> str:
    facts = {
        "data": words_of_data(card),
        "licence of the data": licence_of_data(card),
        "epochs": _training_of(card, "epochs"),
        "seed": _training_of(card, "seed"),
    }
    command = _training_of(card, "command")
    how = f"\n\nTrained by `{command}`." if command else ""
    return _list([f"{name}: {value}" for name, value in facts.items() if value]) + how


def _evaluation(card: ModelCard) -> str:
    found = measured_of(card)
    if not found:
        return "Not evaluated."
    rows = [f"| {m.task} | {m.name} | {m.percent} | {m.items_text} |" for m in found]
    return "\n".join(
        (
            "Brackets are 95 % intervals; EER is the equal error rate.",
            "",
            "| task | measured | result | on |",
            "|---|---|---|---|",
            *rows,
        )
    )


def _licence(card: ModelCard) -> str:
    stated = card.data.get("licence") or NOT_STATED
    return (
        f"{stated}. The licence of the training data is above.\n\n"
        f"This page is made from `{CARD_NAME}`, which has the hashes of all files."
    )


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
