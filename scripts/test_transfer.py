"""Downloads that break off go on where they stopped, and never accept what does not fit. Run by `make test`."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import transfer

BODY = bytes(range(256)) * 40_000
"""10 MB: an attempt that brings most of it counts as progress."""


class Server(ThreadingHTTPServer):
    """Serves BODY and breaks the line after each of `cuts` bytes; records what was asked for and sent."""

    daemon_threads = True

    def __init__(self, cuts=(), ranges=True, status=None, shift=0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts = list(cuts)
        self.ranges, self.status, self.shift = ranges, status, shift
        self.asked: list[str | None] = []
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if server.status or begin >= len(BODY):
            self.send_response(server.status or 416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = BODY[begin:]
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {begin + server.shift}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        piece = rest[: server.cuts.pop(0)] if server.cuts else rest
        with contextlib.suppress(OSError):
            self.wfile.write(piece)
            server.sent += len(piece)

    def log_message(self, *_) -> None:
        pass


class Transfer(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.part = Path(folder.name) / "a.whl.part"
        self.pauses: list[int] = []

    def serve(self, **how) -> Server:
        server = Server(**how)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def fetch(self, server: Server, size: int = len(BODY)) -> None:
        url = f"http://127.0.0.1:{server.server_address[1]}/a.whl"
        with contextlib.redirect_stdout(io.StringIO()):
            transfer.fetch(url, self.part, size, transfer.Line(), lambda have: None, self.pauses.append)

    def test_a_second_run_asks_only_for_the_rest(self) -> None:
        self.part.write_bytes(BODY[:4_000_000])
        server = self.serve()
        self.fetch(server)
        self.assertEqual(self.part.read_bytes(), BODY)
        self.assertEqual(server.asked, ["bytes=4000000-"])
        self.assertEqual(server.sent, len(BODY) - 4_000_000)

    def test_a_broken_line_is_taken_up_again_within_a_run(self) -> None:
        for size in (len(BODY), 0):
            self.part.unlink(missing_ok=True)
            server = self.serve(cuts=(3_000_000, 5_000_000))
            self.fetch(server, size)
            self.assertEqual(self.part.read_bytes(), BODY)
            self.assertEqual(server.asked, [None, "bytes=3000000-", "bytes=8000000-"])
            self.assertEqual(server.sent, len(BODY))

    def test_what_has_come_is_kept_when_it_gives_up(self) -> None:
        server = self.serve(cuts=(1000,) * 99)
        with self.assertRaises(transfer.Interrupted):
            self.fetch(server)
        self.assertEqual(self.part.read_bytes(), BODY[:4000])
        self.assertEqual(self.pauses, [2, 4, 8])

    def test_attempts_that_bring_much_do_not_count(self) -> None:
        with self.assertRaises(transfer.Interrupted):
            self.fetch(self.serve(cuts=(0, 0, 0, 0)))
        self.fetch(self.serve(cuts=(0, 0, 0, 9_000_000, 0, 0)))
        self.assertEqual(self.part.read_bytes(), BODY)

    def test_a_server_without_ranges_begins_again(self) -> None:
        self.part.write_bytes(b"x" * 4_000_000)
        self.fetch(self.serve(ranges=False))
        self.assertEqual(self.part.read_bytes(), BODY)

    def test_a_whole_part_costs_no_byte(self) -> None:
        self.part.write_bytes(BODY)
        server = self.serve()
        self.fetch(server)
        self.assertEqual(server.asked, [])
        self.fetch(server, 0)
        self.assertEqual((server.asked, server.sent), ([f"bytes={len(BODY)}-"], 0))

    def test_a_part_too_long_begins_again(self) -> None:
        self.part.write_bytes(BODY + b"x")
        self.fetch(self.serve())
        self.assertEqual(self.part.read_bytes(), BODY)

    def test_an_answer_from_another_place_is_refused(self) -> None:
        self.part.write_bytes(BODY[:100])
        with self.assertRaisesRegex(transfer.Unsuitable, "from 100 on, got 'bytes 101-"):
            self.fetch(self.serve(shift=1))
        self.assertEqual(self.part.read_bytes(), BODY[:100])

    def test_another_size_is_refused(self) -> None:
        with self.assertRaisesRegex(transfer.Unsuitable, "10240000 bytes, not 10239999"):
            self.fetch(self.serve(), len(BODY) - 1)

    def test_a_refusal_is_left_to_pip_and_overload_is_waited_for(self) -> None:
        server = self.serve(status=401)
        with self.assertRaisesRegex(transfer.Unsuitable, "HTTP 401"):
            self.fetch(server)
        self.assertEqual(len(server.asked), 1)
        server = self.serve(status=503)
        with self.assertRaisesRegex(transfer.Interrupted, "HTTP 503"):
            self.fetch(server)
        self.assertEqual(len(server.asked), transfer.ATTEMPTS)

    def test_only_http(self) -> None:
        with self.assertRaises(transfer.Unsuitable):
            transfer.fetch("file:///etc/hostname", self.part, 0, transfer.Line(), lambda have: None)


if __name__ == "__main__":
    unittest.main()
