"""Tell the findings of a screening that still need a person, as the options of screen ask."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from nip_audio.cli._console import plain, stdout
from nip_audio.cli._logging import logger
from nip_audio.cli._results import (
    ROWS,
    print_records,
    print_results,
    print_speakers,
    print_summary,
)
from nip_audio.screening.pipeline import ScreenResult
from nip_audio.screening.review import (
    ALERTING,
    Acceptance,
    Known,
    Review,
    read_accepted,
    read_known,
    review,
    verdicts_of,
    write_known,
)

_KNOWN_NAME = "known.json"


@dataclass(frozen=True)
class Findings:
    """Which findings of a screening are told.

    Attributes:
        out: Output folder of the screening.
        verdicts: Verdicts that are asked for.
        accepted: Findings that were accepted.
        known: Findings that were told before; None tells all.
        only: Whether clean files are left out of the table.
    """

    out: Path
    verdicts: tuple[str, ...]
    accepted: tuple[Acceptance, ...]
    known: Known | None
    only: bool

    @staticmethod
    def asked(
        source: Path,
        out: Path,
        fail_on: str | None,
        accepted: Path | None,
        *,
        new: bool,
        only: bool,
    ) -> Findings:
        """Read the options, before anything is screened.

        Raises:
            InputError: If an option or a file that it names is wrong.
        """
        return Findings(
            out,
            ALERTING if fail_on is None else verdicts_of(fail_on),
            () if accepted is None else read_accepted(accepted, outside=source),
            read_known(out / _KNOWN_NAME) if new else None,
            only or new,
        )

    def review(self, result: ScreenResult) -> Review:
        """Return what is left to do of a run."""
        return review(
            result.results.files(),
            verdicts=self.verdicts,  # type: ignore[arg-type]
            accepted=self.accepted,
            known=self.known or frozenset(),
            speakers=result.results.speakers(),
        )

    def print(self, result: ScreenResult, found: Review) -> None:
        """Print the table of files, what was left out of it, and the summary."""
        if self.only or len(found.open) < result.summary.flagged + result.summary.failed:
            print_records(found.open[:ROWS])
            if len(found.open) > ROWS:
                more = len(found.open) - ROWS
                stdout.print(f"… and {more} more findings: see results.jsonl")
        else:
            print_results(result)
        for record, one in found.accepted:
            text = f"{record.id}: {record.verdict}, accepted until {one.until}: {one.reason}"
            stdout.print(plain(text), style="dim", highlight=False, soft_wrap=True)
        for record in found.expired:
            text = f"{record.id}: its acceptance has expired; listen again, or renew it"
            stdout.print(plain(text), highlight=False, soft_wrap=True)
        if found.known:
            stdout.print(f"{len(found.known)} findings were told before")
        if found.left_out:
            stdout.print(f"{found.left_out} findings have other verdicts than --fail-on names")
        print_speakers(result)
        print_summary(result.summary, self.out)

    def close(self, result: ScreenResult, found: Review) -> None:
        """Log what was found, and keep it as known once it was printed."""
        for record in found.open:
            logger.warning("%s %s %s", record.verdict, record.id, " ".join(record.why))
        for speaker in found.speakers:
            decision = (
                "" if speaker.gate is None else f"{speaker.gate.decision}: {speaker.gate.why}"
            )
            logger.warning("unfit speaker %s: %s", speaker.speaker, decision)
        summary = result.summary
        for note in filter(None, (*summary.notes, summary.warning)):
            logger.warning("%s", note)
        verdicts = ", ".join(f"{number} {name}" for name, number in summary.verdicts.items())
        logger.info("screened %d files into %s: %s", summary.files, self.out, verdicts)
        sys.stdout.flush()
        write_known(self.out / _KNOWN_NAME, found)
