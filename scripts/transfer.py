"""One download that goes on where an earlier run stopped: byte ranges over HTTP.

pip resumes a broken transfer, but only within one run. This is for the largest wheels; `wheels.py` finds the address
with pip and falls back to pip where this cannot work. What arrives is not trusted: the caller checks its sha256.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
SILENCE_SECONDS = 60
LARGEST = 8_000_000_000
"""Where neither we nor the server know a size, more than this is not a wheel."""
ATTEMPTS = 4
PROGRESS_BYTES = 8 << 20
"""An attempt that brought this much does not count as failed: a bad line still gets there."""


class Unsuitable(Exception):
    """This address cannot be had this way (a login, a refusal): another client may have more luck."""


class Interrupted(Exception):
    """The line broke more often than is worth another attempt. The part stays for the next run."""


@dataclass(frozen=True)
class Line:
    """How to reach the address, as pip is configured: CA file and proxy, None for the system's own."""

    certificates: str | None = None
    proxy: str | None = None

    def opener(self) -> urllib.request.OpenerDirector:
        """Proxies of the environment hold unless one is given."""
        try:
            context = ssl.create_default_context(cafile=self.certificates)
        except OSError as error:
            raise Unsuitable(f"certificates {self.certificates}: {error}") from None
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if self.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": self.proxy, "https": self.proxy}))
        return urllib.request.build_opener(*handlers)


def fetch(url: str, part: Path, size: int, line: Line, progress, pause=time.sleep) -> None:
    """Completes `part` with the bytes of `url` it does not have yet.

    `size` in bytes is what the whole has, 0 if unknown; `progress(have)` is called as bytes arrive.
    """
    if not url.startswith(("https://", "http://")):
        raise Unsuitable(f"no HTTP address: {url.split(':', 1)[0]}")
    opener = line.opener()
    failures = 0
    while True:
        before = _length(part)
        try:
            _once(opener, url, part, size, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            # Overload passes; a refusal does not.
            if error.code not in (408, 429) and error.code < 500:
                raise Unsuitable(f"HTTP {error.code}") from None
            problem = f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 1 if _length(part) - before >= PROGRESS_BYTES else failures + 1
        if failures >= ATTEMPTS:
            raise Interrupted(problem)
        print(f"    broken off at {_length(part)} bytes ({problem}): going on in {2**failures} s", flush=True)
        pause(2**failures)


def _once(opener: urllib.request.OpenerDirector, url: str, part: Path, size: int, progress) -> None:
    have = _length(part)
    if size and have > size:
        part.unlink()
        have = 0
    if size and have == size:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "sonomask-setup"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # There is nothing behind what we have: it is the whole, or of another file. The checksum tells.
        error.close()
        return
    with response:
        if response.status == 206:
            total = _continues(response.headers.get("Content-Range", ""), have)
        else:
            # A server without ranges begins again.
            have, total = 0, _number(response.headers.get("Content-Length"))
        if size and total and total != size:
            raise Unsuitable(f"the server's file has {total} bytes, not {size}")
        total = size or total
        with part.open("ab" if have else "wb", buffering=0) as file:
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > (total or LARGEST):
                    raise Unsuitable("the server sends more than the file's size")
                file.write(chunk)
                progress(have)
    if total and have < total:
        raise ConnectionError(f"{total - have} bytes are missing")


def _continues(content_range: str, have: int) -> int:
    """The whole's size, 0 if unknown, of a partial answer that begins where we stopped."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
    if not found or int(found[1]) != have:
        raise Unsuitable(f"asked for the bytes from {have} on, got {content_range!r}")
    return _number(found[2])


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
