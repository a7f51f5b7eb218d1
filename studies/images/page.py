"""Write docs/results/images.md: python -m studies.images.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nip_audio.evaluation.statistics import MIN_SUCCESSES, proportion
from nip_audio.evaluation.tables import (
    BACKDOOR_COLUMNS,
    NOT_EVALUATED,
    backdoor_cells,
    markdown,
)
from nip_audio.models.cards import list_pretrained
from nip_audio.purifiers.noise import MATCHED
from studies._lib.numbers import number, percent
from studies._lib.pages import Page
from studies.images.detection_study import CLEAN_ONLY, COMBINE
from studies.images.purification import GUIDED, ORACLE

Results = Mapping[str, Any]

SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "gtsrb": "GTSRB"}
FAMILIES = ("FGSM", "PGD", "JSMA", COMBINE)
PAPER: Mapping[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("mnist", "fgsm"): ((0.9943, 0.9949, 0.9229, 0.9935), (0.9617, 0.9883)),
    ("mnist", "pgd"): ((0.9926, 0.9973, 0.9131, 0.9926), (0.9531, 0.9783)),
    ("mnist", "jsma"): ((0.9217, 0.9171, 0.9537, 0.9164), (0.9941, 0.9984)),
    ("mnist", "cw"): ((0.9950, 0.9932, 0.9558, 0.9807), (0.9576, 0.9870)),
    ("mnist", "deepfool"): ((0.9983, 0.9964, 0.9672, 0.9851), (0.9817, 0.9971)),
    ("cifar10", "fgsm"): ((0.9974, 0.9951, 0.9643, 0.9899), (0.8617, 0.8998)),
    ("cifar10", "pgd"): ((0.9906, 0.9916, 0.9612, 0.9891), (0.8741, 0.9014)),
    ("cifar10", "jsma"): ((0.8931, 0.9002, 0.9415, 0.9103), (0.9682, 0.9890)),
    ("cifar10", "cw"): ((0.9989, 0.9987, 0.9843, 0.9964), (0.9063, 0.9176)),
    ("cifar10", "deepfool"): ((0.9971, 0.9883, 0.9801, 0.9904), (0.9614, 0.9902)),
}
"""NCCR, Table 3 (Env1): NCCR on FGSM, PGD, JSMA, Combine; baselines mutation and attack cost."""

SLACK = 0.005
JSMA_GOAL = 0.98
BACKDOORS: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("cifar10", "BadNets"): (0.9994, 0.9915, 0.9884),
    ("cifar10", "Blended"): (0.9995, 0.9874, 0.7416),
    ("cifar10", "SIG"): (0.9989, 0.9867, 0.6451),
    ("cifar10", "ReFool, simplified"): (0.9986, 0.9833, 0.6846),
    ("gtsrb", "BadNets"): (0.9998, 0.9991, 0.9798),
    ("gtsrb", "Blended"): (0.9996, 0.9982, 0.7064),
    ("gtsrb", "SIG"): (0.9994, 0.9978, 0.6291),
    ("gtsrb", "ReFool, simplified"): (0.9993, 0.9986, 0.6487),
}
"""NCCR, Table 6: NCCR, activation clustering, STRIP."""


def models() -> str:
    """Accuracy of the shipped models, as their cards have it."""
    rows = []
    for card in list_pretrained():
        if card.modality != "image":
            continue
        metrics, data = card.data["metrics"], card.data["training"]["data"]
        tested = metrics["test"]
        shares = (
            proportion(np.arange(tested) < round(metrics[k] * tested), ["one"] * tested, seed=0)
            for k in ("clean", "noise_0.05", "noise_0.1")
        )
        exact = (percent(share.to_json()) for share in shares)
        rows.append([card.name, data, str(card.data["parameters"]), str(tested), *exact])
    heads = ["model", "trained on", "parameters", "test images"]
    return markdown([*heads, "clean, %", "noise .05, %", "noise .1, %"], rows)


def goals(results: Results) -> str:
    """The Combine detector against the paper's best of each row, less .005."""
    rows = []
    for (name, attack), (paper, _) in PAPER.items():
        goal = JSMA_GOAL if attack == "jsma" else max(paper) - SLACK
        found = cells_of(results, name, attack)
        if not found:
            rows.append([SETS[name], attack, f"{goal:.4f}", NOT_EVALUATED, NOT_EVALUATED, "–"])
            continue
        ours = found[0]["judges"][COMBINE]["auroc"]
        lead = ours["value"] - goal
        verdict = "met" if lead >= 0 else f"missed by {-lead:.3f}"
        alone = number(found[0]["judges"][CLEAN_ONLY]["auroc"])
        rows.append([SETS[name], attack, f"{goal:.4f}", number(ours), alone, verdict])
    return markdown(["set", "attack", "goal", "Combine", "clean only", "goal of Combine"], rows)


def met(results: Results) -> str:
    """Return how many goals of the Combine detector are met."""
    found = goals(results).count("| met |")
    return f"{found} of {len(PAPER)}"


def cells_of(results: Results, name: str, attack: str) -> list[Mapping[str, Any]]:
    """Measured cells of an attack; the first is at the paper's strength."""
    cells = results.get("detection", {}).get(name, {}).get("cells", [])
    return [c for c in cells if c["name"].split()[0] == attack and c["examples"] > 0]


def table_three(results: Results) -> str:
    """The paper's Table 3 with ours beside it."""
    rows = []
    for (name, attack), (paper, baselines) in PAPER.items():
        theirs = [f"{v:.4f}" for v in (*paper, max(baselines))]
        found = cells_of(results, name, attack)
        ours = [NOT_EVALUATED] * 5
        if found:
            judges = found[0]["judges"]
            ours = [f"{judges[f]['auroc']['value']:.4f}" for f in (CLEAN_ONLY, *FAMILIES)]
        rows.append([SETS[name], attack, *theirs, *ours])
    heads = [f"paper: {f}" for f in FAMILIES] + ["paper: best baseline", "ours: clean only"]
    return markdown(["set", "attack", *heads, *(f"ours: {f}" for f in FAMILIES)], rows)


def detection(results: Results, name: str) -> str:
    """Every attack on one set."""
    study = results.get("detection", {}).get(name)
    if study is None:
        return NOT_EVALUATED
    rows = []
    for cell in study["cells"]:
        row = [cell["name"], f"{cell['examples']} of {cell['attempts']}"]
        if cell["examples"] == 0:
            rows.append([*row, *["–"] * 6])
            continue
        judges = cell["judges"]
        rows.append(
            [
                *row,
                f"{cell['median_l2']:.2f}",
                f"{100 * cell['median_changed']:.1f}",
                number(judges[CLEAN_ONLY]["auroc"]),
                number(judges[COMBINE]["auroc"]),
                number(judges[COMBINE]["auroc_rightly_named"]),
                " / ".join(percent(judges[COMBINE][f"at_{r}"]) for r in ("0.05", "0.01")),
            ]
        )
    heads = ["attack", "fooling", "median L2", "median changed, %", "clean only", "Combine"]
    heads += ["Combine, against correctly classified", "Combine finds at 5 / 1 %, %"]
    return markdown(heads, rows)


def false_positives(results: Results) -> str:
    """Clean images that are flagged."""
    rows = []
    for name, study in results.get("detection", {}).items():
        for judge in (CLEAN_ONLY, COMBINE):
            shares = study["false_positives"][judge]
            both = (percent(shares[rate]) for rate in ("0.05", "0.01"))
            rows.append([SETS[name], str(study["clean"]), judge, *both])
    return markdown(["set", "clean images", "detector", "at 5 %", "at 1 %"], rows)


def baselines(results: Results) -> str:
    """All detectors on the same images."""
    tables = []
    for name, study in results.get("detection", {}).items():
        found = study["baselines"]
        rows = [[judge, *(number(v) for v in values)] for judge, values in found["judges"].items()]
        counts = [f"{c} ({n})" for c, n in zip(found["cells"], found["examples"], strict=True)]
        head = f"{SETS[name]}, against {found['clean']} clean images:\n\n"
        tables.append(head + markdown(["detector", *counts], rows))
    return "\n\n".join(tables) or NOT_EVALUATED


def backdoors(results: Results) -> str:
    """F1 of who finds the poison."""
    rows = []
    for name in ("gtsrb", "cifar10"):
        for found in results.get("backdoors", {}).get(name, []):
            rows.append(backdoor_row(name, found))
    if not rows:
        return NOT_EVALUATED
    heads = ["set", "trigger", "seed", "poisoned", "accuracy, %", "attack success, %"]
    heads += ["NCCR by name: F1", "changes alone", "outputs alone", "NCCR as published"]
    heads += ["AC", "AC, told where", "STRIP"]
    return markdown([*heads, "paper: NCCR / AC / STRIP"], rows)


def backdoor_row(name: str, found: Mapping[str, Any]) -> list[str]:
    """One model."""
    judged, others = found["judged"], found["baselines"]
    clean = found["trigger"] == "none"

    def f1(part: Mapping[str, Any] | None) -> str:
        if part is None:
            return "–"
        if clean:
            return f"accuses {part['accused']}"
        return number(part.get("f1"))

    paper = BACKDOORS.get((name, found["trigger"]))
    return [
        SETS[name],
        found["trigger"],
        str(found["seed"]),
        f"{found['poisoned']} of {found['pictures']}",
        percent(found["accuracy"]),
        "–" if clean else percent(found["attack_success"]),
        f1(judged["NCCR, grouped"]),
        f1(judged["changes, grouped"]),
        f1(judged["activations, grouped"]),
        f1(judged["NCCR, published"]),
        f1(others["activation clustering, silhouette-scores"]),
        f1(others.get("activation clustering, told label and cluster")),
        f1(others["STRIP"]),
        "–" if paper is None else " / ".join(f"{v:.4f}" for v in paper),
    ]


def backdoor_verdict(results: Results) -> str:
    """In how many cases F1 is high, and what is said of clean sets."""
    cases = [found for name in SETS for found in results.get("backdoors", {}).get(name, [])]
    if not cases:
        return NOT_EVALUATED
    judged = [found["judged"]["NCCR, grouped"] for found in cases]
    values = [part["f1"]["value"] for part in judged if "f1" in part]
    clean = [part["accused"] for part in judged if "f1" not in part]
    high, good = (sum(value >= goal for value in values) for goal in (0.99, 0.97))
    missed = sum(value == 0 for value in values)
    return (
        f"**F1 is .99 or more in {high} of {len(values)} cases**, .97 or more in {good}; in "
        f"{missed} the name is not accused. Of {len(clean)} clean sets "
        f"{sum(count > 0 for count in clean)} are accused."
    )


def inverted(results: Results) -> str:
    """How often the order of the paper's Fig. 4 is seen."""
    rates = [
        found["judged"]["rates"]
        for name in SETS
        for found in results.get("backdoors", {}).get(name, [])
        if "small, poisoned" in found["judged"]["rates"]
    ]
    less = sum(r["small, poisoned"][2] < r["small, clean"][2] for r in rates)
    more = sum(r["destroying, poisoned"][2] > r["destroying, clean"][2] for r in rates)
    return f"The first holds in {less} of {len(rates)} cases, the second in {more}."


def sides(results: Results) -> str:
    """How clear it is: alarms, and how unlike other names both sides of the target are."""
    rows = []
    for name in ("gtsrb", "cifar10"):
        for found in results.get("backdoors", {}).get(name, []):
            cells = backdoor_cells(found["judged"]["NCCR, grouped"])
            rows.append([SETS[name], found["trigger"], str(found["seed"]), *cells])
    return markdown(["set", "trigger", "seed", *BACKDOOR_COLUMNS], rows)


def inversion(results: Results) -> str:
    """The paper's Fig. 4: the scalar under small and under destroying noise."""
    rows = []
    for name in ("gtsrb", "cifar10"):
        for found in results.get("backdoors", {}).get(name, []):
            rates = found["judged"]["rates"]
            if found["trigger"] == "none" or "small, poisoned" not in rates:
                continue
            middle = [
                f"{rates[f'{noise}, {who}'][2]:.4f}"
                for noise in ("small", "destroying")
                for who in ("clean", "poisoned")
            ]
            rows.append([SETS[name], found["trigger"], str(found["seed"]), *middle])
    if not rows:
        return NOT_EVALUATED
    heads = ["set", "trigger", "seed", "σ 8/255: clean", "poisoned", "σ 1: clean", "poisoned "]
    return markdown(heads, rows)


def robustness(results: Results) -> str:
    """Models in the order of their NCCR, set by set."""
    rows = []
    for name, study in results.get("robustness", {}).items():
        for row in study["ranked"]:
            right = study["accuracy"][row["model"]]
            rows.append(
                [
                    SETS[name],
                    str(row["rank"]),
                    row["model"],
                    number(row["mean"], 4),
                    *(percent(right[kind]) for kind in ("clean", "noise", "pgd")),
                    chance(row["p_next"]),
                ]
            )
    if not rows:
        return NOT_EVALUATED
    heads = ["set", "rank", "model", "mean NCCR", "clean, %", "noise, %", "PGD, %"]
    return markdown([*heads, "p against the next"], rows)


def adaptive(results: Results) -> str:
    """What is left when the attack goes through the defence."""
    rows = []
    for name in SETS:
        cells = results.get("nip", {}).get(name, {}).get("adaptive")
        if cells is None:
            rows.append([SETS[name], "–", "–", *[NOT_EVALUATED] * 3])
            continue
        for cell in cells:
            left = cell["still_right"]
            noise = next(title for title in left if title.startswith(MATCHED))
            shares = (percent(left[title]) for title in ("undefended", GUIDED, noise))
            rows.append([SETS[name], cell["name"], str(cell["attempts"]), *shares])
    heads = ["set", "attack", "images", "undefended, %", "guided NIP, %", "noise as strong, %"]
    return markdown(heads, rows)


def guided_mean(results: Results, name: str) -> str:
    """Mean DSR of guided NIP over the attacks that fool enough images, percent."""
    study = results.get("nip", {}).get(name)
    return NOT_EVALUATED if study is None else f"{mean_dsr(with_rate(study), GUIDED):.1f}"


def with_rate(study: Results) -> list[Results]:
    """Cells of attacks that fool enough images."""
    return [cell for cell in study["cells"] if not few(cell["examples"])]


def mean_dsr(cells: Sequence[Results], defence: str) -> float:
    """Mean DSR of a defence over attacks, percent."""
    return 100 * float(np.mean([cell["dsr"][defence]["value"] for cell in cells]))


def chance(p: float | None) -> str:
    """A p-value; results are kept to five digits."""
    if p is None:
        return "–"
    return f"{p:.1g}" if p else "< 0.00001"


def nip(results: Results) -> str:
    """What each defence recovers, mean over attacks, and benign accuracy."""
    tables = []
    for name in ("mnist", "gtsrb", "cifar10"):
        study = results.get("nip", {}).get(name)
        if study is None:
            tables.append(f"{SETS[name]}: {NOT_EVALUATED}")
            continue
        cells = with_rate(study)
        weak = [
            f"{cell['name']} ({cell['examples']} of {cell['attempts']})"
            for cell in study["cells"]
            if cell not in cells
        ]
        counts = [f"{cell['name']} ({cell['examples']})" for cell in cells]
        rows = []
        for defence in (*study["benign_accuracy"], ORACLE):
            values = [100 * cell["dsr"][defence]["value"] for cell in cells]
            benign = study["benign_accuracy"].get(defence)
            rows.append(
                [
                    defence,
                    percent(benign) if benign else "–",
                    f"{mean_dsr(cells, defence):.1f}",
                    *(f"{v:.0f}" for v in values),
                ]
            )
        undefended = percent(study["undefended"])
        head = f"{SETS[name]}, {study['model']}; {study['benign']} benign images, undefended "
        table = markdown(["defence", "benign, %", "mean DSR, %", *counts], rows)
        left_out = f"\nToo few fool for a rate: {', '.join(weak)}.\n" if weak else ""
        tables.append(f"{head}{undefended} % correctly classified:\n\n{table}{left_out}")
    return "\n\n".join(tables)


def screening(results: Results) -> str:
    """What was flagged in folders with clean and attacked images."""
    rows = []
    for name, study in results.get("screening", {}).items():
        mixed = study["mixed"]
        for key, how in (
            ("by_rate", f"--fpr {study['rate']:g}"),
            ("by_discoveries", f"--fdr {study['discoveries']:g}"),
        ):
            found = mixed[key]
            rows.append(
                [
                    f"{SETS[name]}, {mixed['attack']}",
                    f"`{how}`",
                    f"{found['attacked']} of {mixed['attacked']}",
                    f"{found['clean']} of {mixed['clean']}",
                    f"{mixed['pictures_a_second']:.0f}",
                ]
            )
    heads = ["folder", "judged by", "attacked flagged", "clean flagged", "images a second"]
    return markdown(heads, rows) if rows else NOT_EVALUATED


def shrunk(results: Results) -> str:
    """What was flagged of clean images that were made smaller."""
    rows = [
        [
            SETS[name],
            f"{row['side']} × {row['side']}",
            f"{row['adversarial']} of {row['pictures']}",
            f"{row['out_of_domain']} of {row['pictures']}",
        ]
        for name, study in results.get("screening", {}).items()
        for row in study["shrunk"]
    ]
    heads = ["set", "size", "`adversarial`", "`out_of_domain`"]
    return markdown(heads, rows) if rows else NOT_EVALUATED


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the line end behind it."""
    return markdown(heads, rows).rstrip("\n")


def few(examples: int) -> bool:
    """Whether they give no rate."""
    return examples < MIN_SUCCESSES


def dsr_table(study: Results, cells: Sequence[tuple[str, Results]], heads: Sequence[str]) -> str:
    """Defences by cells: DSR with its interval, benign accuracy before it."""
    defences = [*study["benign_accuracy"], ORACLE]
    rows = []
    for defence in defences:
        benign = study["benign_accuracy"].get(defence)
        found = [percent(cell["dsr"][defence]) for _, cell in cells]
        rows.append([defence, percent(benign) if benign else "–", *found])
    return table(["defence", "benign, %", *heads], rows)


def spatial(results: Results) -> str:
    """What is recovered of rotated and moved images."""
    tables = []
    for name in SETS:
        study = results.get("spatial", {}).get(name)
        if study is None:
            tables.append(f"{SETS[name]}: {NOT_EVALUATED}")
            continue
        cells = [(c["attack"]["keep"], c) for c in study["cells"] if not few(c["examples"])]
        heads = [f"{keep}: DSR, % ({c['examples']} of {c['attempts']} fool)" for keep, c in cells]
        attack = study["cells"][0]["attack"]
        random = study["at_random"]
        head = (
            f"{SETS[name]}, {study['model']}, {attack['degrees']:g}° and {attack['pixels']:g} "
            f"pixels either way; moved by chance, {percent(random['accuracy'])} % of "
            f"{random['pictures']} correctly classified images still are; "
            f"{study['benign']} benign, undefended {percent(study['undefended'])} %:\n\n"
        )
        tables.append(head + dsr_table(study, cells, heads))
    return "\n\n".join(tables)


def spatial_detection(results: Results) -> str:
    """What the shipped calibrations make of them."""
    rows = []
    for name in SETS:
        study = results.get("spatial", {}).get(name, {})
        if "detection" not in study:
            rows.append([SETS[name], "–", *[NOT_EVALUATED] * 6])
            continue
        for kind, found in sorted(study["detection"].items(), reverse=True):
            false = " / ".join(percent(found["false_positives"][r]) for r in ("0.05", "0.01"))
            counts = [str(found["pictures"]), str(found["clean"])]
            flagged = [percent(found[f"at_{r}"]) for r in ("0.05", "0.01")]
            shown = kind.replace("named rightly", "correctly classified")
            rows.append([SETS[name], shown, *counts, number(found["auroc"]), *flagged, false])
    heads = ["set", "images", "count", "clean", "AUROC", "flagged at 5 %, %", "at 1 %, %"]
    return table([*heads, "clean flagged at 5 / 1 %, %"], rows)


def elasticity(results: Results) -> str:
    """DSR by the size of the change."""
    tables = []
    for name in SETS:
        study = results.get("elasticity", {}).get(name)
        if study is None:
            tables.append(f"{SETS[name]}: {NOT_EVALUATED}")
            continue
        for attack, title in (
            ("pgd-l2", "PGD within a ball of L2"),
            ("pgd", "PGD, largest change"),
        ):
            found = [c for c in study["cells"] if c["attack"]["name"] == attack]
            cells = [(c["name"], c) for c in found if not few(c["examples"])]
            if not cells:
                continue
            heads = [
                f"{c['attack']['eps']:g} ({c['examples']} of {c['attempts']})" for _, c in cells
            ]
            rows = [
                [d, *(f"{100 * c['dsr'][d]['value']:.0f}" for _, c in cells)]
                for d in (*study["benign_accuracy"], ORACLE)
            ]
            weak = [
                f"{c['attack']['eps']:g} ({c['examples']})" for c in found if few(c["examples"])
            ]
            left = f"\n\nToo few fool for a rate at: {', '.join(weak)}." if weak else ""
            steps = found[0]["attack"]["steps"]
            head = f"{SETS[name]}, {study['model']}, {title}, {steps} steps, DSR in %:\n\n"
            tables.append(f"{head}{table(['defence', *heads], rows)}{left}")
    return "\n\n".join(tables)


def remote(results: Results) -> str:
    """Substitutes of a served model, and what their purifiers do for it."""
    studies = results.get("remote", {})
    if not studies:
        return NOT_EVALUATED
    parts = []
    for name in (name for name in SETS if name in studies):
        study = studies[name]
        ones = sorted(study.values(), key=lambda one: one["queries"])
        rows = [
            [
                one["network"],
                str(one["queries"]),
                str(one["requests"]),
                f"{100 * one['agreement']:.1f}",
                f"{100 * one['substitute_right']:.1f}",
                f"{100 * one['remote_right']:.1f}",
                percent(one["benign"]["undefended"]),
                percent(one["benign"]["behind"][GUIDED]),
                str(one["queries_measuring"]),
            ]
            for one in ones
        ]
        pictures = ones[0]["agreement_pictures"]
        heads = ["substitute", "queries", "requests", f"agreement, % of {pictures}"]
        heads += ["substitute right, %", "served model right, %", "benign undefended, %"]
        heads += ["benign behind guided NIP, %", "queries to measure"]
        parts.append(f"{SETS[name]}, {ones[0]['served']} served:\n\n{table(heads, rows)}")
        parts += [remote_attacks(one) for one in ones]
    return "\n\n".join(parts)


def remote_attacks(one: Results) -> str:
    """DSR before the served model, of one substitute's purifiers."""
    cells = [
        (f"{word}, {cell['name']}", cell)
        for word, part in (("white box", "white_box"), ("transferred", "transferred"))
        for cell in one[part]
    ]
    strong = [(title, cell) for title, cell in cells if not few(cell["examples"])]
    rows = [
        [
            name,
            f"{100 * one['benign']['behind'][name]['value']:.1f}",
            *(f"{100 * cell['dsr'][name]['value']:.0f}" for _, cell in strong),
        ]
        for name in one["benign"]["behind"]
    ]
    heads = [f"{title} ({cell['examples']} of {cell['attempts']})" for title, cell in strong]
    weak = [f"{t} ({c['examples']} of {c['attempts']})" for t, c in cells if few(c["examples"])]
    left = f"\n\nToo few fool for a rate: {', '.join(weak)}." if weak else ""
    shown = table(["purifier", "benign, %", *heads], rows)
    return f"{one['network']}, {one['queries']} queries, DSR in %:\n\n{shown}{left}"


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = found["images"]
    return {
        "models": models(),
        "goals": goals(results),
        "met": met(results),
        "table_three": table_three(results),
        "detection_mnist": detection(results, "mnist"),
        "detection_cifar10": detection(results, "cifar10"),
        "false_positives": false_positives(results),
        "baselines": baselines(results),
        "backdoors": backdoors(results),
        "backdoor_verdict": backdoor_verdict(results),
        "sides": sides(results),
        "inversion": inversion(results),
        "inverted": inverted(results),
        "robustness": robustness(results),
        "nip": nip(results),
        "adaptive": adaptive(results),
        **{f"mean_{name}": guided_mean(results, name) for name in SETS},
        "screening": screening(results),
        "shrunk": shrunk(results),
        "spatial": spatial(results),
        "spatial_detection": spatial_detection(results),
        "elasticity": elasticity(results),
        "remote": remote(results),
    }


PAGE = Page("images", __file__, ("images",), parts)


if __name__ == "__main__":
    PAGE.run()
