"""Says in a predictor's file what its training cannot know: licence, attribution, data, figures of a cross-validation.

The file is written anew under the name OUT, which may be its own: with other metadata, and with its tensors byte for byte. What training
wrote about the tensors (classes, family, checksums, the configuration) stays as it is: the program goes by it.

    describe_predictor.py FILE OUT KEY=VALUE ...

KEY is licence, attribution, data or metrics; metrics are JSON, {"cross_validation": {"dice": {"nerve": 0.68}}} for example. A KEY
without a value (licence=) is taken out. `sonomask weights inspect OUT` shows what the file says.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

KEYS = ("licence", "attribution", "data", "metrics")
METADATA = "__metadata__"
LONGEST = 4 << 20
"""Longest header in bytes that sonomask reads."""


class Wrong(Exception):
    """What was asked for cannot be done, and why."""


def parse(arguments: list[str]) -> dict[str, str]:
    """The metadata that are asked for; an empty text takes a key out."""
    said: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in KEYS:
            raise Wrong(f"{argument}: expected KEY=VALUE, where KEY is one of {', '.join(KEYS)}")
        if key in said:
            raise Wrong(f"{key} is given twice")
        said[key] = compact(value) if key == "metrics" and value else value
    if not said:
        raise Wrong("nothing to say: expected KEY=VALUE")
    return said


def compact(metrics: str) -> str:
    """An object of JSON, as sonomask writes it."""
    try:
        found = json.loads(metrics)
    except ValueError as error:
        raise Wrong(f"metrics: expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise Wrong('metrics: expected an object, {"dice": ...} for example')
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def read_header(file: BinaryIO) -> dict:
    """What stands before the tensors; the file is then at the first of them."""
    size = os.fstat(file.fileno()).st_size
    begin = file.read(8)
    length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else size
    if length > min(size - 8, LONGEST):
        raise Wrong("this is no safetensors file: it ends within its header")
    try:
        header = json.loads(file.read(length))
        ends = [info["data_offsets"][1] for name, info in header.items() if name != METADATA]
        metadata = header.get(METADATA, {})
        if not isinstance(metadata, dict) or 8 + length + max(ends, default=0) != size:
            raise Wrong("the tensors of this file are not all there, or others are besides")
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        raise Wrong("this is no safetensors file: its header cannot be read") from None
    return header


def described(header: dict, said: dict[str, str]) -> bytes:
    """The header with what is said in it, and its length before it."""
    metadata = header.get(METADATA, {}) | said
    metadata = {key: value for key, value in metadata.items() if value or key not in said}
    # The metadata first, as everybody writes them; the tensors in the order they had.
    whole = {METADATA: metadata} | header | {METADATA: metadata}
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST:
        raise Wrong(f"the header would have {len(text)} bytes: expected {LONGEST} at most")
    return struct.pack("<Q", len(text)) + text


def describe(source: Path, target: Path, said: dict[str, str]) -> None:
    """Writes `target`, which is whole or not there."""
    with source.open("rb") as file:
        begin = described(read_header(file), said)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".sonomask-", delete=False) as new:
            try:
                new.write(begin)
                shutil.copyfileobj(file, new)
                new.flush()
                os.fchmod(new.fileno(), 0o644)
                os.replace(new.name, target)
            except BaseException:
                os.unlink(new.name)
                raise


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit("usage: describe_predictor.py FILE OUT KEY=VALUE ...")
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        describe(source, target, parse(sys.argv[3:]))
    except Wrong as error:
        raise SystemExit(f"error: {error}: {source}") from None
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"described {target} ({target.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
