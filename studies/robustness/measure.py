r"""Compare the rank of models by NCCR with the rank by accuracy under attack; write one JSON.

    NIP_AUDIO_PRETRAINED=MODELS python -m studies.robustness.measure \
        studies/robustness/robustness.yaml \
        --data-root LibriSpeech --data-split split.csv --evaluation robustness \
        --results studies/results/robustness.json --plots docs/results/plots

``--evaluation`` is the folder that ``nip-audio evaluate`` wrote for the same configuration.
Measurements are kept there too, so that an interrupted study continues.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nip_audio import __version__
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.state import make_folder, require_new, write_atomic
from nip_audio.errors import InputError
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.cells import Cell
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.nccr_plots import plot_activation_maps, plot_boxes
from nip_audio.evaluation.nccr_ranks import rank_models
from nip_audio.evaluation.robustness import DEFAULT_LAYERS, require_comparable
from nip_audio.evaluation.runner import RESULTS_NAME, Runner
from nip_audio.evaluation.systems import EvaluatedSystem, build_system
from studies._lib.command import evaluation_command, evaluation_of, run, write_results
from studies.robustness.doubts import (
    accuracies,
    clip_by_clip,
    compare,
    plainer,
    settings_grid,
    shifted,
)
from studies.robustness.measured import DRAWS, NOISES, Measured, clip_rates, measure_system

SHOWN_CLASSES = 30
SHOWN_EXAMPLES = 50
MAP_EPS = 0.002


def main() -> None:
    """Run the study as the command line says."""
    parser = evaluation_command(__doc__, "evaluation", "results", "plots")
    parser.add_argument("--clips", type=int, default=100, help="clips per system for NCCR")
    parser.add_argument("--measure-only", nargs="*", help="measure these systems, and stop")
    options = parser.parse_args()
    config = evaluation_of(options)
    cache = options.evaluation / "nccr"
    cache.mkdir(parents=True, exist_ok=True)
    if options.measure_only is not None:
        for plan in config.systems:
            if plan.name in options.measure_only:
                _measured(build_system(plan, config), options.clips, cache, config)
        return
    require_new(options.results, force=True)
    make_folder(options.plots)
    evaluated = json.loads((options.evaluation / RESULTS_NAME).read_text(encoding="utf-8"))
    systems = [build_system(plan, config) for plan in config.systems]
    for system in systems:
        known = evaluated["systems"].get(system.name, {}).get("identity")
        if known != system.identity:
            raise InputError(
                f"{system.name} is {system.identity[:12]}, but the evaluation has "
                f"{str(known)[:12]}; evaluate these models first"
            )
    measured = [_measured(system, options.clips, cache, config) for system in systems]
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(str(one.system.pretrained.card.data["architecture"]), []).append(one)
    results = {
        **{k: evaluated[k] for k in ("seed", "split_sha256", "versions", "machine", "threads")},
        "nip_audio": __version__,
        "clips": options.clips,
        "draws": DRAWS,
        "noise": NOISES[0].name,
        "groups": {
            name: study_group(members, evaluated, config.seed) for name, members in groups.items()
        },
    }
    for members in groups.values():
        results["groups"][members[0].system.pretrained.card.data["architecture"]]["attacked"] = (
            draw(members, config, options.evaluation, options.plots)
        )
    write_results(options.results, results)


def study_group(
    members: Sequence[Measured], evaluated: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Collect all results about the models of one architecture."""
    require_comparable([one.system.pretrained for one in members], NOISES)
    accuracy = accuracies(evaluated, members, seed=seed)
    clean = {
        one.name: evaluated["systems"][one.name]["accuracy"]["no defence"]["value"]
        for one in members
    }
    numbers = plainer(members, clean)
    ranking = {
        layer: [
            ranked.to_json()
            for ranked in rank_models(
                {one.name: one.rates[:, 0, _column(one, layer)] for one in members},
                members[0].speakers,
                seed=seed,
            )
        ]
        for layer in DEFAULT_LAYERS
    }
    weakest_eps = min(accuracy, key=float)
    by_accuracy = sorted(members, key=lambda one: accuracy[weakest_eps][one.name]["value"])
    return {
        "models": {one.name: _describe(one, evaluated) for one in members},
        "accuracy": accuracy,
        "ranking": ranking,
        "settings": settings_grid(members, accuracy),
        "plainer": {
            name: {
                "values": values,
                "agreement": {eps: compare(values, by) for eps, by in accuracy.items()},
            }
            for name, values in numbers.items()
        },
        "clip_by_clip": [
            clip_by_clip(one, evaluated["cells"], float(eps), seed=seed)
            for eps in accuracy
            for one in members
        ],
        "shifted": shifted(by_accuracy[0], by_accuracy[-1]),
        "rightly_named_by_all": _of_shared_clips(members, accuracy),
    }


def _of_shared_clips(members: Sequence[Measured], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Rank on the clips that every model classifies correctly, so that accuracy has no effect."""
    shared = np.logical_and.reduce([one.right for one in members])
    found: dict[str, Any] = {"clips": int(shared.sum()), "layers": {}}
    for layer in DEFAULT_LAYERS if shared.any() else ():
        values = {
            one.name: round(float(one.rates[shared, 0, _column(one, layer)].mean()), 5)
            for one in members
        }
        by_eps = {eps: compare(values, by) for eps, by in accuracy.items()}
        found["layers"][layer] = {"nccr": values, "agreement": by_eps}
    return found


def draw(
    members: Sequence[Measured], config: EvaluationConfig, evaluation: Path, plots: Path
) -> dict[str, Any]:
    """Draw the paper's Fig. 1 to 3 for one architecture; return the values of the third."""
    shipped = members[0]
    stem = shipped.name
    boxes = {
        layer: {one.name: one.rates[:, 0, _column(one, layer)] for one in members}
        for layer in DEFAULT_LAYERS
    }
    write_atomic(plots / f"nccr_models_{stem}.png", plot_boxes(boxes), force=True)
    bench = Bench.build(shipped.system, config, evaluation / "evidence")
    sets = list(_sets(bench, config, evaluation))
    panels: dict[str, dict[str, Any]] = {
        layer: {"clean": shipped.rates[shipped.right, 0, _column(shipped, layer)]}
        for layer in DEFAULT_LAYERS
    }
    for cell, examples, fools in sets:
        chosen = [examples.values([row]).x[0] for row in np.flatnonzero(fools)[:SHOWN_EXAMPLES]]
        if chosen:
            rates = clip_rates(shipped.system, chosen, seed=config.seed)
            for layer, values in rates.items():
                panels[layer][f"{cell.plan.attack} {cell.eps:g}"] = values
    attacked = {
        layer: {
            title: {
                "clips": len(values),
                "mean": round(float(values.mean()), 5),
                "quartiles": [round(float(q), 5) for q in np.quantile(values, [0.25, 0.5, 0.75])],
            }
            for title, values in boxed.items()
        }
        for layer, boxed in panels.items()
    }
    write_atomic(plots / f"nccr_attacked_{stem}.png", plot_boxes(panels, log=True), force=True)
    (pgd,) = [s for s in sets if s[0].plan.attack == "pgd" and s[0].eps == MAP_EPS]
    write_atomic(plots / f"activations_{stem}.png", _maps(shipped.system, pgd[1]), force=True)
    return attacked


def _sets(
    bench: Bench, config: EvaluationConfig, evaluation: Path
) -> Iterator[tuple[Cell, AdversarialSet, Any]]:
    """Yield the finished sets of one system, with which of their examples fool it."""
    found = Runner(config, evaluation, only_finished=True).sets([bench], lambda *_: None)
    for _, cell, examples in found:
        if examples is not None:
            judged = bench.judge(cell, examples)
            yield cell, examples, np.array([mark == "1" for mark in judged["fooled"]])


def _maps(system: EvaluatedSystem, examples: AdversarialSet) -> bytes:
    """Plot mean outputs of the last tap by true speaker, clean and under PGD."""
    layer = system.pretrained.card.default_taps[-1]
    clean = {item.id: item.samples for item in system.items}
    owners = np.array([example.speaker for example in examples.examples])
    names, counts = np.unique(owners, return_counts=True)
    shown = np.sort(names[np.argsort(-counts, kind="stable")[:SHOWN_CLASSES]])
    outputs: dict[str, list[Any]] = {"clean": [], f"PGD, ε {MAP_EPS:g}": []}
    for row, example in enumerate(examples.examples):
        pair = (clean[example.id], examples.values([row]).x[0])
        for title, samples in zip(outputs, pair, strict=True):
            with torch.no_grad(), system.model.tap(layer) as tap:
                system.model.embed(Batch(samples[None]))
                outputs[title].append(neuron_outputs(tap[layer])[0].double().numpy())
    maps = {
        title: np.stack([np.stack(values)[owners == name].mean(axis=0) for name in shown])
        for title, values in outputs.items()
    }
    return plot_activation_maps(maps, [str(name) for name in shown], layer=layer)


def _describe(one: Measured, evaluated: Mapping[str, Any]) -> dict[str, Any]:
    card = one.system.pretrained.card
    trained = card.data["training"]
    options = trained["hyperparameters"]
    known = evaluated["systems"][one.name]
    wanted = ("adversarial_attack", "adversarial_eps", "adversarial_steps")
    return {
        "model": card.name,
        "model_id": card.model_id,
        "command": trained["command"],
        **{k: options.get(k) for k in (*wanted, "adversarial_step_share", "adversarial_share")},
        **{k: known[k] for k in ("clips", "speakers", "rightly_named", "crop_s", "subset")},
        "clean": known["accuracy"]["no defence"],
    }


def _column(one: Measured, layer: str) -> int:
    """Return the column of a layer; the last two are the last tap and the logits."""
    return len(one.layers) - 2 + DEFAULT_LAYERS.index(layer)


def _measured(
    system: EvaluatedSystem, clips: int, cache: Path, config: EvaluationConfig
) -> Measured:
    def progress(done: int) -> None:
        print(f"\r{system.name}: {done} of {clips}", end="", file=sys.stderr)

    return measure_system(system, clips, cache, seed=config.seed, progress=progress)


if __name__ == "__main__":
    run(main)
