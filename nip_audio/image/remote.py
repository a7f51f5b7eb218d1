"""A classifier of pictures on a URL that answers labels, and nothing else.

What is agreed. A request is a ``POST``.

* One picture: ``Content-Type: image/png``, the body is a PNG of the size that the pictures have,
  8 bits, grey or RGB. The answer is a JSON object with ``label``::

      {"label": "cat"}

* Several at once, where ``pictures_a_request`` is above 1: ``Content-Type: application/json``, the
  body is ``{"pictures": ["<PNG in base64>", ...]}``. The answer has ``labels``, in their order::

      {"labels": ["cat", "dog"]}

A label is a class's name (a string) or its index (an integer). What else is in the object is not
looked at. Any status but 200 is no answer: 408, 429, 500, 502, 503 and 504 are asked again after a
wait, and so is what breaks off or takes too long; everything else is an error at once. Redirects
are not followed, so that nothing but the URL that was named is asked.
"""

from __future__ import annotations

import base64
import json
import math
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError, RemoteError
from nip_audio.image.adapter import pixels_sha256, png_bytes
from nip_audio.image.kept_answers import KeptAnswers

__all__ = ["RemoteClassifier", "RemoteSettings"]

_PIECE = 8192
_ASK_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_SHOWN = 80


@dataclass(frozen=True)
class RemoteSettings:
    """How a remote classifier is asked.

    Attributes:
        pictures_a_request: 1 sends each picture as it is; more are sent together.
        timeout_s: For a whole answer.
        attempts: Requests for the same answer, at most.
        wait_s: Before the second; it doubles from one to the next. A longer ``Retry-After`` counts.
        longest_wait_s: Wait, at most, whatever the server says.
        most_bytes: Of an answer.
        most_queries: Pictures asked about, at most, over all calls; None is no limit.

    Raises:
        InputError: If a setting makes no sense.
    """

    pictures_a_request: int = 1
    timeout_s: float = 10.0
    attempts: int = 4
    wait_s: float = 0.5
    longest_wait_s: float = 30.0
    most_bytes: int = 1 << 16
    most_queries: int | None = None

    def __post_init__(self) -> None:
        """Check."""
        counts = (self.pictures_a_request, self.attempts, self.most_bytes, self.most_queries or 1)
        if min(counts) < 1 or self.most_queries == 0:
            raise InputError(
                "pictures_a_request, attempts, most_bytes and most_queries are "
                f"{(*counts[:3], self.most_queries)}, expected ≥ 1 each"
            )
        if not 0 < self.timeout_s < math.inf or not 0 <= self.wait_s <= self.longest_wait_s < 3600:
            raise InputError(
                f"timeout_s is {self.timeout_s}, wait_s {self.wait_s} and longest_wait_s "
                f"{self.longest_wait_s}, expected > 0, ≥ 0 and at least that, under an hour"
            )


class RemoteClassifier:
    """Asks a URL what pictures show: a callable from batches to classes.

    It is what ``train_substitute`` takes as ``answer``.

    Args:
        url: Of http or https. Credentials in it are refused: they belong into ``headers``.
        labels: Names of the classes, in the order of their indices.
        settings: How.
        headers: Sent with every request, e.g. ``{"Authorization": "Bearer …"}``; never shown.
        kept: File of answers; what is in it is not asked again, and answers are added to it.
        sleep: Waits so many seconds.

    Attributes:
        queries: Pictures that an answer was asked for and got.
        requests: Requests sent, those that failed included.

    Raises:
        InputError: If the URL is of another kind, or there are no two different labels.
        StateError: If the file is of another classifier.
    """

    def __init__(
        self,
        url: str,
        labels: Sequence[str],
        *,
        settings: RemoteSettings | None = None,
        headers: Mapping[str, str] | None = None,
        kept: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """See the class."""
        self.url = url
        self.shown = _checked(url)
        self.labels = tuple(labels)
        self._index = {label: i for i, label in enumerate(self.labels)}
        if len(self._index) < 2 or len(self._index) < len(self.labels):
            raise InputError(
                f"got {len(self.labels)} labels, {len(self._index)} of them different, expected "
                "two or more, and none twice"
            )
        self.settings = RemoteSettings() if settings is None else settings
        self.queries = 0
        self.requests = 0
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            if not (value.isascii() and value.isprintable() and name.isascii() and name):
                raise InputError(
                    f"header {_cut(name)} has a value with other than printable signs; is there a "
                    "line end too much?"
                )
        self._sleep = sleep
        self._opener = build_opener(_StayHere)
        self._kept = None if kept is None else KeptAnswers(kept, self.shown, self.labels)

    def __call__(self, batch: Batch) -> Tensor:
        """Name pictures (B, C, H, W) in [0, 1], sent as the 8 bits of a PNG: (B,) int64.

        Raises:
            RemoteError: If there is no answer, another than agreed, or no query left.
        """
        keys = [pixels_sha256(picture) for picture in batch.x]
        known = {key: self._known(key) for key in keys}
        wanted = [row for row, key in enumerate(keys) if known[key] is None]
        most = self.settings.most_queries
        if most is not None and self.queries + len(wanted) > most:
            raise RemoteError(
                f"{self.shown} was asked {self.queries} times, and {len(wanted)} more would be "
                f"over the limit of {most}; allow more, or use fewer pictures"
            )
        size, named = self.settings.pictures_a_request, [known[key] for key in keys]
        for start in range(0, len(wanted), size):
            rows = wanted[start : start + size]
            for row, label in zip(
                rows, self._name([png_bytes(batch.x[r]) for r in rows]), strict=True
            ):
                named[row] = label
                if self._kept is not None:
                    self._kept.add(keys[row], label)
            self.queries += len(rows)
        return torch.tensor(named, dtype=torch.long)

    def _known(self, key: str) -> int | None:
        return None if self._kept is None else self._kept.get(key)

    def _name(self, pictures: Sequence[bytes]) -> list[int]:
        if self.settings.pictures_a_request == 1:
            found = self._object(self._post(pictures[0], "image/png"))
            if "label" not in found:
                self._refuse(found)
            return [self._class(found["label"])]
        texts = [base64.b64encode(picture).decode() for picture in pictures]
        body = json.dumps({"pictures": texts}).encode()
        found = self._object(self._post(body, "application/json"))
        labels = found.get("labels")
        if not isinstance(labels, list) or len(labels) != len(pictures):
            self._refuse(found, f'"labels", a list of {len(pictures)}')
        return [self._class(label) for label in labels]

    def _class(self, label: object) -> int:
        known = isinstance(label, str) and label in self._index
        if isinstance(label, str) and known:
            return self._index[label]
        if type(label) is int and 0 <= label < len(self.labels):
            return label
        raise RemoteError(
            f"{self.shown} answered label {_cut(label)}, expected one of the {len(self.labels)} "
            "names given, or its index; give the labels that it has"
        )

    def _object(self, answer: bytes) -> dict[str, Any]:
        try:
            found = load_json(answer)
        except ValueError as err:
            raise RemoteError(
                f"{self.shown} answered {_cut(answer)}, no JSON ({err}), expected an object such "
                'as {"label": "cat"}'
            ) from err
        if not isinstance(found, dict):
            self._refuse(found)
        return found

    def _refuse(self, found: object, wanted: str = '"label"') -> NoReturn:
        raise RemoteError(
            f"{self.shown} answered {_cut(found)}, expected an object with {wanted}; put something "
            "before it that answers as nip_audio.image.remote describes"
        )

    def _post(self, body: bytes, content_type: str) -> bytes:
        wait, last = self.settings.wait_s, _NoAnswer("")
        for attempt in range(self.settings.attempts):
            if attempt:
                self._sleep(min(max(wait, last.wait_s), self.settings.longest_wait_s))
                wait *= 2
            self.requests += 1
            try:
                return self._once(body, content_type)
            except _NoAnswer as err:
                last = err
        raise RemoteError(
            f"{self.shown} gave no answer in {self.settings.attempts} attempts (last: {last}); "
            "check that it runs, or allow more attempts or time"
        ) from last

    def _once(self, body: bytes, content_type: str) -> bytes:
        headers = {"Accept": "application/json", **self._headers, "Content-Type": content_type}
        request = Request(self.url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self.settings.timeout_s
        try:
            with self._opener.open(request, timeout=self.settings.timeout_s) as response:
                if response.status != 200:
                    raise self._other_status(response.status)
                return self._read(response, deadline)
        except HTTPError as err:
            with err:
                if err.code in _ASK_AGAIN:
                    raise _NoAnswer(f"status {err.code}", _seconds(err.headers)) from err
                raise self._other_status(err.code) from err
        except (URLError, OSError, HTTPException) as err:
            reason = getattr(err, "reason", err)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise RemoteError(
                    f"{self.shown} has no certificate to trust ({reason.verify_message}); check "
                    "the URL"
                ) from err
            raise _NoAnswer(str(reason) or type(err).__name__) from err

    def _read(self, response: HTTPResponse, deadline: float) -> bytes:
        """Read an answer piece by piece: neither its length nor its pace is the server's choice."""
        found, declared = bytearray(), response.length  # None: until the server is done
        while declared is None or len(found) < declared:
            piece = response.read1(_PIECE if declared is None else min(_PIECE, declared))
            found += piece
            if len(found) > self.settings.most_bytes:
                raise RemoteError(
                    f"{self.shown} answered more than {self.settings.most_bytes} bytes, expected "
                    "a label; is this the right URL?"
                )
            if time.monotonic() > deadline:
                raise _NoAnswer(f"not done in {self.settings.timeout_s:g} s")
            if not piece and declared is not None:
                raise _NoAnswer(f"broke off after {len(found)} of {declared} bytes")
            if not piece:
                break
        return bytes(found)

    def _other_status(self, status: int) -> RemoteError:
        remedy = (
            "redirects are not followed: give the address that it leads to"
            if 300 <= status < 400
            else "check URL and credentials, and that it takes PNG pictures by POST"
        )
        return RemoteError(f"{self.shown} answered status {status}, expected 200; {remedy}")


class _NoAnswer(Exception):
    """A request that may do better when it is sent again."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StayHere(HTTPRedirectHandler):
    """Follows nothing: what is asked is what was named, and a POST stays one."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Return no other request, which makes the status an error."""


def _checked(url: str) -> str:
    """Return a URL as it may be shown, without its query."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # refuses one that is no number
    except ValueError as err:
        raise InputError(f"{_cut(url)} is no URL ({err}), expected http:// or https://") from err
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{_cut(url)} is no URL of http or https; give one that names a host")
    if parts.username is not None or parts.password is not None:
        raise InputError("the URL holds credentials, which logs would show; send them as a header")
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise InputError(f"{_cut(url)} holds spaces or other signs; percent-encode them")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _seconds(headers: Any) -> float:
    """Return what ``Retry-After`` asks for in seconds; a date, or nonsense, is nothing."""
    text = str(headers.get("Retry-After", "")).strip()
    return float(text) if text.isdecimal() and text.isascii() and len(text) < 6 else 0.0


def _cut(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
