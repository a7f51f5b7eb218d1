"""What the service answers, as its OpenAPI page says: results, and refusals with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from nip_audio.screening.records import ScreenRecord

__all__ = [
    "RETRY_S",
    "Enrolled",
    "Health",
    "Problem",
    "Refusal",
    "Verified",
    "problem_of_record",
    "refusals",
]

RETRY_S = 1
"""Seconds after which a caller who was told to come again may do so."""


class Enrolled(BaseModel):
    """A recording that was enrolled."""

    speaker: str
    recordings: int
    record: dict[str, Any]


class Verified(BaseModel):
    """Whether a recording is the claimed speaker's.

    ``recordings`` is the number of recordings that the speaker is enrolled from, ``calibrated_llr``
    the natural log-likelihood ratio of the score as the threshold file calibrates it (null without
    one), and ``notes`` say what makes the threshold another than it was set as.
    """

    speaker: str
    accepted: bool
    score: float
    threshold: float
    calibrated_llr: float | None
    recordings: int
    notes: list[str]
    record: dict[str, Any]


class Health(BaseModel):
    """What is served; ``gate`` has the limits of the enrolment gate, null without one."""

    status: str
    version: str
    model: str
    model_id: str
    calibration: str
    threshold: float | None
    gate: dict[str, Any] | None
    under_way: int


class Reason(BaseModel):
    """What is wrong, and what to do about it."""

    code: str
    found: str
    remedy: str


class Refusal(BaseModel):
    """An answer other than the one asked for.

    ``record`` is there if something was found in the recording; it has everything that was found.
    """

    error: Reason
    record: dict[str, Any] | None = None


class Problem(Exception):
    """An answer other than the one asked for: a status, and what the caller can do about it."""

    def __init__(
        self, status: int, code: str, found: str, remedy: str, record: ScreenRecord | None = None
    ) -> None:
        super().__init__(found)
        self.status = status
        self.body: dict[str, Any] = {"error": {"code": code, "found": found, "remedy": remedy}}
        if record is not None:
            self.body["record"] = record.to_json()

    @staticmethod
    def of(status: int, code: str, err: Exception) -> Problem:
        """Tell an error of the library, which states the remedy after a semicolon."""
        found, _, remedy = str(err).partition("; ")
        return Problem(status, code, found, remedy)

    @staticmethod
    def unusable(error: Mapping[str, str]) -> Problem:
        """Tell why a recording cannot be read or measured."""
        return Problem(422, error["code"], error["found"], error["remedy"])

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"retry-after": str(RETRY_S)} if self.status in (429, 503) else {}
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def problem_of_record(record: ScreenRecord) -> Problem:
    """Return why a recording in which something was found is not enrolled.

    What the enrolment gate rejects is 422: the caller can record it again. Everything else is 409.
    """
    named = [one for one in record.findings if one.risk == record.verdict]
    remedies = dict.fromkeys(one.remedy for one in named)
    status = 422 if record.verdict == "unfit" else 409
    found = "; ".join(one.why for one in named)
    return Problem(status, record.verdict, found, "; ".join(remedies), record)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the refusals of a route."""
    return {status: {"model": Refusal} for status in statuses}
