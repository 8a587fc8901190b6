"""What goes into a bundle and what stays the machine's. Run by `make test`."""

from __future__ import annotations

import unittest
from pathlib import Path

import bundle

LISTING = """\
\tlinux-vdso.so.1 (0x00007fff)
\tlibgstreamer-1.0.so.0 => /lib/x86_64-linux-gnu/libgstreamer-1.0.so.0 (0x00007f0)
\tlibtorch_cpu.so => /somewhere/torch/lib/libtorch_cpu.so (0x00007f0)
\tlibGL.so.1 => /lib/x86_64-linux-gnu/libGL.so.1 (0x00007f0)
\tlibcudart.so.13 => not found
\tlibstdc++.so.6 => /lib/x86_64-linux-gnu/libstdc++.so.6 (0x00007f0)
\tlibmount.so.1 => /lib/x86_64-linux-gnu/libmount.so.1 (0x00007f0)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f0)
"""


class Needed(unittest.TestCase):
    def test_the_machines_own_stay_out(self) -> None:
        found = bundle.needed(LISTING)
        folder = Path("/lib/x86_64-linux-gnu")
        names = ("libgstreamer-1.0.so.0", "libmount.so.1")
        self.assertEqual(found, {name: folder / name for name in names})

    def test_what_is_missing_is_named(self) -> None:
        with self.assertRaisesRegex(SystemExit, "libsrt.so.1 is missing"):
            bundle.needed("\tlibsrt.so.1 => not found\n")

    def test_a_static_program_needs_nothing(self) -> None:
        self.assertEqual(bundle.needed("\tstatically linked\n"), {})


if __name__ == "__main__":
    unittest.main()
