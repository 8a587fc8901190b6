"""What goes into a bundle and what stays the machine's. Run by `make test`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import bundle

ROOT = Path(__file__).resolve().parent.parent

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


STAND_IN = """#!/bin/sh
# Notes what it is asked, in which folder, and what it is to measure.
echo "$PWD: $*" >>"$(dirname "$0")/asked"
[ "$1" != bench ] || cat "$3" >>"$(dirname "$0")/asked"
"""


class GpuRun(unittest.TestCase):
    def test_a_bundle_carries_it_with_the_library_for_cuda_graphs(self) -> None:
        # What a make around this one has set is not meant for it.
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        command = ["make", "--dry-run", "dist"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        steps = [line for line in done.stdout.splitlines() if "out/dist/sonomask-" in line]
        for part in (
            "scripts/shim.sh ",
            "/lib/libsonomask_cuda.so",
            "benches/gpu.sh ",
            "benches/gpu.toml ",
            "configs ",
            "weights/*.safetensors ",
        ):
            self.assertTrue(any(part in step for step in steps), f"{part}: {steps}")

    def test_it_works_where_it_was_unpacked_and_asks_for_weights_that_are_missing(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            bundle_root, out = Path(place).resolve() / "bundle", Path(place).resolve() / "out"
            (bundle_root / "benches").mkdir(parents=True)
            for name in ("benches/gpu.sh", "benches/gpu.toml"):
                shutil.copy(ROOT / name, bundle_root / name)
            program = bundle_root / "sonomask"
            program.write_text(STAND_IN)
            program.chmod(0o755)
            command = [bundle_root / "benches/gpu.sh", program, out, "cuda:1"]
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            asked = (bundle_root / "asked").read_text()
            here = f"{bundle_root}: "
            self.assertTrue(asked.startswith(f"{here}doctor\n{here}weights download lite-medsam\n"), asked)
            process = f"{here}process {out}/phantom.mp4 --config configs/demo-phantom.toml"
            self.assertEqual(asked.count(process), 5, "on the CPU, and in two precisions without and with graphs")
            self.assertEqual(asked.count("--set model.device=cuda:1"), 4)
            self.assertEqual(asked.count("--set model.cuda_graphs=true"), 2)
            self.assertIn('\ndevices = ["cuda:1"]\n', asked)
            self.assertEqual(sorted(p.name for p in (bundle_root / "benches").iterdir()), ["gpu.sh", "gpu.toml"])


if __name__ == "__main__":
    unittest.main()
