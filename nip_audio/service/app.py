"""The HTTP interface: routes, limits, a bounded queue, and metrics."""

from __future__ import annotations

import hmac
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Annotated, Any, cast
from uuid import uuid4

import torch
from torch import Tensor

from nip_audio import __version__
from nip_audio.errors import (
    AudioError,
    EnrolmentError,
    InputError,
    MissingDependencyError,
    OutputError,
    WorkerError,
)
from nip_audio.models.enrolment import VerificationResult, require_embedding
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.screening.measured import Measurement
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.records import ScreenRecord, error_of
from nip_audio.service import desk
from nip_audio.service.desk import Desks
from nip_audio.service.voices import Voices

try:
    import uvicorn
    from fastapi import APIRouter, Depends, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.background import BackgroundTask
    from starlette.requests import ClientDisconnect

    from nip_audio.service.answers import (
        RETRY_S,
        Enrolled,
        Health,
        Problem,
        Verified,
        problem_of_record,
        refusals,
    )
except ImportError as err:
    raise MissingDependencyError("the service needs FastAPI", extra="serve") from err

__all__ = ["Limits", "Service", "build_app", "listen"]

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one recording, in any format that nip-audio reads.",
        "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_OF_RECORDINGS = (401, 413, 422, 429, 503)
_SLOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        max_bytes: Largest body.
        queue: Most requests that wait or are worked on; the next one is told to come again.

    Raises:
        InputError: If a limit is below 1.
    """

    max_bytes: int = 20_000_000
    queue: int = 32

    def __post_init__(self) -> None:
        """Validate the limits."""
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")


@dataclass
class Service:
    """One model and what it is asked about recordings.

    Attributes:
        screener: Model, calibration and reader.
        desks: Processes that work on recordings.
        voices: Enrolled voices.
        threshold: Cosine from which a claim is accepted, or what was set on trials, which also
            calibrates scores; None if there is none.
        limits: What a request may cost.
        key: What a caller must send as ``Authorization: Bearer KEY``; None admits everybody.
    """

    screener: Screener
    desks: Desks
    voices: Voices
    threshold: float | VerificationThreshold | None
    limits: Limits = field(default_factory=Limits)
    key: str | None = None
    under_way: int = 0

    def __post_init__(self) -> None:
        """Refuse a threshold of other scores.

        Raises:
            InputError: If it was set on the scores of a PLDA.
        """
        if isinstance(self.threshold, VerificationThreshold):
            self.threshold.require_back_end(None)

    async def judged(
        self, path: Path, name: str = "recording", *, gated: bool = True
    ) -> tuple[ScreenRecord, Tensor]:
        """Judge a recording by itself, or raise why it cannot be used.

        Args:
            path: Recording.
            name: Name in the record.
            gated: Whether the enrolment gate is asked, if the service has one.

        Returns:
            The record, and the embedding that was judged, (D,) of unit length.
        """
        measured = await self.desks.ask(desk.measure, path, gated)
        if measured.error is not None:
            raise Problem.unusable(measured.error)
        embedding = torch.from_numpy(cast("Measurement", measured.measurement).embedding).float()
        try:
            require_embedding(embedding)
        except AudioError as err:
            raise Problem.unusable(error_of(err)) from err
        return self.screener.judge_alone(replace(measured, id=name)), embedding

    def cosine(self) -> float:
        """Return the cosine from which a claim is accepted, or raise that there is none."""
        if self.threshold is None:
            raise Problem(
                501,
                "no_threshold",
                "the calibration has no threshold",
                "calibrate on speakers with two recordings, or give the service a threshold "
                "(--threshold, --threshold-file)",
            )
        if isinstance(self.threshold, VerificationThreshold):
            return self.threshold.value
        return self.threshold

    def decide(self, score: float) -> VerificationResult:
        """Return the decision on the score of a claim, or raise that there is no threshold."""
        if isinstance(self.threshold, VerificationThreshold):
            return self.threshold.judge(score)
        return VerificationResult(score, self.cosine())

    def notes(self, recordings: int) -> list[str]:
        """Return what to know of a claim to a voice that is enrolled from so many recordings."""
        if not isinstance(self.threshold, VerificationThreshold):
            return []
        note = self.threshold.note([recordings])
        return [] if note is None else [note]

    async def purified(self, path: Path, out: Path) -> desk.Purified:
        """Write a purified copy, or raise what is wrong with the recording."""
        if self.screener.pretrained.card.purifier_path is None:
            raise Problem(
                501,
                "no_purifier",
                "the model comes without a purifier",
                "fit one with nip-audio fit-purifier, and start the service again",
            )
        found = await self.desks.ask(desk.purify, path, out)
        if isinstance(found, desk.Refused):
            raise Problem.unusable(found.error)
        return found


def build_app(service: Service) -> FastAPI:
    """Return the application of a service; closing it closes the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="nip-audio-") as folder:
            app.state.folder = Path(folder)
            await service.desks.ask(desk.name_of_model)  # the processes load the model now
            yield
            service.desks.close()
            service.voices.close()

    app = FastAPI(
        title="nip-audio",
        version=__version__,
        summary="Judges, enrols, verifies and purifies recordings of voices.",
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.meter = _Meter(service)
    app.add_exception_handler(Problem, _told)
    app.add_exception_handler(WorkerError, _crashed)
    app.add_exception_handler(RequestValidationError, _mistaken)
    app.middleware("http")(app.state.meter.watch)
    app.include_router(_routes)
    return app


def listen(app: FastAPI, host: str, port: int) -> None:
    """Answer requests until the process is told to stop, and finish what was begun then.

    Raises:
        OutputError: If the address cannot be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as err:
        raise OutputError(
            f"cannot listen on {host}, port {port} ({err.strerror or err}); choose another port"
        ) from err
    with listener:
        # access logs would hold the names of speakers
        _Server(uvicorn.Config(app, access_log=False)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Server for which a signal is a wish to stop that was granted, and no error afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish what was begun at SIGTERM and SIGINT."""
        before = {one: signal.signal(one, self.handle_exit) for one in (SIGTERM, SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


async def _admit(request: Request, service: Served) -> None:
    given = request.headers.get("authorization", "")
    expected = f"Bearer {service.key}"
    if service.key is not None and not hmac.compare_digest(given.encode(), expected.encode()):
        raise Problem(
            401,
            "no_key",
            "the header Authorization has no valid key",
            "send Authorization: Bearer KEY",
        )


Admitted = Depends(_admit)


async def _recording(request: Request, service: Served) -> AsyncIterator[Path]:
    """Keep the body in a file while it is worked on, if there is room for one more."""
    if service.under_way >= service.limits.queue:
        raise Problem(
            429,
            "busy",
            f"{service.under_way} recordings are waiting",
            f"send it again in {RETRY_S} s or later",
        )
    service.under_way += 1
    path: Path = request.app.state.folder / uuid4().hex
    try:
        await _receive(request, path, service.limits.max_bytes)
        yield path
    finally:
        service.under_way -= 1
        path.unlink(missing_ok=True)


Sent = Annotated[Path, Depends(_recording, scope="function")]
Speaker = Annotated[str, Query(min_length=1, max_length=200, description="Name of a speaker.")]

_routes = APIRouter(prefix="/v1")


@_routes.post(
    "/screen", dependencies=[Admitted], openapi_extra=_BODY, responses=refusals(*_OF_RECORDINGS)
)
async def screen(
    service: Served,
    path: Sent,
    id: Annotated[str, Query(max_length=1000, description="Name in the record.")] = "recording",
) -> dict[str, Any]:
    """Judge one recording by itself: attacked, damaged, unlike the calibration, or clean.

    A service with an enrolment gate also says what the recording lacks to be enrolled: it is
    ``unfit``, ``unmet`` names the limits, and each finding says what to do.
    """
    record, _ = await service.judged(path, id)
    return record.to_json()


@_routes.post(
    "/enroll",
    dependencies=[Admitted],
    openapi_extra=_BODY,
    responses=refusals(409, *_OF_RECORDINGS),
)
async def enroll(
    service: Served,
    path: Sent,
    speaker: Speaker,
    force: Annotated[bool, Query(description="Enrol it although something was found.")] = False,
) -> Enrolled:
    """Judge one recording, and enrol it unless something was found in it.

    What the enrolment gate rejects is answered with 422 and its reasons, if the service has one.
    """
    record, embedding = await service.judged(path)
    if record.verdict != "clean" and not force:
        raise problem_of_record(record)
    try:
        count = service.voices.add(speaker, embedding, str(record.sha256))
    except EnrolmentError as err:
        raise Problem.of(409, "duplicate", err) from err
    return Enrolled(speaker=speaker, recordings=count, record=record.to_json())


@_routes.post(
    "/verify",
    dependencies=[Admitted],
    openapi_extra=_BODY,
    responses=refusals(404, 501, *_OF_RECORDINGS),
)
async def verify(service: Served, path: Sent, speaker: Speaker) -> Verified:
    """Judge one recording, and tell whether it is the claimed speaker's.

    It is accepted only if the voice is close enough and nothing was found in the recording. The
    enrolment gate is not asked: a claim may be shorter than an enrolment.
    """
    service.cosine()  # without a threshold nothing is worked on
    try:
        voice, recordings = service.voices.voice(speaker)
    except EnrolmentError as err:
        raise Problem.of(404, "not_enrolled", err) from err
    record, embedding = await service.judged(path, gated=False)
    decision = service.decide(float(embedding @ voice))
    return Verified(
        speaker=speaker,
        accepted=decision.accepted and record.verdict == "clean",
        score=decision.score,
        threshold=decision.threshold,
        calibrated_llr=decision.calibrated_llr,
        recordings=recordings,
        notes=service.notes(recordings),
        record=record.to_json(),
    )


@_routes.post(
    "/purify",
    dependencies=[Admitted],
    openapi_extra=_BODY,
    response_class=FileResponse,
    responses=refusals(501, *_OF_RECORDINGS),
)
async def purify(service: Served, path: Sent) -> FileResponse:
    """Return a purified copy of one recording, a 16-bit WAV file at the model's rate."""
    out = path.with_suffix(".wav")
    done = await service.purified(path, out)
    headers = {"nip-audio-cosine": f"{done.cosine:.4f}"}
    if done.snr_db is not None:
        headers["nip-audio-snr-db"] = f"{done.snr_db:.1f}"
    sent = BackgroundTask(out.unlink)
    return FileResponse(out, media_type="audio/wav", headers=headers, background=sent)


@_routes.get("/speakers", dependencies=[Admitted])
async def speakers(service: Served) -> list[str]:
    """Return the names of the enrolled speakers."""
    return service.voices.speakers()


@_routes.delete("/speakers/{speaker}", dependencies=[Admitted])
async def forget(service: Served, speaker: str) -> dict[str, int]:
    """Forget a speaker's voice."""
    gone = service.voices.remove(speaker)
    if gone == 0:
        raise Problem(404, "not_enrolled", f"{speaker!r} is not enrolled", "see /v1/speakers")
    return {"recordings": gone}


@_routes.get("/health")
async def health(service: Served) -> Health:
    """Return what is served; it answers while recordings are worked on."""
    card, gate = service.screener.pretrained.card, service.screener.gate
    return Health(
        status="ok",
        version=__version__,
        model=card.name,
        model_id=card.model_id,
        calibration=service.screener.judge.calibration.fingerprint,
        threshold=None if service.threshold is None else service.cosine(),
        gate=None if gate is None else gate.limits.to_json(),
        under_way=service.under_way,
    )


@_routes.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Return counts and times in Prometheus' text format."""
    return PlainTextResponse(generate_latest(request.app.state.meter.registry).decode())


async def _receive(request: Request, path: Path, max_bytes: int) -> None:
    """Write the body to a file, and refuse it as soon as it is known to be too large."""
    size = 0
    with path.open("wb") as file:
        try:
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise Problem(
                        413,
                        "too_large",
                        f"the body has more than {max_bytes} bytes",
                        "send a shorter or compressed recording, or give the service a larger "
                        "limit (--max-bytes)",
                    )
                file.write(part)
        except ClientDisconnect as err:
            raise Problem(400, "incomplete", "the body ended early", "send it again") from err


async def _told(_: Request, problem: Exception) -> JSONResponse:
    if not isinstance(problem, Problem):
        raise problem
    return problem.response()


async def _crashed(_: Request, err: Exception) -> JSONResponse:
    return Problem.of(503, "crashed", err).response()


async def _mistaken(_: Request, err: Exception) -> JSONResponse:
    """Tell of a parameter that is missing or wrong, without its value."""
    wrong = err.errors() if isinstance(err, RequestValidationError) else []
    found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
    return Problem(422, "parameter", found, "see /docs for the parameters").response()


class _Meter:
    """Counts and times of requests; names and content of recordings are not in them."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        asked = "Requests by route and status."
        self.requests = Counter(
            "nip_audio_requests", asked, ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "nip_audio_seconds",
            "Time from request to answer.",
            ["route"],
            buckets=_SLOW,
            registry=self.registry,
        )
        waiting = Gauge("nip_audio_under_way", "Recordings waiting.", registry=self.registry)
        waiting.set_function(lambda: service.under_way)

    async def watch(
        self, request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Count a request, and the time until its answer."""
        started = time.perf_counter()
        response = await answer(request)
        route = _route(request)
        self.requests.labels(route, str(response.status_code)).inc()
        self.seconds.labels(route).observe(time.perf_counter() - started)
        return response


def _route(request: Request) -> str:
    route = request.scope.get("route")
    return getattr(route, "path", "other")  # not the path: anybody could fill the metrics
