"""Write results as Markdown and CSV; every table states data, counts, seed and threat model."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nip_audio.evaluation.config import PROTOCOLS
from nip_audio.purifiers.noise import MATCHED

__all__ = [
    "BACKDOOR_COLUMNS",
    "LEVELS",
    "NOT_EVALUATED",
    "NOT_PUBLISHED",
    "accuracy_table",
    "attack_tables",
    "backdoor_cells",
    "check_table",
    "control_table",
    "defence_table",
    "detector_table",
    "dsr_table",
    "header",
    "markdown",
    "missing_attacks",
    "notes",
    "robust_table",
    "share",
    "strength_of",
    "to_csv",
]

NOT_EVALUATED = "not evaluated"
NOT_PUBLISHED = """*Not published*: a robust accuracy is the worst case over end-to-end PGD with
restarts, AutoAttack, a score-based black box (Square on spectrograms, FAKEBOB on waveforms) and a
transfer attack. Where one of these was not run against that very defence, the worst of the others
would promise too much, so no number is given.
"""
LEVELS = {"raw": "waveform", "input": "spectrogram"}


def share(interval: Mapping[str, float] | None) -> str:
    """Write a proportion and its 95 % interval in percent."""
    if interval is None:
        return NOT_EVALUATED
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; cells that would break it are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in escaped) + "\n"


BACKDOOR_COLUMNS = (
    "alarm of the target",
    "its sides",
    "its score",
    "highest other alarm",
    "highest other score",
)


def backdoor_cells(judged: Mapping[str, Any]) -> list[str]:
    """Format how far a set's target stands out, if it has one, and the highest other speaker."""
    return [
        _tenths(judged["alarm of target"]),
        _tenths(*judged["sides of target"] or [None]),
        _tenths(judged["score of target"]),
        _tenths(judged["highest other alarm"]),
        _tenths(judged["highest other score"]),
    ]


def _tenths(*values: float | None) -> str:
    return " / ".join("–" if value is None else f"{value:.1f}" for value in values)


def header(results: Mapping[str, Any]) -> str:
    """Write what all tables of a run have in common."""
    protocols = sorted({cell["protocol"] for cell in results["cells"]})
    threats = "; ".join(f"`{p}`: {PROTOCOLS[p]}" for p in protocols)
    return (
        f"Seed {results['seed']}; split {results['split_sha256'][:12]}; `test` role; brackets are "
        "95 % intervals, by bootstrap over speakers, or exact binomial where all agree. Only clips "
        "that the undefended model classifies correctly are attacked, a random sample, the same "
        "for every attack, and success is a prediction of anybody else. It is judged on what was "
        "written and read back: 16-bit FLAC, or float32 spectrograms. Threat models: "
        f"{threats}. {_measured_with(results)}.\n"
    )


def _measured_with(results: Mapping[str, Any]) -> str:
    """Name versions and threads, system by system where they differ."""
    groups: dict[str, list[str]] = {}
    for name, system in results["systems"].items():
        own = {**results, **system}
        versions = ", ".join(f"{library} {v}" for library, v in own["versions"].items())
        groups.setdefault(f"{versions}; {_threads(own['threads'])}", []).append(name)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in groups.items())


def notes(results: Mapping[str, Any]) -> str:
    """Write what each system is asked, and what is not known of it."""
    lines = []
    for name, system in results["systems"].items():
        known = f"{system['classes']} speakers"
        known += (
            f", enrolled from {system['enrolled']} recordings of the `train` role (CSI-E: "
            "closed-set identification of enrolled speakers)"
            if system["enrolled"]
            else " that it was trained on (CSI-NE: closed-set identification without enrolment)"
        )
        lines.append(
            f"{name} identifies every clip as one of {known}. It rejects no clip: verification "
            "thresholds are not evaluated."
        )
        if system["verification"]:
            rate = 100 * system["verification"]["eer"]
            lines.append(f"Its equal error rate in verification is {rate:.1f} % on these clips.")
        if not system["training_listed"]:
            lines.append(
                f"The card of {system['model']} does not list the recordings it was trained on, so "
                "nobody checked whether a test recording is among them."
            )
    if any(cell["accuracy_before"] for cell in results["cells"]):
        lines.append(
            "A defence makes mistakes of its own: the rows `no attack` show how many of the same "
            "clips it keeps correctly classified, and the success of an attacker who knows it "
            "includes those mistakes."
        )
    return " ".join(lines) + "\n"


def accuracy_table(results: Mapping[str, Any]) -> str:
    """Write the accuracy without an attack, behind every defence."""
    systems = results["systems"]
    defences = list(dict.fromkeys(d for s in systems.values() for d in s["accuracy"]))
    rows = [
        [
            name,
            s["model"],
            s["task"],
            s["subset"] or "whole split",
            f"{s['clips']}, {'whole' if s['crop_s'] is None else format(s['crop_s'], 'g') + ' s'}",
            s["speakers"],
            *(share(s["accuracy"].get(d)) for d in defences),
        ]
        for name, s in systems.items()
    ]
    return markdown(["system", "model", "task", "data", "clips", "speakers", *defences], rows)


def attack_tables(results: Mapping[str, Any], system: str) -> str:
    """Write all attacks on one system: a table of those bounded by ε, and one of the others."""
    cells = [cell for cell in results["cells"] if cell["system"] == system]
    bound = [cell for cell in cells if cell["norm"] == "linf"]
    free = [cell for cell in cells if cell["norm"] != "linf"]
    tested = [d["defence"] for cell in cells for d in cell["defences"]]
    known = [name for cell in cells for name in cell.get("accuracy_before", ())]
    defences = list(dict.fromkeys([*tested, *known]))
    after = [f"correctly classified behind {d}" for d in defences]
    parts = []
    if bound:
        columns = [
            "attack",
            "library",
            "at",
            "protocol",
            "ε",
            "examples",
            "success",
            "SNR dB",
            "STOI",
        ]
        rows = [
            [
                _title(cell),
                cell["library"],
                LEVELS[cell["level"]],
                _protocol(cell),
                strength_of(cell),
                cell["attacked"],
                share(cell["asr"]),
                _median(cell, "snr_db", ".1f"),
                _stoi(cell),
                *_costs(cell),
                *_saved(cell, defences),
            ]
            for cell in bound
        ]
        columns += ["queries", "gradients", "s", *after]
        parts.append(markdown(columns, [*_before(bound, defences, columns), *rows]))
    if free:
        columns = ["attack", "library", "at", "protocol", "examples", "success", "unwritten"]
        rows = [
            [
                _title(cell),
                cell["library"],
                LEVELS[cell["level"]],
                _protocol(cell),
                cell["attacked"],
                share(cell["asr"]),
                f"{100 * cell['asr_unwritten']:.1f}",
                _median(cell, "linf", ".2g"),
                _median(cell, "l2", ".2g"),
                _median(cell, "l0", ".2%"),
                _median(cell, "snr_db", ".1f"),
                _stoi(cell),
                *_costs(cell),
                *_saved(cell, defences),
            ]
            for cell in free
        ]
        more = [
            "median L∞",
            "median L2",
            "values changed",
            "SNR dB",
            "STOI",
            "queries",
            "gradients",
            "s",
        ]
        columns += [*more, *after]
        parts.append(markdown(columns, [*_before(free, defences, columns), *rows]))
    missing = [cell for cell in results["unfinished"] if cell["system"] == system]
    if missing:
        named = (
            f"{cell['title']} ({LEVELS[cell['level']]}"
            + (")" if cell["eps"] is None else f", ε {strength_of(cell)})")
            + ("" if cell["protocol"] == "unaware" else f", {_protocol(cell)}")
            for cell in missing
        )
        parts.append(f"{NOT_EVALUATED.capitalize()}: {'; '.join(named)}.\n")
    return "\n".join(parts)


def defence_table(results: Mapping[str, Any], system: str) -> str:
    """Write how every defence does against attackers who do not know it, beside noise as strong.

    A cell gives the mean defence success rate over the attacks of one kind, the lowest one, and the
    mean of white noise with the same energy as the defence's change.
    """
    groups: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
    for cell in results["cells"]:
        if cell["system"] == system and cell["protocol"] == "unaware":
            eps = cell["eps"] if cell["norm"] == "linf" else None
            groups.setdefault((cell["level"], eps), []).append(cell)
    # weaker before stronger; attacks without a strength come last
    kinds = sorted(groups, key=lambda kind: (kind[0] != "raw", kind[1] is None, kind[1] or 0.0))
    accuracy = results["systems"][system]["accuracy"]
    rows = []
    for defence in accuracy:
        if defence.startswith(MATCHED):
            continue
        saved = [_saved_of(groups[kind], defence) for kind in kinds]
        if any(saved):
            rows.append([defence, share(accuracy[defence]), *(text or "–" for text in saved)])
    return markdown(["defence", "clean", *(_kind(kind, groups[kind]) for kind in kinds)], rows)


def dsr_table(results: Mapping[str, Any], system: str, defence: str) -> str:
    """Write the success rates of one defence, beside noise, for each attack unaware of it."""
    rows = []
    for cell in results["cells"]:
        found = {row["defence"]: row for row in cell["defences"]}
        if cell["system"] == system and defence in found:
            names = (defence, f"{MATCHED}{defence}")
            rows.append(
                [
                    cell["title"],
                    LEVELS[cell["level"]],
                    strength_of(cell),
                    cell["successes"],
                    *(share(found[n]["dsr"]) if n in found else "–" for n in names),
                    f"{found[defence]['tknc']:.2f}",
                ]
            )
    columns = ["attack", "at", "ε", "fooled by", f"DSR, {defence}", "DSR, matched noise", "TKNC"]
    return markdown(columns, rows)


def _saved_of(cells: Sequence[Mapping[str, Any]], defence: str) -> str:
    """Format mean and lowest success rate of a defence, and the mean of noise; may be empty."""
    own, noise = (
        [
            100 * row["dsr"]["value"]
            for cell in cells
            for row in cell["defences"]
            if row["defence"] == name and row["dsr"] is not None
        ]
        for name in (defence, f"{MATCHED}{defence}")
    )
    if not own:
        return ""
    text = f"{sum(own) / len(own):.1f}, worst {min(own):.1f}"
    return f"{text}; noise {sum(noise) / len(noise):.1f}" if noise else text


def _kind(kind: tuple[str, float | None], cells: Sequence[Mapping[str, Any]]) -> str:
    level, eps = kind
    rated = sum(any(row["dsr"] is not None for row in cell["defences"]) for cell in cells)
    strength = "smallest change" if eps is None else f"ε {strength_of(cells[0])}"
    return f"{LEVELS[level]}, {strength} ({rated} attacks)"


def detector_table(results: Mapping[str, Any], system: str) -> str:
    """Write how well detectors tell attacked waveforms from clean ones, adaptive attacks too."""
    flagged = results["systems"][system]["flagged"]
    if flagged is None:
        return ""
    rows: list[list[object]] = [
        ["no attack", "–", "–", name, "–", share(rates["at_0.05"]), share(rates["at_0.01"])]
        for name, rates in flagged.items()
    ]
    for cell in results["cells"]:
        if cell["system"] != system or cell["level"] != "raw":
            continue
        for name, found in (cell["detectors"] or {}).items():
            rows.append(
                [
                    f"{_title(cell)}, {_protocol(cell)}",
                    strength_of(cell),
                    found["examples"],
                    name,
                    _percent_free(found["auroc"]),
                    share(found["flagged_at_0.05"]),
                    share(found["flagged_at_0.01"]),
                ]
            )
    columns = ["attack", "ε", "examples", "detector", "AUROC", "flagged at 5 %", "flagged at 1 %"]
    return markdown(columns, rows)


def control_table(results: Mapping[str, Any], system: str) -> str:
    """Write what harmless changes do to accuracy and false alarms."""
    rows = [row for row in results["controls"] if row["system"] == system]
    if not rows:
        return ""
    defences = list(rows[0]["accuracy"])
    detectors = list(rows[0]["flagged"] or ())
    columns = [
        *("change", "clips"),
        *(f"accuracy, {d}" for d in defences),
        *(f"flagged at 5 %, {d}" for d in detectors),
    ]
    return markdown(
        columns,
        [
            [
                row["control"],
                row["clips"],
                *(share(row["accuracy"][d]) for d in defences),
                *(share(row["flagged"][d]["at_0.05"]) for d in detectors),
            ]
            for row in rows
        ],
    )


def check_table(results: Mapping[str, Any]) -> str:
    """Write the sanity checks of the attacks."""
    words = {True: "passed", False: "**failed**", None: NOT_EVALUATED}
    return markdown(
        ["system", "at", "check", "", "numbers"],
        [
            [c["system"], LEVELS[c["level"]], c["name"], words[c["passed"]], c["detail"]]
            for c in results["checks"]
        ],
    )


def robust_table(results: Mapping[str, Any]) -> str:
    """Write the robust accuracies, and why some cannot be given."""
    rows = [
        [
            row["system"],
            LEVELS[row["level"]],
            row["defence"],
            strength_of(row),
            row["clips"],
            ", ".join(row["attacks"]) or "–",
            _survivors(row),
            missing_attacks(row["why"]) or row["why"] or "–",
        ]
        for row in results["robust"]
    ]
    columns = [
        "system",
        "at",
        "defence",
        "ε",
        "clips",
        "attacks",
        "still correct, percent",
        "why not",
    ]
    return markdown(columns, rows)


def _survivors(row: Mapping[str, Any]) -> str:
    if row["survive"] is not None:
        return f"{100 * row['survive']:.1f}"
    return "not published" if missing_attacks(row["why"]) else NOT_EVALUATED


def missing_attacks(why: str | None) -> str:
    """Return the attacks that a robust accuracy lacks, if it lacks any; otherwise an empty text."""
    found = re.search(r"lacks (.*?); ", why or "")
    if found is None:
        return ""
    names = re.sub(r" \([^)]*\)", "", found[1])
    return "lacks " + names.replace("pgd-e2e", "end-to-end PGD").replace("autoattack", "AutoAttack")


def to_csv(results: Mapping[str, Any]) -> str:
    """Write all cells as CSV: one line per cell, and one per defence and quantity."""
    file = io.StringIO()
    columns = [
        *("system", "attack", "library", "level", "protocol", "source", "eps", "settings"),
        *("attacked", "successes", "defence", "quantity", "value", "low", "high"),
        *("median_snr_db", "median_linf", "median_l2", "queries", "gradients", "seconds"),
    ]
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for cell in results["cells"]:
        shared: dict[str, Any] = {
            key: cell[key]
            for key in ("system", "attack", "library", "level", "protocol", "source", "eps")
        }
        shared |= {key: cell[key] for key in ("attacked", "successes", "queries", "gradients")}
        shared |= {"settings": cell["settings"], "seconds": cell["seconds"]}
        for name in ("snr_db", "linf", "l2"):
            spread = cell["norms"][name]
            shared[f"median_{name}"] = None if spread is None else spread["median"]
        writer.writerow(
            shared | {"defence": cell["attacked_defence"], "quantity": "asr", **cell["asr"]}
        )
        for row in cell["defences"]:
            for quantity in ("accuracy_attacked", "dsr"):
                if row[quantity] is not None:
                    named = {"defence": row["defence"], "quantity": quantity}
                    writer.writerow(shared | named | row[quantity])
    return file.getvalue()


def _percent_free(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _title(cell: Mapping[str, Any]) -> str:
    """Format an attack's name with its settings, except ε."""
    shown = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in cell["settings"].items()
        if key not in ("name", "eps")
    ]
    return f"{cell['title']} ({', '.join(shown)})" if shown else str(cell["title"])


def _protocol(cell: Mapping[str, Any]) -> str:
    if cell["protocol"] == "adaptive":
        return f"adaptive, to {cell['attacked_defence']}"
    return f"transfer, from {cell['source']}" if cell["source"] else str(cell["protocol"])


def strength_of(cell: Mapping[str, Any]) -> str:
    """Format ε, for spectrograms in 255ths; a dash for attacks without one."""
    eps = cell["eps"]
    if eps is None:
        return "–"
    if cell["level"] == "input":
        in_255 = 255 * eps
        if abs(in_255 - round(in_255)) < 1e-6:
            return f"{round(in_255)}/255"
    return f"{eps:g}"


def _median(cell: Mapping[str, Any], name: str, form: str) -> str:
    spread = cell["norms"][name]
    return "–" if spread is None else format(spread["median"], form)


def _stoi(cell: Mapping[str, Any]) -> str:
    return "–" if cell["stoi"] is None else f"{cell['stoi']:.2f}"


def _costs(cell: Mapping[str, Any]) -> list[str]:
    return [f"{cell['queries']:.0f}", f"{cell['gradients']:.0f}", f"{cell['seconds']:.2g}"]


def _saved(cell: Mapping[str, Any], defences: Sequence[str]) -> list[str]:
    rows = {row["defence"]: row["accuracy_attacked"] for row in cell["defences"]}
    if "accuracy_before" not in cell:  # results from before this was measured
        return [share(rows[d]) if d in rows else "–" for d in defences]
    if cell["protocol"] == "adaptive":  # what does not fool the defended system, it gets right
        asr = cell["asr"]
        right = {"value": 1 - asr["value"], "low": 1 - asr["high"], "high": 1 - asr["low"]}
        rows[cell["attacked_defence"]] = right
    return [share(rows.get(d)) for d in defences]


def _before(
    cells: Sequence[Mapping[str, Any]], defences: Sequence[str], columns: Sequence[str]
) -> list[list[object]]:
    """Write one row for each number of clips: what defences do to them without an attack."""
    found: dict[int, dict[str, Mapping[str, float]]] = {}
    for cell in cells:
        if cell.get("accuracy_before"):
            found.setdefault(cell["attacked"], {}).update(cell["accuracy_before"])
    rows: list[list[object]] = []
    for count, shares in found.items():
        row: list[object] = ["–"] * (len(columns) - len(defences))
        row[0], row[columns.index("examples")] = "no attack", count
        rows.append([*row, *(share(shares.get(d)) for d in defences)])
    return rows


def _threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")
