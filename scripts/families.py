"""Families of networks, and a table with a line for each: what try_families.py and train_families.py share."""

import pathlib
import sys
import tempfile

FAMILIES = ["lite-medsam", "mobile-sam", "sam-vit-b", "sam-vit-l", "sam-vit-h", "medsam"] + [
    f"sam2{v}-hiera-{size}" for v in ("", ".1") for size in ("tiny", "small", "base-plus", "large")
]


class Failed(Exception):
    pass


def table(heading, families, check, out):
    """A line of each family, as `check(family, folder)` gives it, below `heading`; written to `out` if none failed. Whether one did."""
    lines, failed = list(heading), False
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            try:
                lines.append(check(family, pathlib.Path(folder)))
                print(lines[-1], flush=True)
            except Failed as why:
                failed = True
                print(f"{family}: {why}", file=sys.stderr, flush=True)
    if out and not failed:
        out.write_text("\n".join(lines) + "\n")
    return failed
