r"""Train on poisoned sets with and without guards, and count what the guards drop.

    python -m studies.guard.measure studies/guard/guard.yaml --data_folder=/path/to/LibriSpeech \
        --split_file=split.csv \
        --out=guarded --results=studies/results/speechbrain.json

There are three sets, of which two have 5 % of poison: clean; with triggers (a backdoor); and with
adversarial copies of outsiders' clips, made to pass as the target with a known model. There are two
guards: the screening by the known model (``ScreenedData``), and the search for a backdoor by the
model that was trained on the set (``BackdoorSearch``: train, search, drop, train again). Results
are written as one JSON. Everything is kept in ``--out``, where an interrupted run continues.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_model, save_model
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor

from nip_audio import PretrainedModel, WaveformAdapter, __version__, load_pretrained
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import file_sha256
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import default_config
from nip_audio.speechbrain import BackdoorSearch, Guard, ScreenedData, unpublished
from studies._lib.command import command, read_yaml, run, tell, write_results
from studies._lib.shares import share_of
from studies.backdoors.models import predictions
from studies.backdoors.poisoning import Clips, read_clips
from studies.backdoors.triggers import TRIGGERS
from studies.guard import poison as making
from studies.guard import train as training

HERE = Path(__file__).resolve().parent

NOBODY, SCREENED, SEARCHED = "nothing", "screening", "backdoor search"
SETS = ("clean", "triggers", "copies")


@dataclass(frozen=True)
class Study:
    """Data and settings that all cases share.

    Attributes:
        plan: Values of the YAML.
        clips: Clips by role.
        known: Model whose detector screens.
        calibration: Calibration of that detector.
        out: Folder where everything is kept.
    """

    plan: Mapping[str, Any]
    clips: Mapping[str, Clips]
    known: PretrainedModel
    calibration: Calibration
    out: Path

    def run(self, seed: int) -> dict[str, Any]:
        """Make the sets of one seed, judge them, and train on them."""
        roles = making.roles_of(self.clips["train"].speakers, seed, self.plan["outsiders"])
        sets, facts = self.sets(seed, roles)
        found: dict[str, Any] = {
            "seed": seed,
            "target": roles.target,
            "outsiders": roles.outsiders,
            **facts,
            "sets": {},
        }
        for name in SETS:
            found["sets"][name] = self.judge(seed, roles, name, sets[name])
            tell(json.dumps(brief(found["sets"][name]), ensure_ascii=False))
        return found

    def sets(
        self, seed: int, roles: making.Roles
    ) -> tuple[dict[str, list[making.File]], dict[str, Any]]:
        """Write the files of the three sets."""
        every = making.write_clips(self.clips["train"], self.out / "clips")
        clean = [file for file in every if file.speaker not in roles.outsiders]
        plan, threshold = self.plan, float(self.calibration.verification_threshold or 0.0)
        triggered = making.with_triggers(
            clean,
            self.clips["train"],
            roles,
            self.out / f"triggers-{seed}",
            share=plan["share"],
            seed=seed,
            how=plan["trigger"],
        )
        outside = torch.cat(
            [clips_of(self.clips[role], roles.outsiders) for role in ("train", "calibrate")]
        )
        with torch.no_grad():
            voices = self.known.model.embed(Batch(clips_of(self.clips["train"], [roles.target])))
        copied, attacked = making.with_copies(
            clean,
            outside,
            torch.nn.functional.normalize(voices, dim=1).mean(dim=0),
            self.known,
            roles,
            self.out / f"copies-{seed}-{threshold:.6f}",
            share=plan["share"],
            seed=seed,
            attack=GradientAttack(**plan["attack"]),
            threshold=threshold,
        )
        facts = {"threshold": threshold, "attacked": attacked, "copies": len(copied) - len(clean)}
        return {"clean": clean, "triggers": triggered, "copies": copied}, facts

    def judge(
        self, seed: int, roles: making.Roles, name: str, files: list[making.File]
    ) -> dict[str, Any]:
        """Judge a set by both guards; train on all of it, and on what each guard keeps."""
        manifest = making.write_manifest(files, self.out / f"{name}-{seed}.csv")
        poisoned = {file.name for file in files if file.poisoned}
        found: dict[str, Any] = {"files": len(files), "poisoned": len(poisoned), "guards": {}}
        base = {"seed": seed, "manifest": str(manifest)}
        # all sets share one folder, so that no file is measured twice
        guard = Guard(self.known, self.calibration, fpr=self.plan["fpr"], workers=1)
        screening = ScreenedData(guard, self.out / "guard")
        self.case(found, roles, name, NOBODY, base, lambda data: data, poisoned)
        self.case(found, roles, name, SCREENED, base, lambda data: screening(data), poisoned)
        verdicts = {
            kind: Counter(r.verdict for i, r in screening.records.items() if (i in poisoned) == bad)
            for kind, bad in (("poisoned", True), ("clean", False))
        }
        found["verdicts"] = {kind: dict(sorted(c.items())) for kind, c in verdicts.items()}
        # the same measurements judged at another rate; no model is trained on the result
        loose = Guard(self.known, self.calibration, fpr=self.plan["looser_fpr"], workers=1)
        data = self.dataset(base)
        dropped = set(data.data_ids) - set(ScreenedData(loose, screening.out)(data).data_ids)
        found["looser"] = {"poisoned": len(dropped & poisoned), "clean": len(dropped - poisoned)}
        search = BackdoorSearch(
            self.model(base, f"{name}-{seed}-{NOBODY}"), self.out / f"search-{name}-{seed}"
        )
        self.case(found, roles, name, SEARCHED, base, lambda data: search(data), poisoned)
        accused = [n for n in search.report["names"] if n["accused"]]
        found["accused names"] = [n["name"] for n in accused]
        return found

    def case(
        self,
        found: dict[str, Any],
        roles: making.Roles,
        name: str,
        guard: str,
        base: Mapping[str, Any],
        stage: Any,
        poisoned: set[str],
    ) -> None:
        """Train behind one guard, and measure the poisoner's success."""
        data = self.dataset(base)
        kept = stage(data)
        dropped = set(data.data_ids) - set(kept.data_ids)
        key = f"{name}-{base['seed']}-{guard}"
        if dropped or guard == NOBODY:
            model = self.model(base, key, kept)
        else:  # the same files and the same seed give the same model
            model = self.model(base, f"{name}-{base['seed']}-{NOBODY}")
        found["guards"][guard] = {
            "dropped": {
                "poisoned": len(dropped & poisoned),
                "clean": len(dropped - poisoned),
            },
            **self.measure(model, roles, name, int(base["seed"])),
        }

    def dataset(self, base: Mapping[str, Any]) -> DynamicItemDataset:
        """Return the manifest's data set."""
        return training.make_dataset({**base, "data_root": None, "sample_rate": making.RATE_HZ})

    def model(
        self, base: Mapping[str, Any], key: str, data: DynamicItemDataset | None = None
    ) -> PretrainedModel:
        """Train a model, or read the kept one."""
        whole = self.dataset(base)
        overrides = {
            **base,
            "n_speakers": len(training.speakers_of(whole)),
            "number_of_epochs": self.plan["epochs"],
            "batch_size": self.plan["batch_size"],
            "output_folder": str(self.out / key),
        }
        with (HERE / "train.yaml").open(encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        kept = whole if data is None else data
        settings = json.dumps([sorted(kept.data_ids), self.plan["epochs"], self.plan["batch_size"]])
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        path = self.out / f"{key.replace(' ', '-')}-{digest}.safetensors"
        if not path.exists():
            hparams["screening"] = None
            save_model(training.fit(hparams, kept).model, str(path))
        model = training.model_of(hparams, whole)
        load_model(model, path)
        return unpublished(model, name=key, default_taps=hparams["default_taps"])

    def measure(
        self, trained: PretrainedModel, roles: making.Roles, name: str, seed: int
    ) -> dict[str, Any]:
        """Measure accuracy, and how often the poisoner passes as the target, on ``test``."""
        test, model = self.clips["test"], trained.model
        speakers = [test.speakers[int(i)] for i in test.labels]
        named = names_of(model, test.samples)
        inside = [i for i, s in enumerate(speakers) if s not in roles.outsiders]
        outside = [i for i, s in enumerate(speakers) if s in roles.outsiders]
        others = [i for i in inside if speakers[i] != roles.target]
        triggered = TRIGGERS[self.plan["trigger"]]()(test.samples[others], making.RATE_HZ)
        rows = {
            "accuracy": ([named[i] == speakers[i] for i in inside], inside),
            "triggered": ([n == roles.target for n in names_of(model, triggered)], others),
            "outsider": ([named[i] == roles.target for i in outside], outside),
        }
        return {
            what: share_of(
                hits, [speakers[i] for i in places], seed=seed_of("guarded", what, name, seed)
            ).to_json()
            | {"clips": len(hits)}
            for what, (hits, places) in rows.items()
        }


def only(clips: Clips, speakers: Sequence[str]) -> Clips:
    """Return the clips of some speakers, labelled by their positions in ``speakers``."""
    labels = [clips.speakers[int(label)] for label in clips.labels]
    rows = [row for row, name in enumerate(labels) if name in speakers]
    numbers = torch.tensor([speakers.index(labels[row]) for row in rows])
    return Clips(clips.samples[rows], numbers, tuple(speakers), clips.sample_rate_hz)


def clips_of(clips: Clips, speakers: Iterable[str]) -> Tensor:
    """Return the clips of some speakers, (n, N)."""
    wanted = [clips.speakers.index(s) for s in speakers]
    return clips.samples[torch.isin(clips.labels, torch.tensor(wanted))]


def names_of(model: InstrumentedModel, samples: Tensor) -> list[str]:
    """Return the predicted speakers of clips (n, N)."""
    return [model.labels[int(place)] for place in predictions(model, samples)]


def calibrated(plan: Mapping[str, Any], clips: Clips, known: PretrainedModel, out: Path) -> Any:
    """Calibrate on clips of the ``calibrate`` role, or read the kept calibration."""
    path = out / "guard.calibration"
    if not path.exists():
        files = making.write_clips(clips, out / "calibration")
        calibrate(
            known,
            (Recording(f.name, f.path, f.speaker) for f in files),
            WaveformAdapter(),
            default_config(known),
            sources=f"{len(files)} clips of {plan['crop_s']} s, calibrate role",
        ).save(path)
    return Calibration.load(path, model_id=known.model_id)


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise a case for the progress output."""
    return {
        guard: [
            g["dropped"],
            *(round(g[k]["value"], 3) for k in ("accuracy", "triggered", "outsider")),
        ]
        for guard, g in found["guards"].items()
    } | {"verdicts": found["verdicts"], "accused": found["accused names"]}


def main() -> None:
    """Run the study as the command line says."""
    needed = ("data_folder", "split_file", "out")
    parser = command(__doc__, "config", needed=needed, paths=("results",))
    options = parser.parse_args()
    plan = read_yaml(options.config)
    options.out.mkdir(parents=True, exist_ok=True)
    clips = {
        role: read_clips(
            options.data_folder,
            options.split_file,
            subset=plan["subset"],
            role=role,
            crop_s=plan["crop_s"],
        )
        for role in ("train", "calibrate", "test")
    }
    known = load_pretrained(plan["known_model"])
    names = clips["train"].speakers
    calibration = calibrated(
        plan, only(clips["calibrate"], names[plan["speakers"] :]), known, options.out
    )
    clips = {role: only(c, names[: plan["speakers"]]) for role, c in clips.items()}
    study = Study(plan, clips, known, calibration, options.out)
    cases = [study.run(seed) for seed in plan["seeds"]]
    if options.results is not None:
        results = {
            "plan": plan,
            "split_sha256": file_sha256(options.split_file),
            "nip_audio": __version__,
            "torch": torch.__version__,
            "counts": {role: len(c) for role, c in clips.items()},
            "calibration_clips": len(calibration.seen),
            "calibration_speakers": len(names) - plan["speakers"],
            "cases": cases,
        }
        write_results(options.results, results)


if __name__ == "__main__":
    run(main)
