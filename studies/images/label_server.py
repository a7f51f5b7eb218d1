"""Serve a model of images that only returns labels, to try black-box defences on.

    python -m studies.images.label_server lenet5-mnist --port 8000

The server listens on this machine only, and follows the protocol of ``nip_audio.image.remote``.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image as pillow

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.strict_json import load_json
from nip_audio.models.pretrained import load_pretrained
from studies._lib.command import run

MOST_BYTES = 10_000_000


class LabelServer(ThreadingHTTPServer):
    """Server that returns the model's labels for images of its size."""

    daemon_threads = True

    def __init__(
        self,
        model: InstrumentedModel,
        labels: tuple[str, ...],
        shape: tuple[int, int, int],
        port: int = 0,
    ) -> None:
        """Listen on a port of this machine, any free one by default."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.model = model
        self.labels = labels
        self.shape = shape
        self.answered = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """URL to send images to."""
        return f"http://127.0.0.1:{self.server_port}/label"

    def name(self, images: list[bytes]) -> list[str]:
        """Return the predicted labels of PNG images."""
        x = torch.stack([self.pixels(data) for data in images])
        with self.lock:
            named = self.model.predict(Batch(x)).tolist()
            self.answered += len(named)
        return [self.labels[i] for i in named]

    def pixels(self, data: bytes) -> torch.Tensor:
        """Decode a PNG to (C, H, W) pixels in [0, 1]."""
        channels, rows, columns = self.shape
        with pillow.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != (columns, rows):
                raise ValueError(f"the image is {image.size}, expected {(columns, rows)}")
            values = np.array(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
        found = torch.from_numpy(values / 255)
        return found[None] if channels == 1 else found.permute(2, 0, 1)


class _Handler(BaseHTTPRequestHandler):
    """Handler of one request."""

    server: LabelServer

    def do_POST(self) -> None:  # noqa: N802 - named so by the library
        """Answer a request with one image or several."""
        try:
            size = int(self.headers.get("Content-Length", -1))
            if not 0 < size <= MOST_BYTES:
                raise ValueError(f"Content-Length is {size}, expected 1 to {MOST_BYTES}")
            body = self.rfile.read(size)
            if self.headers.get("Content-Type") == "image/png":
                answer: dict[str, Any] = {"label": self.server.name([body])[0]}
            else:
                texts = load_json(body)["pictures"]
                answer = {"labels": self.server.name([base64.b64decode(t) for t in texts])}
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as err:
            self.answer(400, {"error": str(err)})
            return
        self.answer(200, answer)

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send a JSON response."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


@contextmanager
def serving(server: LabelServer) -> Iterator[LabelServer]:
    """Serve in another thread within a ``with`` block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Read the command line, and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    card = pretrained.card
    server = LabelServer(pretrained.model, card.labels, card.image_shape, options.port)
    print(f"{card.name} on {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    run(main)
