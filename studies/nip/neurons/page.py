"""Write docs/results/nip_studies.md and its plots: python -m studies.nip.neurons.page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from nip_audio.evaluation.tables import markdown, share
from studies._lib.numbers import number, signed
from studies._lib.pages import Page

DRAWN = ("PGD waveform ε 0.002", "PGD spectrogram ε 4/255", "DeepFool waveform")
"""Attacks in the plot of influence."""

Record = Mapping[str, Any]


def header(results: Record) -> str:
    """Say what all tables have in common."""
    versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    parts = []
    for name, system in results["systems"].items():
        used = system["settings"]
        missing = ", ".join(system["left_out"])
        parts.append(
            f"`{name}`: {system['classes']} speakers, layer `{system['layer']}` of "
            f"{system['neurons']} neurons, {system['candidates']} candidates from "
            f"{system['fitted_on']} recordings of the `train` role, k1 {used['front']}, k2 "
            f"{used['tail']}, quorum {used['quorum']:g}, influence on the {used['influence']}, "
            f"sign {used['sign']}; {system['clean_clips']} unattacked clips of "
            f"{system['clean_speakers']} speakers"
            + (f"; left out, with fewer than 30 examples that fool: {missing}" if missing else "")
            + "."
        )
    return (
        f"Seed {results['seed']}; split {results['split_sha256'][:12]}; attacks on the `test` role "
        "by attackers who know the model and nothing of a defence, read back as they were written. "
        "DSR: share of the examples that fool the undefended model which are classified correctly. "
        "Brackets are 95 % intervals, by bootstrap over speakers, of shares exact binomial where "
        f"all agree. All in percent unless said otherwise. {versions}; {results['threads']} "
        f"thread; {results['cpu_s'] / 60:.0f} CPU minutes in all.\n\n" + "\n".join(parts) + "\n"
    )


def each(results: Record, study: str, table: Callable[[Any], str]) -> str:
    """One table a system."""
    return "\n".join(
        f"### {name}\n\n{table(system[study])}" for name, system in results["systems"].items()
    )


def oracle_table(rows: Sequence[Record]) -> str:
    """The script's protocol, beside what is done without a label."""
    columns = {
        "honest": "NIP",
        "honest_descent": "NIP, descent",
        "honest_noise": "noise as strong as NIP",
        "oracle_script_once": "oracle, one sign",
        "oracle_script": "oracle: the script",
        "oracle_stronger_once": "oracle, strength of Eq. 8, one sign",
        "oracle_stronger": "oracle, strength of Eq. 8",
        "oracle_noise": "oracle, noise as strong",
        "oracle_own_class": "oracle, a candidate of the class",
        "oracle_honest": "oracle, NIP's own candidate",
    }
    return markdown(
        ["attack", "fooled by", *columns.values()],
        [[r["attack"], r["fooled"], *(share(r[key]) for key in columns)] for r in rows],
    )


def sweep_table(rows: Sequence[Record]) -> str:
    """DSR, and what it is above noise of the same energy."""
    attacks = [f"{a['attack']} ({a['judged']})" for a in rows[0]["attacks"]]
    return markdown(
        ["varied", "to", "candidates", "template", "clean", *attacks],
        [
            [
                row["sweep"],
                row["setting"],
                row["candidates"],
                "/".join(dict.fromkeys(map(str, row["template"]))),
                *(
                    f"{share(part['right'])}; {signed(part['gain'], factor=100)}"
                    for part in (row["accuracy"], *row["attacks"])
                ),
            ]
            for row in rows
        ],
    )


def tally(rows: Sequence[Record]) -> dict[str, int]:
    """Count settings × attacks whose difference to noise is surely above, or below, zero."""
    gains = [attack["gain"] for row in rows for attack in row["attacks"]]
    return {
        "cells": len(gains),
        "above": sum(gain["low"] > 0 for gain in gains),
        "below": sum(gain["high"] < 0 for gain in gains),
    }


def tallies(results: Record) -> str:
    """Say so in words."""
    counted = {name: tally(system["sweeps"]) for name, system in results["systems"].items()}
    return "; ".join(
        f"`{name}`: of {t['cells']} settings × attacks the interval of the difference lies above "
        f"zero in {t['above']} and below in {t['below']}"
        for name, t in counted.items()
    )


def influence_table(found: Record) -> str:
    """Changes of normalised influence by attack, by noise, and the difference."""
    rows: list[list[object]] = []
    other = {"attack": "another clip of the speaker", "fooled": found["other_clip"]["pairs"]}
    for row in (*found["rows"], {**other, **found["other_clip"]}):
        for of, words in (("true", "true"), ("named", "predicted")):
            excess = (
                [signed(row[f"excess_{of}_{part}"], 3) for part in ("front", "tail")]
                if f"excess_{of}_front" in row
                else ["–", "–"]
            )
            noise = share(row[f"noise_{of}_both"]) if f"noise_{of}_both" in row else "–"
            rows.append(
                [
                    row["attack"],
                    row["fooled"],
                    words,
                    *(signed(row[f"attack_{of}_{part}"], 3) for part in ("front", "tail")),
                    *excess,
                    share(row[f"attack_{of}_both"]),
                    noise,
                ]
            )
    columns = [
        *("attack", "pairs", "class", "front", "tail", "front, less noise's", "tail, less noise's"),
        *("front falls and tail rises", "so under noise"),
    ]
    return markdown(columns, rows)


def template_table(found: Record) -> str:
    """Sizes by quorum, the plain intersection by items, and what is shared."""
    quorums = markdown(
        ["in at least this share of items", "remaining", "front", "tail"],
        [
            [f"{100 * q['quorum']:g} %", *(q[part] for part in ("remaining", "front", "tail"))]
            for q in found["quorums"]
        ],
    )
    grown = markdown(
        ["items", *(str(g["items"]) for g in found["intersections"])],
        [["remaining in all of them", *(g["remaining"] for g in found["intersections"])]],
    )
    shared = markdown(
        ["neurons that two items share", "same class", "another class", "by chance"],
        [
            [part, number(o["same_class"], 2), number(o["other_class"], 2), f"{o['by_chance']:.2f}"]
            for part, o in found["overlap"].items()
        ],
    )
    own = found["similarity_and_class"]
    explained = (
        "Every similarity is the same.\n"
        if own["share"] is None
        else f"The class explains {100 * own['share']:.1f} % of the variance of the "
        f"{own['items']} candidates' similarities, {100 * own['by_chance']:.1f} % by chance "
        f"(p {own['p']:.2g}, by permutation).\n"
    )
    matches = markdown(
        ["attack", "inputs", "candidates used", "candidate of the own class", "drawn blindly"],
        [
            [
                m["attack"].replace("nobody attacks", "no attack"),
                m["items"],
                m["used"],
                share(m["own_class"]),
                f"{100 * m['by_chance']:.1f}",
            ]
            for m in found["matches"]
        ],
    )
    counts = f"{found['items']} items of {found['classes']} classes, {found['neurons']} neurons.\n"
    return "\n".join([counts, quorums, grown, shared, explained, matches])


def consistency_table(found: Record) -> str:
    """Rank correlations of DSR and TKNC."""
    rows: list[list[object]] = [
        [
            c["over"],
            c["points"],
            number(c["rho"], 2),
            "–" if c["p"] is None else f"{c['p']:.1g}" if c["p"] > 1e-12 else "< 1e-12",
            f"{c['resampled'] or 'point'}s",
        ]
        for c in found["correlations"]
    ]
    within = found["within_attacks"]
    over = "defences against one attack, mean over the attacks"
    rows.append([over, len(within["attacks"]), number(within["mean"], 2), "–", "attacks"])
    return markdown(["over", "points", "ρ", "p", "resampled"], rows)


def activation_table(rows: Sequence[Record]) -> str:
    """NIP_n beside NIP."""
    return markdown(
        ["attack", "sign", "clips", "NIP", "NIP_n", "NIP_n less NIP", "NIP_n, random neurons"],
        [
            [
                r["attack"] or "no attack",
                r["sign"],
                r.get("fooled", "–"),
                share(r["input"]),
                share(r["activation"]),
                signed(r["gain"], factor=100),
                share(r["random_neurons"]),
            ]
            for r in rows
        ],
    )


def distribution_table(rows: Sequence[Record]) -> str:
    """Distances between the values of examples and of their originals."""
    return markdown(
        ["attack", "examples", "input values", "activations"],
        [
            [r["attack"], r["fooled"], *(number(r[p], 3) for p in ("input", "activation"))]
            for r in rows
        ],
    )


def efficiency_table(rows: Sequence[Record]) -> str:
    """CPU milliseconds an item."""
    sizes = list(dict.fromkeys(r["batch"] for r in rows))
    return markdown(
        ["", *(f"batches of {size}" for size in sizes)],
        [
            [
                part,
                *(
                    f"{r['cpu_ms']:.1f} ({r['least_cpu_ms']:.1f}–{r['most_cpu_ms']:.1f})"
                    for r in rows
                    if r["part"] == part
                ),
            ]
            for part in dict.fromkeys(r["part"] for r in rows)
        ],
    )


def plot_influence(results: Record, path: Path) -> None:
    """Mean influence of the neurons in the order of the clean original, one panel a system."""
    systems = results["systems"]
    figure = Figure(figsize=(5.2 * len(systems), 6.4), layout="constrained")
    panels = figure.subplots(2, len(systems), squeeze=False, sharey=True)
    for column, (name, system) in enumerate(systems.items()):
        curves = system["influence"]["curves"]
        drawn = [attack for attack in DRAWN if attack in curves]
        for row, of in enumerate(("true", "named")):
            axis = panels[row][column]
            if drawn:
                axis.plot(curves[drawn[0]]["clean"], color="black", lw=2, label="clean original")
                noise = curves[drawn[0]][f"noise_{of}"]
                axis.plot(noise, color="grey", ls=":", label=f"noise as strong as {drawn[0]}")
            for index, attack in enumerate(drawn):
                axis.plot(curves[attack][f"attack_{of}"], lw=1, color=f"C{index}", label=attack)
            other = curves["another clip of the speaker"][f"attack_{of}"]
            axis.plot(other, color="tab:purple", ls="--", lw=1, label="another clip of the speaker")
            axis.set_title(f"{name}, influence on the class that is {of}", fontsize=9)
            axis.set_xlabel("neurons, by influence on the clean original", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
        panels[0][column].legend(fontsize=6)
    for row in panels:
        row[0].set_ylabel("influence, scaled to [0, 1]", fontsize=8)
    figure.savefig(path, dpi=110)


def plot_consistency(results: Record, path: Path) -> None:
    """DSR against TKNC, a point a defence and attack."""
    points = results["consistency"]["points"]
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    groups = {"matched noise": [p for p in points if p["noise"]]}
    for point in points:
        if not point["noise"]:
            groups.setdefault(point["defence"], []).append(point)
    for index, (name, own) in enumerate(groups.items()):
        colour = colormaps["tab20"]((index - 1) % 20) if index else "lightgrey"
        tknc, dsr = ([p[q] for p in own] for q in ("tknc", "dsr"))
        axis.scatter(tknc, dsr, s=14 if index else 8, color=colour, label=name)
    axis.set_xlabel("TKNC, k = 5")
    axis.set_ylabel("defence success rate")
    axis.grid(alpha=0.3)
    figure.legend(fontsize=6, loc="outside right upper")
    figure.savefig(path, dpi=110)


def parts(found: Record) -> dict[str, object]:
    """Fill the template."""
    results = found["nip_studies"]
    return {
        "header": header(results),
        "oracle": each(results, "oracle", oracle_table),
        "tallies": tallies(results),
        "sweeps": each(results, "sweeps", sweep_table),
        "influence": each(results, "influence", influence_table),
        "template": each(results, "template", template_table),
        "consistency": consistency_table(results["consistency"]),
        "flat": results["consistency"]["within_attacks"]["without_ranks"],
        "activation": each(results, "activation", activation_table),
        "distributions": each(results, "distributions", distribution_table),
        "efficiency": each(results, "efficiency", efficiency_table),
    }


def draw(found: Record, folder: Path) -> None:
    """Draw both plots."""
    plot_influence(found["nip_studies"], folder / "nip_influence.png")
    plot_consistency(found["nip_studies"], folder / "nip_tknc.png")


PAGE = Page("nip_studies", __file__, ("nip_studies",), parts, draw)


if __name__ == "__main__":
    PAGE.run()
