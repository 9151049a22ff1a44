"""An object store for tests: moto's S3 server in a separate process, and a proxy before it that fails on purpose."""

import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

FAULTS = ("error", "slow down", "reset", "cut", "short", "delay")


@contextmanager
def s3_server() -> Iterator[int]:
    """Start moto's server on loopback; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{' '.join(command)} does not answer")
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Point this process and its children to an endpoint on loopback, with credentials that moto accepts."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def make_bucket(port: int, name: str) -> None:
    """Make a bucket, through the server itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, and fails a fraction of them, on a schedule determined by its seed.

    Never fails more than `streak` times in a row, so that retries always succeed. `delay_s`: how long "delay" waits; `seen`
    counts requests by method and by fault.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, port: int, faults: Sequence[str] = FAULTS, *, share: float = 0.3, streak: int = 3, seed: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.faults, self.share, self.streak = port, tuple(faults), share, streak
        self.delay_s = 0.2
        self.seen: Counter[str] = Counter()
        self._random, self._in_a_row, self._turn = random.Random(seed), 0, threading.Lock()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def fault(self) -> str | None:
        """The fault of the next request, if any."""
        with self._turn:
            fails = bool(self.faults) and self._in_a_row < self.streak and self._random.random() < self.share
            self._in_a_row = self._in_a_row + 1 if fails else 0
            return self._random.choice(self.faults) if fails else None

    def handle_error(self, request: object, client_address: object) -> None:
        """Silent: clients that hang up are expected."""

    @classmethod
    @contextmanager
    def before(cls, port: int, faults: Sequence[str] = FAULTS, **settings: float) -> "Iterator[Proxy]":
        """A running proxy."""
        with cls(port, faults, **settings) as proxy:  # type: ignore[arg-type]
            threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
            yield proxy
            proxy.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy  # type: ignore[assignment]
    hop_by_hop: ClassVar[set[str]] = {"connection", "transfer-encoding", "content-length", "expect", "server", "date"}

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        body = self._body()
        self.server.seen[self.command] += 1
        fault = self.server.fault()
        if fault is not None and (self.command == "GET" or fault not in ("cut", "short")):
            self.server.seen[fault] += 1
        if fault == "reset":
            return self._reset()
        answers = {"error": (500, "InternalError"), "slow down": (503, "SlowDown"), "forbidden": (403, "AccessDenied")}
        if fault in answers:
            status, code = answers[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>"
            return self._answer(status, [("Content-Type", "application/xml")], text.encode())
        if fault == "delay":
            time.sleep(self.server.delay_s)
        status, headers, data, length = self._ask(body)
        if fault in ("cut", "short") and self.command == "GET" and status in (200, 206) and len(data) > 1:
            if fault == "short":  # a consistent answer, as from a proxy that gave up half way
                data = data[: len(data) // 2]
                hidden = {"content-range", "etag", "x-amz-checksum-crc32"}
                headers = [(name, value) for name, value in headers if name.lower() not in hidden]
                return self._answer(status, headers, data)
            self._answer(status, headers, data[: len(data) // 2], len(data))
            return self._reset()
        return self._answer(status, headers, data, length)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes, int | None]:
        """The server's answer: status, headers, body, and the stated length (for HEAD, which has no body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.hop_by_hop}
        connection.request(
            self.command, self.path, body=body or None, headers=headers | {"Content-Length": str(len(body))}
        )
        answer = connection.getresponse()
        data, length = answer.read(), answer.getheader("Content-Length")
        connection.close()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in self.hop_by_hop]
        return answer.status, kept, data, int(length) if self.command == "HEAD" and length else None

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _reset(self) -> None:
        """End the connection with a RST."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
