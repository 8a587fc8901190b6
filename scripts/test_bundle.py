"""What goes into a bundle and what stays the machine's. Run by `make test`."""

from __future__ import annotations

import os
import subprocess
import tempfile
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


class Launcher(unittest.TestCase):
    def test_a_libtorch_of_another_version_is_refused_with_its_version(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            torch = Path(place, "torch")
            (torch / "lib").mkdir(parents=True)
            (torch / "lib/libtorch_cpu.so").touch()
            launcher = Path(place, "sonomask")
            launcher.write_text(bundle.LAUNCHER.replace("@TORCH@", "2.11.0"))
            launcher.chmod(0o755)
            program = Path(place, "sonomask.bin")
            program.write_text("#!/bin/sh\necho started\n")
            program.chmod(0o755)

            def said() -> str:
                env = {**os.environ, "LIBTORCH": str(torch)}
                done = subprocess.run([launcher], env=env, capture_output=True, text=True, check=False)
                return done.stdout + done.stderr

            # One that does not say which it is, is tried.
            self.assertEqual(said(), "started\n")
            for file, text in (
                ("build-version", "{}+cu130\n"),
                ("version.py", "from typing import Optional\n__version__ = '{}+cpu'\ndebug = False\n"),
            ):
                (torch / file).write_text(text.format("2.11.0"))
                self.assertEqual(said(), "started\n", file)
                (torch / file).write_text(text.format("2.9.1"))
                self.assertIn("is of PyTorch 2.9.1, needed is 2.11.0", said(), file)


if __name__ == "__main__":
    unittest.main()
