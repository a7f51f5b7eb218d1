"""Write docs/results/robustness.md: python -m studies.robustness.page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from studies._lib.numbers import NOT_EVALUATED, number, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

HERE = Path(__file__).resolve().parent
Group = Mapping[str, Any]
AGREEMENT = "{kendall:.2f}, {clear_right} of {clear}"


def strengths(group: Group) -> list[str]:
    """ε under which accuracy was measured, the least first."""
    return sorted(group["accuracy"], key=float)


def ranked_strengths(group: Group) -> list[str]:
    """ε at which accuracies differ, so that there is a rank to agree with."""
    settings = group["settings"][0]["agreement"]
    return [eps for eps in strengths(group) if settings[eps] is not None]


def model_table(group: Group) -> str:
    """Accuracy, clean and under attack, beside NCCR and its rank."""
    ranked = {
        layer: {row["model"]: row for row in rows} for layer, rows in group["ranking"].items()
    }
    models, accuracy = group["models"], group["accuracy"]
    attacked = {eps: f"under attack, ε {eps}" for eps in strengths(group)}
    columns: Columns = {
        "system": str,
        "adversarial training": lambda name: training_of(models[name]),
        "clean": lambda name: percent(models[name]["clean"]),
        **each(attacked, lambda eps, name: percent(accuracy[eps][name])),
        **each(
            {layer: f"NCCR, {layer} (rank)" for layer in ranked},
            lambda layer, name: "{} ({rank})".format(
                number(ranked[layer][name]["mean"], 4), **ranked[layer][name]
            ),
        ),
    }
    return table(columns, models)


def training_of(model: Group) -> str:
    """Format the adversarial training of a model's recipe."""
    attack = model["adversarial_attack"]
    if attack is None:
        return "none"
    part = f"{100 * model['adversarial_share']:.0f} % of each batch"
    return f"{attack}, ε {model['adversarial_eps']:g}, {part}"


def quartiles(row: Group) -> str:
    """Quartiles of a distribution."""
    return ", ".join(f"{quartile:.4f}" for quartile in row["quartiles"])


def ranking_table(group: Group) -> str:
    """The distributions in the order of their means."""
    columns: Columns = {
        "layer": lambda row: row[0],
        "rank": lambda row: row[1]["rank"],
        "system": lambda row: row[1]["model"],
        "mean": lambda row: f"{row[1]['mean']['value']:.4f}",
        "quartiles": lambda row: quartiles(row[1]),
        "p, next": lambda row: "–" if row[1]["p_next"] is None else f"{row[1]['p_next']:.2g}",
    }
    return table(
        columns, [(la, row) for la, ranking in group["ranking"].items() for row in ranking]
    )


def settings_of(group: Group, *, by_layer: bool) -> list[tuple[str, str, list[Any]]]:
    """Return ε, a layer or noise, and the agreement in all settings with it."""

    def name(row: Group) -> str:
        return row["layer"] if by_layer else f"{row['family']} {row['scale']:g}"

    settings = group["settings"]
    return [
        (eps, one, [row["agreement"][eps] for row in settings if name(row) == one])
        for eps in ranked_strengths(group)
        for one in dict.fromkeys(map(name, settings))
    ]


AGREEING: Columns = {
    "same order": lambda row: counts(row[2])[1],
    "τ > 0": lambda row: counts(row[2])[2],
    "clear pairs right": lambda row: counts(row[2])[3],
    "τ": lambda row: span(row[2]),
}


def settings_table(group: Group) -> str:
    """Over the layers: in how many settings of each noise the rank holds."""
    columns: Columns = {
        "ε": lambda row: row[0],
        "noise": lambda row: row[1],
        "layers": lambda row: len(row[2]),
        **AGREEING,
    }
    return table(columns, settings_of(group, by_layer=False))


def counts(found: list[Any]) -> list[object]:
    """Count settings: all, with the same order, with τ > 0, and with clear pairs right."""
    known = [one for one in found if one is not None]
    if not known:
        return [len(found), *[NOT_EVALUATED] * 3]
    pairs, right = (sum(one[key] for one in known) for key in ("clear", "clear_right"))
    return [
        len(found),
        sum(one["same_order"] for one in known),
        sum(one["kendall"] > 0 for one in known),
        f"{right} of {pairs}",
    ]


def span(found: list[Any]) -> str:
    """Least and largest τ."""
    values = [one["kendall"] for one in found if one is not None]
    return f"{min(values):.2f} to {max(values):.2f}" if values else NOT_EVALUATED


def layer_table(group: Group) -> str:
    """Over the noises: in how many settings of each layer the rank holds."""
    columns: Columns = {
        "ε": lambda row: row[0],
        "layer": lambda row: row[1],
        "noises": lambda row: len(row[2]),
        **AGREEING,
    }
    return table(columns, settings_of(group, by_layer=True))


def plainer_table(group: Group) -> str:
    """How well NCCR and plainer numbers rank, of the same clips and noise."""
    default = {row["layer"]: row for row in group["settings"] if is_default(group, row)}
    *_, tap, logits = default
    candidates = {
        f"NCCR, last tap ({tap})": default[tap],
        "NCCR, logits": default[logits],
        **{
            f"NCCR, {layer}, clips that all classify correctly": of
            for layer, of in group["rightly_named_by_all"]["layers"].items()
        },
        **group["plainer"],
    }

    def shown(eps: str, name: str) -> str:
        found = candidates[name]["agreement"][eps]
        return f"{NOT_EVALUATED}, –" if found is None else AGREEMENT.format(**found)

    headings = {eps: f"τ, clear pairs right; ε {eps}" for eps in ranked_strengths(group)}
    return table({"number": str, **each(headings, shown)}, candidates)


def is_default(group: Group, row: Group) -> bool:
    """Return whether a setting has the default noise."""
    first = group["settings"][0]
    return (row["family"], row["scale"]) == (first["family"], first["scale"])


def clip_table(group: Group) -> str:
    """Write the AUROC of fooled against robust clips within one model."""
    rows = [row for row in group["clip_by_clip"] if row["last tap"] is not None]
    if not rows:
        return f"{NOT_EVALUATED}: no model has as many of both among these clips.\n"
    areas = {"last tap": "NCCR, last tap", "logits": "NCCR, logits", "minus margin": "minus margin"}
    columns: Columns = {
        "system": lambda row: row["system"],
        "ε": lambda row: f"{row['eps']:g}",
        "fooled": lambda row: row["fooled"],
        "held": lambda row: row["held"],
        **each(areas, lambda key, row: number(row[key], 2)),
    }
    return table(columns, rows)


def shifted_table(results: Group) -> str:
    """Write the constants that reverse the rank."""
    columns: Columns = {
        "layer": lambda row: row["layer"],
        "least accuracy: NCCR": lambda row: f"{row['weak']}: {row['nccr_weak']:.4f}",
        "most accuracy: NCCR": lambda row: f"{row['strong']}: {row['nccr_strong']:.4f}",
        "constant": lambda row: f"{row['constant']:.3g}",
        "largest value": lambda row: f"{row['largest_value']:.3g}",
    }
    return table(columns, [row for group in results["groups"].values() for row in group["shifted"]])


def attacked_table(results: Group) -> str:
    """NCCR of clean and of attacked clips on the shipped models."""
    columns: Columns = {
        "system": lambda row: next(iter(row[0]["models"])),
        "layer": lambda row: row[1],
        "clips": lambda row: row[2],
        "how many": lambda row: row[3]["clips"],
        "mean": lambda row: f"{row[3]['mean']:.4f}",
        "quartiles": lambda row: quartiles(row[3]),
    }
    rows = [
        (group, layer, title, values)
        for group in results["groups"].values()
        for layer, by_title in group["attacked"].items()
        for title, values in by_title.items()
    ]
    return table(columns, rows)


def verdicts(results: Group) -> Iterator[str]:
    """One line an architecture, ε and layer: whether the rank is the same."""
    for group in results["groups"].values():
        first = next(iter(group["models"]))
        default = [row for row in group["settings"] if is_default(group, row)]
        for eps in strengths(group):
            if eps not in ranked_strengths(group):
                yield f"- {first}, ε {eps}: {NOT_EVALUATED}: no accuracy differs from another."
                continue
            for name, row in zip(("last tap", "logits"), default[-2:], strict=True):
                found = row["agreement"][eps]
                whole = "the same order" if found["same_order"] else "**not the same order**"
                yield (
                    f"- {first}, ε {eps}, {name}: {whole} of {found['models']} models; τ "
                    f"{found['kendall']:.2f}, ρ {found['spearman']:.2f}. Of {found['clear']} pairs "
                    "whose intervals of accuracy do not overlap, "
                    f"{found['clear_right']} are the right way round."
                )


def totals(results: Group) -> str:
    """All settings of noise and layer together, by what the noise is added to."""
    lines = []
    for group in results["groups"].values():
        for eps in ranked_strengths(group):
            for level, words in (("input", "spectrogram"), ("raw", "waveform")):
                rows = [r for r in group["settings"] if r["family"].endswith(f"@{level}")]
                found = [row["agreement"][eps] for row in rows]
                settings, same, positive, clear = counts(found)
                lines.append(
                    f"- {next(iter(group['models']))}, ε {eps}, noise in the {words}: of "
                    f"{settings} settings {same} give the same order, {positive} a τ above 0; "
                    f"clear pairs right: {clear}; τ {span(found)}."
                )
    return "\n".join(lines)


def agree(results: Group) -> str:
    """Return in how many settings of noise in the spectrogram the order is the same."""
    found = [
        row["agreement"][eps]
        for group in results["groups"].values()
        for eps in ranked_strengths(group)
        for row in group["settings"]
        if row["family"].endswith("@input")
    ]
    known = [one for one in found if one is not None]
    return f"the same order in {sum(one['same_order'] for one in known)} of {len(known)} settings"


def spoken(counts_: set[int]) -> str:
    """One number, or the least and the largest."""
    least, most = min(counts_), max(counts_)
    return f"{least}" if least == most else f"{least} to {most}"


def missing(results: Group) -> str:
    """Systems of the configuration, and strengths, that were not measured."""
    planned = yaml.safe_load((HERE / "robustness.yaml").read_text(encoding="utf-8"))["systems"]
    measured = {name for group in results["groups"].values() for name in group["models"]}
    lines = [name for name in planned if name not in measured]
    every = {eps for group in results["groups"].values() for eps in group["accuracy"]}
    lines += [
        f"{next(iter(group['models']))} at ε {eps}"
        for group in results["groups"].values()
        for eps in sorted(every - set(group["accuracy"]), key=float)
    ]
    return f"\n**{NOT_EVALUATED.capitalize()}:** {', '.join(lines)}.\n" if lines else ""


def plots(results: Group, kind: str, words: str) -> str:
    """One plot for each architecture."""
    names = [next(iter(group["models"])) for group in results["groups"].values()]
    return "\n".join(f"![{words}, {name}](plots/{kind}_{name}.png)" for name in names)


def by_group(results: Group, table: Any) -> str:
    """One table an architecture, below its name."""
    return "\n".join(f"{name}:\n\n{table(group)}" for name, group in results["groups"].items())


def trainings(results: Group) -> str:
    """The commands of all trained models: what they share, and what each has besides."""
    lines = []
    for group in results["groups"].values():
        commands = {
            name: model["command"].split()
            for name, model in group["models"].items()
            if "--init_from" in model["command"]
        }
        first: list[str] = next(iter(commands.values()), [])
        shared = [word for word in first if all(word in words for words in commands.values())]
        lines += [" \\\n    ".join(_wrapped(shared)) + " OPTIONS"] if shared else []
        for name, words in commands.items():
            own = [word for word in words if word not in shared]
            lines.append(f"#   {name}: {' '.join(own) or 'no OPTIONS'}")
    return "\n".join(lines)


def _wrapped(words: list[str], width: int = 100) -> list[str]:
    """Put words into lines."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def crops(results: Group) -> str:
    """Clips, speakers and lengths."""
    lines = []
    for group in results["groups"].values():
        first, model = next(iter(group["models"].items()))
        attacked = {one["attacked"] for by in group["accuracy"].values() for one in by.values()}
        length = "whole" if model["crop_s"] is None else f"of {model['crop_s']:g} s"
        lines.append(
            f"{first}: {model['clips']} clips {length}, {model['speakers']} speakers of "
            f"{model['subset']}, {spoken(attacked)} of them attacked"
        )
    return "; ".join(lines)


def parts(found: Group) -> dict[str, object]:
    """Fill the template."""
    results = found["robustness"]
    return {
        **{key: results[key] for key in ("seed", "clips", "draws", "noise")},
        "split": results["split_sha256"][:12],
        "versions": ", ".join(f"{name} {v}" for name, v in results["versions"].items()),
        "crops": crops(results),
        "missing": missing(results),
        "trainings": trainings(results),
        "verdicts": "\n".join(verdicts(results)),
        "agree": agree(results),
        "totals": totals(results),
        "models": by_group(results, model_table),
        "ranking": by_group(results, ranking_table),
        "settings": by_group(results, settings_table),
        "layers": by_group(results, layer_table),
        "plainer": by_group(results, plainer_table),
        "clip_by_clip": by_group(results, clip_table),
        "shifted": shifted_table(results),
        "attacked": attacked_table(results),
        "boxes": plots(results, "nccr_models", "NCCR of the versions"),
        "attacked_boxes": plots(results, "nccr_attacked", "NCCR of clean and attacked clips"),
        "maps": plots(results, "activations", "Neuron outputs by speaker"),
    }


PAGE = Page("robustness", __file__, ("robustness",), parts)


if __name__ == "__main__":
    PAGE.run()
