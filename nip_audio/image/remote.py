"""Query an image classifier on a URL that answers with labels only.

The protocol: every request is a ``POST``.

* One image: the header is ``Content-Type: image/png`` and the body an 8-bit PNG, grey or RGB, of
  the image's size. The answer is a JSON object with ``label``::

      {"label": "cat"}

* Several images, if ``images_per_request`` is above 1: the header is ``Content-Type:
  application/json`` and the body ``{"pictures": ["<PNG in base64>", ...]}``. The answer has
  ``labels`` in the same order::

      {"labels": ["cat", "dog"]}

A label is the name of a class (a string) or its index (an integer). Other fields of the answer are
ignored. A request is repeated after a wait if its status is 408, 429, 500, 502, 503 or 504, if the
connection breaks or if it takes too long; any other status but 200 is an error. Redirects are not
followed, so that only the given URL receives images.
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
from nip_audio.image.kept_answers import PredictionCache

__all__ = ["RemoteClassifier", "RemoteSettings"]

_PIECE = 8192
_ASK_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_SHOWN = 80


@dataclass(frozen=True)
class RemoteSettings:
    """Settings for querying a remote classifier.

    Attributes:
        images_per_request: Largest number of images per request; 1 sends each as a PNG.
        timeout_s: Time limit for a whole answer.
        attempts: Largest number of requests for the same answer.
        wait_s: Wait before the second attempt; it doubles before each further one. A longer
            ``Retry-After`` of the server is respected.
        longest_wait_s: Longest wait, whatever the server asks for.
        most_bytes: Largest size of an answer.
        most_queries: Largest number of images to query over all calls; None means no limit.

    Raises:
        InputError: If a setting is invalid.
    """

    images_per_request: int = 1
    timeout_s: float = 10.0
    attempts: int = 4
    wait_s: float = 0.5
    longest_wait_s: float = 30.0
    most_bytes: int = 1 << 16
    most_queries: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        counts = (self.images_per_request, self.attempts, self.most_bytes, self.most_queries or 1)
        if min(counts) < 1 or self.most_queries == 0:
            raise InputError(
                "images_per_request, attempts, most_bytes and most_queries are "
                f"{(*counts[:3], self.most_queries)}, expected ≥ 1 each"
            )
        if not 0 < self.timeout_s < math.inf or not 0 <= self.wait_s <= self.longest_wait_s < 3600:
            raise InputError(
                f"timeout_s is {self.timeout_s}, wait_s {self.wait_s} and longest_wait_s "
                f"{self.longest_wait_s}, expected timeout_s > 0 and 0 ≤ wait_s ≤ "
                "longest_wait_s < 3600"
            )


class RemoteClassifier:
    """Image classifier on a URL, called with a batch to get predicted classes.

    It can be passed to ``train_substitute`` as ``answer``.

    Args:
        url: URL with http or https. Credentials in the URL are refused; send them in ``headers``.
        labels: Names of the classes, in the order of their indices.
        settings: Settings for querying; None uses the defaults.
        headers: Headers sent with every request, e.g. ``{"Authorization": "Bearer …"}``; they are
            never shown.
        kept: File of the prediction cache; cached images are not queried again, new predictions
            are added. None keeps none.
        sleep: Function that waits for a number of seconds.

    Attributes:
        queries: Number of images that were queried and answered.
        requests: Number of requests sent, including failed ones.

    Raises:
        InputError: If the URL is invalid, or there are fewer than two different labels.
        StateError: If the file is the cache of another classifier.
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
        """Check the settings and open the cache."""
        self.url = url
        self.shown = _checked(url)
        self.labels = tuple(labels)
        self._index = {label: i for i, label in enumerate(self.labels)}
        if len(self._index) < 2 or len(self._index) < len(self.labels):
            raise InputError(
                f"got {len(self.labels)} labels, {len(self._index)} of them different, expected at "
                "least two, all different; pass the name of each class once"
            )
        self.settings = RemoteSettings() if settings is None else settings
        self.queries = 0
        self.requests = 0
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            if not (value.isascii() and value.isprintable() and name.isascii() and name):
                raise InputError(
                    f"header {_cut(name)} has a name or value that is empty or not printable "
                    "ASCII; "
                    "remove line ends and special characters"
                )
        self._sleep = sleep
        self._opener = build_opener(_StayHere)
        self._kept = None if kept is None else PredictionCache(kept, self.shown, self.labels)

    def __call__(self, batch: Batch) -> Tensor:
        """Classify images, which are sent as 8-bit PNG.

        Args:
            batch: Images (B, C, H, W) in [0, 1].

        Returns:
            (B,) int64 indices of the predicted classes.

        Raises:
            RemoteError: If there is no valid answer, or the limit of queries would be exceeded.
        """
        keys = [pixels_sha256(image) for image in batch.x]
        known = {key: self._known(key) for key in keys}
        wanted = [row for row, key in enumerate(keys) if known[key] is None]
        most = self.settings.most_queries
        if most is not None and self.queries + len(wanted) > most:
            raise RemoteError(
                f"{self.shown} was queried {self.queries} times, {len(wanted)} more would exceed "
                f"the limit of {most}; raise the limit, or use fewer images"
            )
        size, named = self.settings.images_per_request, [known[key] for key in keys]
        for start in range(0, len(wanted), size):
            rows = wanted[start : start + size]
            for row, label in zip(
                rows, self._predict([png_bytes(batch.x[r]) for r in rows]), strict=True
            ):
                named[row] = label
                if self._kept is not None:
                    self._kept.add(keys[row], label)
            self.queries += len(rows)
        return torch.tensor(named, dtype=torch.long)

    def _known(self, key: str) -> int | None:
        return None if self._kept is None else self._kept.get(key)

    def _predict(self, images: Sequence[bytes]) -> list[int]:
        if self.settings.images_per_request == 1:
            found = self._object(self._post(images[0], "image/png"))
            if "label" not in found:
                self._refuse(found)
            return [self._class(found["label"])]
        texts = [base64.b64encode(image).decode() for image in images]
        body = json.dumps({"pictures": texts}).encode()
        found = self._object(self._post(body, "application/json"))
        labels = found.get("labels")
        if not isinstance(labels, list) or len(labels) != len(images):
            self._refuse(found, f'"labels", a list of {len(images)}')
        return [self._class(label) for label in labels]

    def _class(self, label: object) -> int:
        known = isinstance(label, str) and label in self._index
        if isinstance(label, str) and known:
            return self._index[label]
        if type(label) is int and 0 <= label < len(self.labels):
            return label
        raise RemoteError(
            f"{self.shown} answered label {_cut(label)}, expected one of the {len(self.labels)} "
            "given names or its index; pass the labels of this classifier"
        )

    def _object(self, answer: bytes) -> dict[str, Any]:
        try:
            found = load_json(answer)
        except ValueError as err:
            raise RemoteError(
                f"{self.shown} answered {_cut(answer)}, which is not JSON ({err}); expected an "
                'object such as {"label": "cat"}; check the URL'
            ) from err
        if not isinstance(found, dict):
            self._refuse(found)
        return found

    def _refuse(self, found: object, wanted: str = '"label"') -> NoReturn:
        raise RemoteError(
            f"{self.shown} answered {_cut(found)}, expected an object with {wanted}; the "
            "protocol is described in nip_audio.image.remote"
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
            "check that it is running, or allow more attempts or time"
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
                    f"{self.shown} has no trusted certificate ({reason.verify_message}); check "
                    "the URL"
                ) from err
            raise _NoAnswer(str(reason) or type(err).__name__) from err

    def _read(self, response: HTTPResponse, deadline: float) -> bytes:
        """Read an answer in pieces, within the limits of size and time."""
        found, declared = bytearray(), response.length  # None: the length is not declared
        while declared is None or len(found) < declared:
            piece = response.read1(_PIECE if declared is None else min(_PIECE, declared))
            found += piece
            if len(found) > self.settings.most_bytes:
                raise RemoteError(
                    f"{self.shown} answered more than {self.settings.most_bytes} bytes, expected "
                    "a label; check the URL"
                )
            if time.monotonic() > deadline:
                raise _NoAnswer(f"not finished in {self.settings.timeout_s:g} s")
            if not piece and declared is not None:
                raise _NoAnswer(f"broke off after {len(found)} of {declared} bytes")
            if not piece:
                break
        return bytes(found)

    def _other_status(self, status: int) -> RemoteError:
        remedy = (
            "redirects are not followed; pass the URL that it redirects to"
            if 300 <= status < 400
            else "check the URL and credentials, and that it accepts PNG images by POST"
        )
        return RemoteError(f"{self.shown} answered status {status}, expected 200; {remedy}")


class _NoAnswer(Exception):
    """A request failed in a way that a repetition may fix."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StayHere(HTTPRedirectHandler):
    """Redirect handler that follows no redirect."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Return None, so that the redirect's status becomes an error."""


def _checked(url: str) -> str:
    """Check a URL and return it without its query, which may be secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is not a number
    except ValueError as err:
        raise InputError(f"{_cut(url)} is not a URL ({err}), expected http:// or https://") from err
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{_cut(url)} is not a URL with http or https and a host; check it")
    if parts.username is not None or parts.password is not None:
        raise InputError(
            "the URL contains credentials, which would appear in logs; pass them in headers"
        )
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise InputError(f"{_cut(url)} contains spaces or special characters; percent-encode them")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _seconds(headers: Any) -> float:
    """Return the seconds in ``Retry-After``; 0 for a date or an invalid value."""
    text = str(headers.get("Retry-After", "")).strip()
    return float(text) if text.isdecimal() and text.isascii() and len(text) < 6 else 0.0


def _cut(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
