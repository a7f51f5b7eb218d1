"""List verification trials: read a trial list, or pair the recordings of a folder or manifest.

A list has one trial a line, in one of these forms:

* VoxCeleb's and SpeechBrain's (``veri_test.txt``): ``1 enrolment.wav test.wav``, where 1 is one
  speaker and 0 are two.
* Kaldi's (``trials``): ``enrolment test target`` or ``… nontarget``.
* CSV with the columns ``enrol``, ``test`` and ``label`` (1, 0, target or nontarget).

Names are ids of a manifest (the one given, or the ``wav.scp`` beside the list), else paths below
the data root, or beside the list.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.audio.places import Places
from nip_audio.core.files import open_regular
from nip_audio.errors import InputError

__all__ = ["TrialPlan", "is_trial_list", "pair_recordings", "plan_trials", "read_trials"]

Pairs = NDArray[np.intp]

_LABELS: Mapping[str, bool] = {"1": True, "0": False, "target": True, "nontarget": False}
_COLUMNS = ("enrol", "test", "label")
_MOST_BYTES = 1 << 31
_MOST_PAIRS = 10_000_000
_EXPECTED = '"1 enrolment.wav test.wav" or "enrolment test target|nontarget"'

SpeakersFrom = Literal["manifest", "folders", "target trials"]


@dataclass(frozen=True, eq=False)
class TrialPlan:
    """Trials to score.

    Attributes:
        recordings: Recordings that occur, each once.
        speakers: Speaker of each.
        voices: Recordings that each voice is enrolled from, by their numbers; all of one speaker.
        pairs: (n, 2) number of a voice and of the recording that is compared with it.
        speakers_from: Where the names of the speakers are from.
    """

    recordings: tuple[Recording, ...]
    speakers: tuple[str, ...]
    voices: tuple[tuple[int, ...], ...]
    pairs: Pairs
    speakers_from: SpeakersFrom

    @property
    def enrolled_from(self) -> int:
        """Most recordings that a voice is enrolled from."""
        return max(len(voice) for voice in self.voices)


def pair_recordings(recordings: Sequence[Recording], *, enrol: int = 1) -> TrialPlan:
    """Form all trials of recordings whose speakers are known.

    Args:
        recordings: Recordings, each with a speaker.
        enrol: Recordings that a voice is enrolled from. With 1 every recording is compared with
            every other. With more, the first so many of each speaker in their order make one voice,
            and all other recordings are compared with every voice.

    Raises:
        InputError: If a recording has no speaker, or there are no trials or too many.
    """
    if enrol < 1:
        raise InputError(f"enrol is {enrol}, expected 1 or more recordings a voice")
    for one in recordings:
        if one.speaker is None:
            raise InputError(
                f"{one.id} has no speaker, expected one of each recording; put each speaker's "
                "recordings into a folder, or name the speaker in the manifest"
            )
    speakers = tuple(str(one.speaker) for one in recordings)
    count = len(recordings)
    if enrol == 1:
        _require_few(count * (count - 1) // 2)
        voices: tuple[tuple[int, ...], ...] = tuple((k,) for k in range(count))
        pairs = np.stack(np.triu_indices(count, 1), axis=1)
    else:
        members: dict[str, list[int]] = defaultdict(list)
        for place, speaker in enumerate(speakers):
            members[speaker].append(place)
        voices = tuple(tuple(m[:enrol]) for m in members.values() if len(m) >= enrol)
        used = {place for voice in voices for place in voice}
        tests = np.array([k for k in range(count) if k not in used], dtype=np.intp)
        _require_few(len(voices) * len(tests))
        grid = np.meshgrid(np.arange(len(voices)), tests, indexing="ij")
        pairs = np.stack([axis.ravel() for axis in grid], axis=1)
    if not len(pairs):
        raise InputError(
            f"{count} recordings of {len(set(speakers))} speakers give no trial with {enrol} "
            "enrolled, expected speakers with more recordings; add some, or enrol fewer"
        )
    return TrialPlan(tuple(recordings), speakers, voices, pairs, "manifest")


def _require_few(pairs: int) -> None:
    if pairs > _MOST_PAIRS:
        raise InputError(
            f"the recordings make {pairs:,} trials, expected at most {_MOST_PAIRS:,}; pass fewer "
            "recordings, a trial list, or `enrol` for one voice a speaker"
        )


def plan_trials(
    trials: Path,
    find: Callable[[], Iterable[Recording]],
    *,
    enrol: int = 1,
    recordings: Path | None = None,
    data_root: str | None = None,
    follow_links: bool = False,
) -> TrialPlan:
    """Read a trial list, or pair the recordings of anything else.

    Args:
        trials: Trial list, folder or manifest.
        find: Finds the recordings of a folder or manifest.
        enrol: Recordings that a voice is enrolled from; with a trial list 1.
        recordings: Manifest whose ids a trial list names.
        data_root: Folder or URL that the names of a list are below.
        follow_links: Also read what symbolic links lead to outside.

    Raises:
        InputError: If the trials cannot be read, or an argument does not go with them.
    """
    if not is_trial_list(trials):
        if recordings is not None:
            raise InputError(
                f"got `recordings`, but {trials} is no trial list, expected a list that names "
                "them; leave it out"
            )
        return pair_recordings(list(find()), enrol=enrol)
    if enrol != 1:
        raise InputError(
            f"got `enrol` {enrol} and a trial list, expected a folder or manifest, because a list "
            "says itself what is compared; leave one out"
        )
    known = None
    if recordings is not None:
        known = read_recordings(recordings, data_root=data_root, follow_links=follow_links)
    return read_trials(trials, data_root=data_root, recordings=known, follow_links=follow_links)


def is_trial_list(path: Path) -> bool:
    """Tell a trial list from a folder and from a manifest, by its name and first line."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".csv":
        with open_regular(path) as file:
            header = file.readline(1 << 16).decode("utf-8-sig", errors="replace")
        return set(_COLUMNS) <= {name.strip() for name in header.split(",")}
    return path.suffix.lower() in ("", ".txt", ".lst", ".trials") and path.name != "utt2spk"


class _Line(NamedTuple):
    """One trial as written."""

    where: str
    enrol: str
    test: str
    same: bool


def read_trials(
    path: Path,
    *,
    data_root: str | Path | None = None,
    recordings: Sequence[Recording] | None = None,
    follow_links: bool = False,
) -> TrialPlan:
    """Read a trial list.

    The speakers are those of the manifest. Without one they are the first folders of the names, as
    in VoxCeleb's ``id10270/…``, if that agrees with every label; else recordings that target trials
    connect are one speaker's.

    Args:
        path: Trial list.
        data_root: Folder or URL that the names are below.
        recordings: Recordings that the names are ids of; None looks for
            ``wav.scp`` beside the list.
        follow_links: Also read files through links that lead out of the folder.

    Raises:
        InputError: If the list cannot be read, a line has another form, a recording is not known,
            or labels contradict each other or the manifest; the message names the line.
    """
    lines = list(_lines(path))
    if not lines:
        raise InputError(f"{path} has no trials, expected lines like {_EXPECTED}; add some")
    beside = path.with_name("wav.scp")
    if recordings is None and beside.is_file():
        recordings = read_recordings(beside, data_root=data_root, follow_links=follow_links)
    find = (
        _in_folder(path, data_root, follow_links)
        if recordings is None
        else _in_manifest(path, recordings)
    )
    places: dict[str, int] = {}
    found: list[Recording] = []
    for line in lines:
        for name in (line.enrol, line.test):
            if name not in places:
                places[name] = len(found)
                found.append(find(line.where, name))
    pairs = np.array([(places[line.enrol], places[line.test]) for line in lines], dtype=np.intp)
    same = np.array([line.same for line in lines])
    speakers, how = _speakers(path, found, list(places), lines, pairs, same)
    voices = tuple((k,) for k in range(len(found)))
    return TrialPlan(tuple(found), speakers, voices, pairs, how)


def _lines(path: Path) -> Iterator[_Line]:
    try:
        with open_regular(path, most=_MOST_BYTES) as file:
            text = file.read().decode("utf-8-sig")
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); check the path") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path} is not UTF-8 text, expected a trial list; convert it") from err
    if path.suffix.lower() == ".csv":
        yield from _table(path, text)
        return
    form: Callable[[list[str]], _Line | None] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        form = form or next((one for one in (_voxceleb, _kaldi) if one(fields)), None)
        trial = form(fields) if form else None
        if trial is None:
            raise InputError(f"{where}: got {line[:80]!r}, expected {_EXPECTED}; correct it")
        yield trial._replace(where=where)


def _voxceleb(fields: list[str]) -> _Line | None:
    if len(fields) != 3 or fields[0] not in ("0", "1"):
        return None
    return _Line("", fields[1], fields[2], fields[0] == "1")


def _kaldi(fields: list[str]) -> _Line | None:
    if len(fields) != 3 or fields[2] not in ("target", "nontarget"):
        return None
    return _Line("", fields[0], fields[1], fields[2] == "target")


def _table(path: Path, text: str) -> Iterator[_Line]:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True, strict=True)
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            enrol, test, label = (str(row.get(name) or "") for name in _COLUMNS)
            if not enrol or not test or label not in _LABELS:
                raise InputError(
                    f"{where}: got {enrol!r}, {test!r} and label {label!r}, expected two names and "
                    "1, 0, target or nontarget; correct it"
                )
            yield _Line(where, enrol, test, _LABELS[label])
    except csv.Error as err:
        raise InputError(f"{path} is no CSV ({err}); correct it") from err


def _in_manifest(path: Path, recordings: Sequence[Recording]) -> Callable[[str, str], Recording]:
    by_id = {one.id: one for one in recordings}

    def find(where: str, name: str) -> Recording:
        # SpeechBrain's ids lack the ending that its trials have
        found = by_id.get(name) or by_id.get(str(Path(name).with_suffix("")))
        if found is None:
            raise InputError(
                f"{where}: {name!r} is none of the {len(by_id)} recordings of the manifest, "
                "expected the id of one; add it, or remove the trial"
            )
        return found

    return find


def _in_folder(
    path: Path, data_root: str | Path | None, follow_links: bool
) -> Callable[[str, str], Recording]:
    places = Places(path.parent, data_root)

    def find(where: str, name: str) -> Recording:
        below = data_root is not None and not Path(name).is_absolute() and "$" not in name
        try:
            place, root = places.find(f"$data_root/{name}" if below else name)
        except ValueError as err:
            raise InputError(f"{where}: {err}") from err
        return Recording(name, place, root=None if follow_links else root)

    return find


def _speakers(
    path: Path,
    found: Sequence[Recording],
    names: Sequence[str],
    lines: Sequence[_Line],
    pairs: Pairs,
    same: NDArray[np.bool_],
) -> tuple[tuple[str, ...], SpeakersFrom]:
    """Return who speaks in each recording, and how that is known."""
    one, other = pairs.T
    if all(recording.speaker is not None for recording in found):
        told = np.array([str(recording.speaker) for recording in found])
        wrong = np.flatnonzero((told[one] == told[other]) != same)
        if len(wrong):
            line, (a, b) = lines[wrong[0]], pairs[wrong[0]]
            raise InputError(
                f"{line.where}: the trial says {_said(line.same)}, but the manifest says "
                f"{told[a]!r} and {told[b]!r}; correct one of the two ({len(wrong)} of "
                f"{len(lines)} trials)"
            )
        return tuple(told.tolist()), "manifest"
    folders = np.array([name.replace("\\", "/").split("/")[0] for name in names])
    if all("/" in name for name in names) and ((folders[one] == folders[other]) == same).all():
        return tuple(folders.tolist()), "folders"
    size = len(found)
    links = coo_array((np.ones(same.sum()), (one[same], other[same])), shape=(size, size))
    _, groups = connected_components(links, directed=False)
    wrong = np.flatnonzero((groups[one] == groups[other]) & ~same)
    if len(wrong):
        line = lines[wrong[0]]
        raise InputError(
            f"{line.where}: the trial says {_said(False)}, but target trials of {path.name} "
            "connect the two recordings; correct the labels"
        )
    _, firsts = np.unique(groups, return_index=True)
    return tuple(f"speaker of {names[firsts[group]]}" for group in groups), "target trials"


def _said(same: bool) -> str:
    return "one speaker" if same else "two speakers"
