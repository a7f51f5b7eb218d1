"""Write docs/results/robustness.md: python -m studies.robustness.page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nip_audio.evaluation.tables import NOT_EVALUATED, markdown, share
from studies._lib.numbers import number
from studies._lib.pages import Page

HERE = Path(__file__).resolve().parent
Group = Mapping[str, Any]


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
    rows = []
    for name, model in group["models"].items():
        under = [group["accuracy"][eps][name] for eps in strengths(group)]
        rows.append(
            [
                name,
                training_of(model),
                share(model["clean"]),
                *(share(one) for one in under),
                *(nccr(ranked[layer][name]) for layer in ranked),
            ]
        )
    columns = ["system", "adversarial training", "clean"]
    columns += [f"under attack, ε {eps}" for eps in strengths(group)]
    return markdown([*columns, *(f"NCCR, {layer} (rank)" for layer in ranked)], rows)


def training_of(model: Group) -> str:
    """Format the adversarial training of a model's recipe."""
    attack = model["adversarial_attack"]
    if attack is None:
        return "none"
    part = f"{100 * model['adversarial_share']:.0f} % of each batch"
    return f"{attack}, ε {model['adversarial_eps']:g}, {part}"


def nccr(row: Group) -> str:
    """Mean, interval and rank."""
    mean = row["mean"]
    return f"{mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}] ({row['rank']})"


def ranking_table(group: Group) -> str:
    """The distributions in the order of their means."""
    rows = [
        [
            layer,
            row["rank"],
            row["model"],
            f"{row['mean']['value']:.4f}",
            ", ".join(f"{quartile:.4f}" for quartile in row["quartiles"]),
            "–" if row["p_next"] is None else f"{row['p_next']:.2g}",
        ]
        for layer, ranking in group["ranking"].items()
        for row in ranking
    ]
    return markdown(["layer", "rank", "system", "mean", "quartiles", "p, next"], rows)


def settings_table(group: Group) -> str:
    """Over the layers: in how many settings of each noise the rank holds."""
    rows = []
    for eps in ranked_strengths(group):
        noises = dict.fromkeys((row["family"], row["scale"]) for row in group["settings"])
        for noise in noises:
            of_noise = [r for r in group["settings"] if (r["family"], r["scale"]) == noise]
            found = [r["agreement"][eps] for r in of_noise]
            rows.append([eps, f"{noise[0]} {noise[1]:g}", *counts(found), span(found)])
    return markdown(["ε", "noise", "layers", "same order", "τ > 0", "clear pairs right", "τ"], rows)


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
    rows = []
    for eps in ranked_strengths(group):
        for layer in dict.fromkeys(row["layer"] for row in group["settings"]):
            found = [r["agreement"][eps] for r in group["settings"] if r["layer"] == layer]
            rows.append([eps, layer, *counts(found), span(found)])
    return markdown(["ε", "layer", "noises", "same order", "τ > 0", "clear pairs right", "τ"], rows)


def plainer_table(group: Group) -> str:
    """How well NCCR and plainer numbers rank, of the same clips and noise."""
    eps = ranked_strengths(group)
    default = {row["layer"]: row for row in group["settings"] if is_default(group, row)}
    *_, tap, logits = default
    candidates = [
        (f"NCCR, last tap ({tap})", default[tap]["agreement"]),
        ("NCCR, logits", default[logits]["agreement"]),
        *(
            (f"NCCR, {layer}, clips that all classify correctly", of["agreement"])
            for layer, of in group["rightly_named_by_all"]["layers"].items()
        ),
        *((name, of["agreement"]) for name, of in group["plainer"].items()),
    ]
    rows = [
        [name, *(f"{tau(found[e])}, {pairs(found[e])}" for e in eps)] for name, found in candidates
    ]
    return markdown(["number", *(f"τ, clear pairs right; ε {e}" for e in eps)], rows)


def is_default(group: Group, row: Group) -> bool:
    """Return whether a setting has the default noise."""
    first = group["settings"][0]
    return (row["family"], row["scale"]) == (first["family"], first["scale"])


def tau(found: Group | None) -> str:
    """Kendall's τ."""
    return NOT_EVALUATED if found is None else f"{found['kendall']:.2f}"


def pairs(found: Group | None) -> str:
    """Clear pairs."""
    return "–" if found is None else f"{found['clear_right']} of {found['clear']}"


def clip_table(group: Group) -> str:
    """Write the AUROC of fooled against robust clips within one model."""
    rows = []
    for row in group["clip_by_clip"]:
        if row["last tap"] is None:
            continue
        values = [number(row[key], 2) for key in ("last tap", "logits", "minus margin")]
        rows.append([row["system"], f"{row['eps']:g}", row["fooled"], row["held"], *values])
    if not rows:
        return f"{NOT_EVALUATED}: no model has as many of both among these clips.\n"
    return markdown(
        ["system", "ε", "fooled", "held", "NCCR, last tap", "NCCR, logits", "minus margin"], rows
    )


def shifted_table(results: Group) -> str:
    """Write the constants that reverse the rank."""
    rows = [
        [
            row["layer"],
            f"{row['weak']}: {row['nccr_weak']:.4f}",
            f"{row['strong']}: {row['nccr_strong']:.4f}",
            f"{row['constant']:.3g}",
            f"{row['largest_value']:.3g}",
        ]
        for group in results["groups"].values()
        for row in group["shifted"]
    ]
    columns = ["layer", "least accuracy: NCCR", "most accuracy: NCCR", "constant", "largest value"]
    return markdown(columns, rows)


def attacked_table(results: Group) -> str:
    """NCCR of clean and of attacked clips on the shipped models."""
    rows = [
        [
            next(iter(group["models"])),
            layer,
            title,
            values["clips"],
            f"{values['mean']:.4f}",
            ", ".join(f"{quartile:.4f}" for quartile in values["quartiles"]),
        ]
        for group in results["groups"].values()
        for layer, by_title in group["attacked"].items()
        for title, values in by_title.items()
    ]
    return markdown(["system", "layer", "clips", "how many", "mean", "quartiles"], rows)


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


def pictures(results: Group, kind: str, words: str) -> str:
    """One plot for each architecture."""
    names = [next(iter(group["models"])) for group in results["groups"].values()]
    return "\n".join(f"![{words}, {name}](pictures/{kind}_{name}.png)" for name in names)


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
        "boxes": pictures(results, "nccr_models", "NCCR of the versions"),
        "attacked_boxes": pictures(results, "nccr_attacked", "NCCR of clean and attacked clips"),
        "maps": pictures(results, "activations", "Neuron outputs by speaker"),
    }


PAGE = Page("robustness", __file__, ("robustness",), parts)


if __name__ == "__main__":
    PAGE.run()
