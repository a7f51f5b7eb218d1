"""A classifier on a URL: what is sent, what is taken for an answer, what is asked again."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image as pillow

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError, RemoteError, StateError
from nip_audio.image.adapter import to_8_bits
from nip_audio.image.kept_answers import PredictionCache
from nip_audio.image.remote import RemoteClassifier, RemoteSettings

LABELS = ("cat", "dog", "eel")
Answer = tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]


class Scripted(HTTPServer):
    """Gives the answers it is told, in turn, and keeps what it was asked; the last one repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/name?key=secret"

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.headers["Content-Type"], body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer(self)
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Scripted]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    found = Scripted()
    thread = threading.Thread(target=lambda: found.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def says(content: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps(content).encode()


def pictures(count: int = 1, channels: int = 1) -> Batch:
    drawn = torch.rand(count, channels, 5, 7, generator=torch.Generator().manual_seed(count))
    return Batch(to_8_bits(drawn))


def client(server: Scripted, waits: list[float] | None = None, **settings) -> RemoteClassifier:
    sleep = (lambda s: None) if waits is None else waits.append
    return RemoteClassifier(server.url, LABELS, settings=RemoteSettings(**settings), sleep=sleep)


def decoded(data: bytes) -> torch.Tensor:
    values = np.array(pillow.open(io.BytesIO(data), formats=("PNG",)), dtype=np.float32) / 255
    found = torch.from_numpy(values)
    return found[None] if found.dim() == 2 else found.permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_picture_is_sent_as_a_png_and_named(server, channels):
    server.answers = [says({"label": "dog", "confidence": 0.9}), says({"label": 0})]
    remote, batch = client(server), pictures(2, channels)
    named = remote(batch)
    assert named.tolist() == [1, 0]
    assert named.dtype == torch.long
    assert [kind for kind, _ in server.asked] == ["image/png"] * 2
    torch.testing.assert_close(torch.stack([decoded(body) for _, body in server.asked]), batch.x)
    assert (remote.queries, remote.requests) == (2, 2)


def test_several_go_together(server):
    server.answers = [says({"labels": ["dog", "cat"]}), says({"labels": [2]})]
    remote, batch = client(server, images_per_request=2), pictures(3)
    assert remote(batch).tolist() == [1, 0, 2]
    sent = [text for _, body in server.asked for text in json.loads(body)["pictures"]]
    torch.testing.assert_close(
        torch.stack([decoded(base64.b64decode(text)) for text in sent]), batch.x
    )
    assert (remote.queries, remote.requests) == (3, 2)


def test_what_may_pass_is_asked_again_after_ever_longer_waits(server):
    server.answers = [
        says({}, 503),
        says({}, 429, Retry_After="7"),
        says({}, 500, Retry_After="99999"),
        says({"label": "eel"}),
    ]
    waits: list[float] = []
    remote = client(server, waits)
    assert remote(pictures()).tolist() == [2]
    assert waits == [0.5, 7.0, 30.0]
    assert (remote.queries, remote.requests) == (1, 4)
    assert len({body for _, body in server.asked}) == 1


def test_it_gives_up_and_says_why(server):
    server.answers = [says({}, 503)]
    remote = client(server, attempts=3)
    with pytest.raises(RemoteError, match=r"/name gave no answer in 3 attempts \(last: status 503"):
        remote(pictures())
    assert (remote.queries, remote.requests) == (0, 3)


def test_nobody_there_is_no_answer():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    remote = RemoteClassifier(
        url, LABELS, settings=RemoteSettings(attempts=2), sleep=lambda s: None
    )
    with pytest.raises(RemoteError, match="no answer in 2 attempts"):
        remote(pictures())


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (says({"label": "cow"}), "answered label 'cow', expected one of the 3 given names"),
        (says({"label": 3}), "answered label 3,"),
        (says({"label": -1}), "answered label -1,"),
        (says({"label": True}), "answered label True,"),
        (says({"label": ["cat"]}), r"answered label \['cat'\]"),
        (says({"class": "cat"}), 'expected an object with "label"'),
        (says(["cat"]), 'expected an object with "label"'),
        ((200, {}, b"<html>"), "is not JSON"),
        ((200, {}, b'{"label": NaN}'), "NaN is not a JSON number"),
        ((200, {}, b'{"label": "cat", "label": "dog"}'), "'label' occurs twice"),
        ((200, {}, b""), "is not JSON"),
        ((200, {}, b"[" * 60_000), "is not JSON"),
        (says({"label": "x" * 70_000}), "more than 65536 bytes"),
        (says({}, 404), "status 404, expected 200; check the URL"),
        (says({"label": "cat"}, 201), "status 201, expected 200"),
        (says({}, 302, Location="http://127.0.0.1:1/elsewhere"), "redirects are not followed"),
        (says({}, 307, Location="file:///etc/passwd"), "redirects are not followed"),
    ],
)
def test_any_other_answer_is_one_clear_error_at_once(server, answer, match):
    server.answers = [answer]
    remote = client(server)
    with pytest.raises(RemoteError, match=match) as caught:
        remote(pictures())
    assert remote.requests == 1
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_as_many_labels_as_pictures(server):
    server.answers = [says({"labels": ["cat"]})]
    with pytest.raises(RemoteError, match='"labels", a list of 2'):
        client(server, images_per_request=2)(pictures(2))


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"label"')


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (dripping, "not finished in 0.2 s"),
        (silent, "timed out"),
        (cut_short, "broke off after 8 of 500 bytes"),
    ],
)
def test_an_answer_has_its_time_and_its_end(server, answer, match):
    server.answers = [answer, says({"label": "cat"})]
    assert client(server, timeout_s=0.2)(pictures()).tolist() == [0]
    server.answers = [answer]
    with pytest.raises(RemoteError, match=match):
        client(server, timeout_s=0.2, attempts=1)(pictures())


def test_queries_have_a_limit_over_all_calls(server):
    server.answers = [says({"label": "cat"})]
    remote = client(server, most_queries=3)
    remote(pictures(2))
    with pytest.raises(RemoteError, match="queried 2 times, 2 more would exceed the limit of 3"):
        remote(pictures(2))
    assert len(server.asked) == 2


def test_headers_are_sent_and_never_shown(server):
    seen: list[str | None] = []

    def look(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        handler.send_error(403)

    server.answers = [look]
    remote = RemoteClassifier(server.url, LABELS, headers={"Authorization": "Bearer hidden"})
    with pytest.raises(RemoteError) as caught:
        remote(pictures())
    assert seen == ["Bearer hidden"]
    assert "hidden" not in str(caught.value)
    with pytest.raises(InputError, match="'Authorization' has a name or value") as wrong:
        RemoteClassifier(server.url, LABELS, headers={"Authorization": "Bearer hidden\n"})
    assert "hidden" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("file:///etc/passwd", "not a URL with http or https"),
        ("ftp://host/a", "not a URL with http or https"),
        ("http:///label", "not a URL with http or https"),
        ("label", "not a URL with http or https"),
        ("http://ann:pw@host/", "contains credentials"),
        ("http://host:port/", "is not a URL"),
        ("http://host/a b", "percent-encode"),
    ],
)
def test_only_urls_of_http_are_asked(url, match):
    with pytest.raises(InputError, match=match) as caught:
        RemoteClassifier(url, LABELS)
    assert "pw" not in str(caught.value).replace("passwd", "")


@pytest.mark.parametrize("labels", [(), ("cat",), ("cat", "cat")])
def test_there_are_classes_and_none_twice(labels):
    with pytest.raises(InputError, match="expected at least two, all different"):
        RemoteClassifier("http://host/", labels)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"attempts": 0}, "expected ≥ 1 each"),
        ({"most_queries": 0}, "expected ≥ 1 each"),
        ({"images_per_request": 0}, "expected ≥ 1 each"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"wait_s": 50.0}, "expected timeout_s > 0 and 0 ≤ wait_s"),
    ],
)
def test_senseless_settings_are_errors(settings, match):
    with pytest.raises(InputError, match=match):
        RemoteSettings(**settings)


def test_what_was_answered_is_not_asked_again(server, tmp_path):
    path = tmp_path / "answers.jsonl"

    def again(**settings) -> RemoteClassifier:
        return RemoteClassifier(
            server.url, LABELS, settings=RemoteSettings(**settings), kept=path, sleep=lambda s: None
        )

    server.answers = [says({"label": "dog"}), says({"label": "eel"}), says({}, 404)]
    batch = pictures(3)
    with pytest.raises(RemoteError, match="404"):
        again()(batch)  # two answers are on disk when the third fails
    server.answers = [says({"labels": ["cat"]})]
    remote = again(images_per_request=10, most_queries=1)
    assert remote(batch).tolist() == [1, 2, 0]
    assert remote(batch).tolist() == [1, 2, 0]
    assert (remote.queries, remote.requests) == (1, 1)
    assert "secret" not in path.read_text()


def test_a_line_that_broke_off_is_asked_again(server, tmp_path):
    path = tmp_path / "answers.jsonl"
    server.answers = [says({"label": "dog"})]
    RemoteClassifier(server.url, LABELS, kept=path)(pictures(2))
    path.write_bytes(path.read_bytes()[:-5])
    kept = PredictionCache(path, RemoteClassifier(server.url, LABELS).shown, LABELS)
    assert len(kept) == 1
    kept.add("x", 2)
    assert PredictionCache(path, server.url.split("?")[0], LABELS).get("x") == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"source": "other", "labels": ["a", "b"]}\n', "predictions of another classifier"),
        ('{"source": "here", "labels": ["a", "c"]}\n', "predictions of another classifier"),
        ("[" * 5000 + "\n", "damaged"),
        ('{"source": "here", "labels": ["a", "b"]}\n{"picture": "x"}\n', "damaged"),
        ('{"source": "here", "labels": ["a", "b"]}\n{"picture": "x", "label": 2}\n', "damaged"),
        ('{"source": "here", "labels": ["a", "b"]}\n3\n', "damaged"),
        ("no line at all", "predictions of another classifier"),
    ],
)
def test_other_answers_are_refused(tmp_path, text, match):
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(StateError, match=match):
        PredictionCache(path, "here", ("a", "b"))


def test_a_place_where_nothing_can_be_kept_is_an_error(tmp_path):
    with pytest.raises(StateError, match="cannot be used"):
        PredictionCache(tmp_path / "none" / "answers.jsonl", "here", ("a", "b"))
