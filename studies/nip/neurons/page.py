"""Write docs/results/nip_studies.md and its plots: python -m studies.nip.neurons.page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from studies._lib.numbers import number, percent, signed
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

DRAWN = ("PGD waveform ε 0.002", "PGD spectrogram ε 4/255", "DeepFool waveform")
"""Attacks in the plot of influence."""

Record = Mapping[str, Any]
ATTACK: Columns = {"attack": lambda row: row["attack"], "fooled by": lambda row: row["fooled"]}


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


def of_all(results: Record, study: str, write: Callable[[Any], str]) -> str:
    """One table a system."""
    return "\n".join(
        f"### {name}\n\n{write(system[study])}" for name, system in results["systems"].items()
    )


def oracle_table(rows: Sequence[Record]) -> str:
    """The script's protocol, beside what is done without a label."""
    rates = {
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
    return table({**ATTACK, **each(rates, lambda key, row: percent(row[key]))}, rows)


def sweep_table(rows: Sequence[Record]) -> str:
    """DSR, and what it is above noise of the same energy."""
    attacks = {i: f"{a['attack']} ({a['judged']})" for i, a in enumerate(rows[0]["attacks"])}

    def shown(part: Record) -> str:
        return f"{percent(part['right'])}; {signed(part['gain'], factor=100)}"

    columns: Columns = {
        "varied": lambda row: row["sweep"],
        "to": lambda row: row["setting"],
        "candidates": lambda row: row["candidates"],
        "template": lambda row: "/".join(dict.fromkeys(map(str, row["template"]))),
        "clean": lambda row: shown(row["accuracy"]),
        **each(attacks, lambda place, row: shown(row["attacks"][place])),
    }
    return table(columns, rows)


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
    other = {"attack": "another clip of the speaker", "fooled": found["other_clip"]["pairs"]}
    rows = [
        {**row, "of": of}
        for row in (*found["rows"], {**other, **found["other_clip"]})
        for of in ("true", "named")
    ]

    def shown(key: str, row: Record) -> str:
        value = row.get(key.format(row["of"]))
        if value is None:
            return "–"
        return percent(value) if key.endswith("both") else signed(value, 3)

    headings = {
        "attack_{}_front": "front",
        "attack_{}_tail": "tail",
        "excess_{}_front": "front, less noise's",
        "excess_{}_tail": "tail, less noise's",
        "attack_{}_both": "front falls and tail rises",
        "noise_{}_both": "so under noise",
    }
    columns: Columns = {
        "attack": lambda row: row["attack"],
        "pairs": lambda row: row["fooled"],
        "class": lambda row: "predicted" if row["of"] == "named" else row["of"],
        **each(headings, shown),
    }
    return table(columns, rows)


def template_table(found: Record) -> str:
    """Sizes by quorum, the plain intersection by items, and what is shared."""
    quorums: Columns = {
        "in at least this share of items": lambda q: f"{100 * q['quorum']:g} %",
        **each(("remaining", "front", "tail"), lambda part, q: q[part]),
    }
    sizes = {g["items"]: g["remaining"] for g in found["intersections"]}
    grown: Columns = {"items": str, **each(list(sizes), lambda items, _: sizes[items])}
    shared: Columns = {
        "neurons that two items share": lambda row: row[0],
        "same class": lambda row: number(row[1]["same_class"], 2),
        "another class": lambda row: number(row[1]["other_class"], 2),
        "by chance": lambda row: f"{row[1]['by_chance']:.2f}",
    }
    own = found["similarity_and_class"]
    explained = (
        "Every similarity is the same.\n"
        if own["share"] is None
        else f"The class explains {100 * own['share']:.1f} % of the variance of the "
        f"{own['items']} candidates' similarities, {100 * own['by_chance']:.1f} % by chance "
        f"(p {own['p']:.2g}, by permutation).\n"
    )
    matches: Columns = {
        "attack": lambda row: row["attack"].replace("nobody attacks", "no attack"),
        "inputs": lambda row: row["items"],
        "candidates used": lambda row: row["used"],
        "candidate of the own class": lambda row: percent(row["own_class"]),
        "drawn blindly": lambda row: f"{100 * row['by_chance']:.1f}",
    }
    parts = [
        f"{found['items']} items of {found['classes']} classes, {found['neurons']} neurons.\n",
        table(quorums, found["quorums"]),
        table(grown, ["remaining in all of them"]),
        table(shared, found["overlap"].items()),
        explained,
        table(matches, found["matches"]),
    ]
    return "\n".join(parts)


def consistency_table(found: Record) -> str:
    """Rank correlations of DSR and TKNC."""
    within = found["within_attacks"]
    averaged = {
        "over": "defences against one attack, mean over the attacks",
        **{"points": len(within["attacks"]), "rho": within["mean"], "p": None},
        "resampled": "attack",
    }

    def chance(row: Record) -> str:
        if row["p"] is None:
            return "–"
        return f"{row['p']:.1g}" if row["p"] > 1e-12 else "< 1e-12"

    columns: Columns = {
        "over": lambda row: row["over"],
        "points": lambda row: row["points"],
        "ρ": lambda row: number(row["rho"], 2),
        "p": chance,
        "resampled": lambda row: f"{row['resampled'] or 'point'}s",
    }
    return table(columns, [*found["correlations"], averaged])


def activation_table(rows: Sequence[Record]) -> str:
    """NIP_n beside NIP."""
    columns: Columns = {
        "attack": lambda row: row["attack"] or "no attack",
        "sign": lambda row: row["sign"],
        "clips": lambda row: row.get("fooled", "–"),
        "NIP": lambda row: percent(row["input"]),
        "NIP_n": lambda row: percent(row["activation"]),
        "NIP_n less NIP": lambda row: signed(row["gain"], factor=100),
        "NIP_n, random neurons": lambda row: percent(row["random_neurons"]),
    }
    return table(columns, rows)


def distribution_table(rows: Sequence[Record]) -> str:
    """Distances between the values of examples and of their originals."""
    columns: Columns = {
        "attack": lambda row: row["attack"],
        "examples": lambda row: row["fooled"],
        "input values": lambda row: number(row["input"]),
        "activations": lambda row: number(row["activation"]),
    }
    return table(columns, rows)


def efficiency_table(rows: Sequence[Record]) -> str:
    """CPU milliseconds an item."""
    taken = {
        (row["part"], row["batch"]): "{cpu_ms:.1f} ({least_cpu_ms:.1f}–{most_cpu_ms:.1f})".format(
            **row
        )
        for row in rows
    }
    sizes = {size: f"batches of {size}" for _, size in taken}
    columns: Columns = {"": str, **each(sizes, lambda size, part: taken[part, size])}
    return table(columns, dict.fromkeys(part for part, _ in taken))


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
        "oracle": of_all(results, "oracle", oracle_table),
        "tallies": tallies(results),
        "sweeps": of_all(results, "sweeps", sweep_table),
        "influence": of_all(results, "influence", influence_table),
        "template": of_all(results, "template", template_table),
        "consistency": consistency_table(results["consistency"]),
        "flat": results["consistency"]["within_attacks"]["without_ranks"],
        "activation": of_all(results, "activation", activation_table),
        "distributions": of_all(results, "distributions", distribution_table),
        "efficiency": of_all(results, "efficiency", efficiency_table),
    }


def draw(found: Record, folder: Path) -> None:
    """Draw both plots."""
    plot_influence(found["nip_studies"], folder / "nip_influence.png")
    plot_consistency(found["nip_studies"], folder / "nip_tknc.png")


PAGE = Page("nip_studies", __file__, ("nip_studies",), parts, draw)


if __name__ == "__main__":
    PAGE.run()
