"""Copies the reference answers that the repository carries: python3 scripts/carry_fixtures.py SRC DST

SRC holds a full set of `refgen v1` answers. What can be computed again (`idx.*`), what only repeats another tensor more
coarsely and what no test reads stays behind. Names, keys and metadata stay as they are, so that a full set in DST's
place is read by the same tests.
"""

import json
import pathlib
import re
import struct
import sys

# Patterns of keys that stay behind, and why.
DROPPED = [
    # A rule of two lines makes them again.
    re.compile(r"idx\.\d+\.\d+"),
    # 100 to 300 kB of signs each, of masks whose low-resolution signs are carried; `.stats` and `.sub` remain, and
    # the signs of one upsampled mask a prompt (`mm0`, and `box0` of SAM v1) are enough to compare areas at full size.
    re.compile(r"e2e\.\w+\.mm1\.up\.signbits"),
    re.compile(r"e2e\.(boxes|pt|box0pt|box0mask)\.up\.signbits"),
    # The resize of the camera-predictor forks, which no family here uses.
    re.compile(r"cv2linear\..*"),
    # Of videos: logits at the size of the picture repeat the low-resolution ones, and what is remembered of a frame shows in
    # those of the next.
    re.compile(r".*\.(vid|mem|pix_feat_with_mem|ious)(\..*)?"),
]
# Of the video cases one file is carried: the only one that has them all. No test reads the others.
VIDEO = "sam21_tiny_512_video"


def is_dropped(key):
    return any(pattern.fullmatch(key) for pattern in DROPPED)


def read(path):
    """Header (name to dtype, shape, offsets; metadata under `__metadata__`) and the bytes after it."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def carry(source, target):
    header, body = read(source)
    kept, parts, at = {}, [], 0
    if "__metadata__" in header:
        kept["__metadata__"] = header.pop("__metadata__")
    # In the order of the bytes, so that wide types stay aligned as the writer of the full set aligned them.
    for key, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if is_dropped(key):
            continue
        begin, end = info["data_offsets"]
        parts.append(body[begin:end])
        kept[key] = info | {"data_offsets": [at, at + end - begin]}
        at += end - begin
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return len(header), len(kept) - ("__metadata__" in kept), target.stat().st_size


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    source, target = map(pathlib.Path, sys.argv[1:])
    files = [f for f in sorted(source.glob("*.safetensors")) if not f.stem.endswith("_video") or f.stem == VIDEO]
    if not files:
        sys.exit(f"{source} holds no .safetensors files")
    target.mkdir(parents=True, exist_ok=True)
    total = 0
    for file in files:
        had, kept, size = carry(file, target / file.name)
        total += size
        print(f"{file.name:<36} {kept:>4} of {had:>4} tensors {size:>9} bytes")
    print(f"{len(files)} files, {total} bytes")


if __name__ == "__main__":
    main()
