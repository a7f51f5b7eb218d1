"""Screen a training set as a stage of a data pipeline, and leave out flagged recordings."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.core.state import write_atomic
from nip_audio.errors import InputError, ResumeError
from nip_audio.screening.records import FLAGGED, NOT_JUDGED, ScreenRecord, Verdict
from nip_audio.screening.sources import ManifestSource
from nip_audio.speechbrain.data_stage import recordings_of, without
from nip_audio.speechbrain.guard import Guard

__all__ = ["ScreenedData"]

logger = logging.getLogger(__name__)

LIST_NAME = "recordings.json"
RUN_FOLDER = "screening"

_SELECTABLE: tuple[Verdict, ...] = (*FLAGGED, *NOT_JUDGED)

OnFlagged = Literal["drop", "mark"]


class ScreenedData:
    """Screens a training set once, and drops or marks recordings that are not found clean.

    The set is screened as a whole before training, as ``nip-audio screen`` does it (``Screener``);
    nothing is measured while batches are made. The records are written to ``out``/screening, where
    further epochs, further runs and runs continued after an interruption find them.

    In a YAML::

        screening: !new:nip_audio.speechbrain.ScreenedData
          guard: !ref <guard>
          out: !ref <save_folder>/guard

    Args:
        guard: Guard that judges recordings.
        out: Folder for the results of this data set alone.
        wav_key: Key of a recording's path in the data.
        speaker_key: Key of the speaker's name in the data.
        on_flagged: ``drop`` leaves recordings with one of ``verdicts`` out; ``mark`` keeps all of
            them and adds the items ``verdict`` and ``flagged`` (whether the verdict is one of
            ``verdicts``), which a pipeline can take.
        verdicts: Verdicts that are dropped; None drops all flagged recordings and all that could
            not be judged, because they are out of domain or unreadable.

    Attributes:
        records: Records of the last set, by id.

    Raises:
        InputError: If a verdict or ``on_flagged`` is unknown.
    """

    def __init__(
        self,
        guard: Guard,
        out: str | Path,
        *,
        wav_key: str = "wav",
        speaker_key: str = "spk_id",
        on_flagged: OnFlagged = "drop",
        verdicts: Sequence[Verdict] | None = None,
    ) -> None:
        """Check and keep the settings."""
        unknown = sorted(set(verdicts or ()) - set(_SELECTABLE))
        if unknown or on_flagged not in get_args(OnFlagged):
            raise InputError(
                f"got on_flagged {on_flagged!r} and verdicts {unknown}, expected one of "
                f"{', '.join(get_args(OnFlagged))} and of {', '.join(_SELECTABLE)}"
            )
        self.guard = guard
        self.out = Path(out)
        self.wav_key = wav_key
        self.speaker_key = speaker_key
        self.on_flagged = on_flagged
        self.verdicts: tuple[Verdict, ...] = _SELECTABLE if verdicts is None else tuple(verdicts)
        self.records: dict[str, ScreenRecord] = {}

    def __call__(self, dataset: DynamicItemDataset) -> DynamicItemDataset:
        """Return the data set without flagged recordings, or with marks; it is not modified itself.

        Raises:
            InputError: If no recording would be left, or an entry names no recording.
            ResumeError: If ``out`` holds results of other recordings or another guard.
        """
        flagged = self._flagged(
            recordings_of(dataset, wav_key=self.wav_key, speaker_key=self.speaker_key)
        )
        if self.on_flagged == "drop":
            return without(dataset, flagged)
        marked = without(dataset, ())
        verdicts = {name: record.verdict for name, record in self.records.items()}
        marked.add_dynamic_item(lambda name: verdicts[str(name)], takes="id", provides="verdict")
        marked.add_dynamic_item(lambda name: str(name) in flagged, takes="id", provides="flagged")
        return marked

    def manifest(self, path: str | Path, *, data_root: str | Path | None = None) -> Path:
        """Screen a SpeechBrain CSV or JSON manifest, and write a screened copy into ``out``.

        Args:
            path: Manifest with the columns ``wav`` and ``spk_id``; it is not modified.
            data_root: Folder that replaces ``$data_root`` and ``{data_root}``, as in
                ``read_recordings``. Files must be below it or beside the manifest. The new manifest
                has ``$data_root`` wherever the old one has it.

        Returns:
            Path of the new manifest, which has the same file name: without flagged recordings, or
            with them and the columns ``verdict`` and ``flagged``.

        Raises:
            InputError: If the manifest is not a CSV or JSON file or is in ``out``, no recording
                would be left, or an entry names no recording.
            ResumeError: If ``out`` holds results of other recordings or another guard.
        """
        path = Path(path)
        target, kind = self.out / path.name, path.suffix.lower()
        if kind not in (".csv", ".json") or target.resolve() == path.resolve():
            raise InputError(f"got {path}, expected a .csv or .json that is not in {self.out}")
        rows = _raw_rows(path)
        flagged = self._flagged(read_recordings(path, data_root=data_root))
        if self.on_flagged == "drop":
            kept = without(DynamicItemDataset(rows), flagged).data_ids
            rows = {name: rows[name] for name in kept}
        else:
            for name, row in rows.items():
                row |= {"verdict": self.records[name].verdict, "flagged": name in flagged}
        text = _as_csv(rows) if kind == ".csv" else json.dumps(rows, indent=1)
        write_atomic(target, text.encode(), force=True)
        return target

    def _flagged(self, recordings: list[Recording]) -> Collection[str]:
        """Screen, or read earlier results, and return the ids that ``verdicts`` selects."""
        path = self.out / LIST_NAME
        earlier = _read_list(path)
        # the journal knows ids only: another file of the same size and time would pass as the same
        listed = earlier | {r.id: _row(r) for r in recordings}
        changed = [name for name in earlier if listed[name] != earlier[name]]
        if changed:
            raise ResumeError(
                f"{path} says that {changed[0]!r} is {earlier[changed[0]]}, it is "
                f"{listed[changed[0]]} now; use another out for another data set"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(listed, indent=0).encode(), force=True)
        source = ManifestSource(path, recordings)
        run = self.out / RUN_FOLDER
        result = self.guard.screener_of(run).screen(source, run)
        self.records = {record.id: record for record in result.results.files()}
        flagged = {name for name, r in self.records.items() if r.verdict in self.verdicts}
        counts = Counter(self.records[name].verdict for name in sorted(flagged))
        logger.info(
            "%d of %d recordings are flagged or could not be judged (%s); why: %s",
            len(flagged),
            len(recordings),
            ", ".join(f"{number} {verdict}" for verdict, number in counts.items()) or "none",
            result.results.folder,
        )
        if result.summary.warning:
            logger.warning("%s", result.summary.warning)
        if self.on_flagged == "drop":
            self._refuse_unreadable(recordings, result.results.folder)
        return flagged

    def _refuse_unreadable(self, recordings: Sequence[Recording], results: Path) -> None:
        """Say so if no file could be read, which says nothing about the calibration.

        Raises:
            InputError: If all records are errors.
        """
        errors = [self.records[recording.id].error for recording in recordings]
        if all(errors) and errors[0] is not None:
            codes = Counter(error["code"] for error in errors if error is not None)
            raise InputError(
                f"none of {len(errors)} recordings could be read "
                f"({', '.join(f'{number} {code}' for code, number in codes.items())}), the first "
                f"is {recordings[0].path}: {errors[0]['found']}; check the paths and the data "
                f"root, and read the results in {results}"
            )


def _read_list(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise ResumeError(f"{path} is damaged ({err}); use another out") from err
    if not isinstance(found, dict):
        raise ResumeError(f"{path} is damaged (no mapping); use another out")
    return found


def _row(recording: Recording) -> dict[str, Any]:
    """Return a recording as SpeechBrain's JSON manifests have it."""
    row: dict[str, Any] = {"wav": os.path.abspath(recording.path), "spk_id": recording.speaker}
    if isinstance(recording.span, tuple):
        row |= {"start": recording.span[0], "stop": recording.span[1]}
    return row


def _raw_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read a manifest without replacing anything.

    Raises:
        InputError: If it is not in one of SpeechBrain's formats.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".json":
                return {name: dict(row) for name, row in json.load(file).items()}
            return {row.pop("ID"): row for row in csv.DictReader(file, skipinitialspace=True)}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as err:
        raise InputError(
            f"{path} is not one of SpeechBrain's manifests ({err!r}), expected a CSV with the "
            "columns ID, wav, spk_id, or a JSON file of {id: {wav, spk_id}}; convert it"
        ) from err


def _as_csv(rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["ID", *columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"ID": name, **row} for name, row in rows.items())
    return buffer.getvalue()
