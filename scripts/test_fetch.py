"""Set-up replaces nothing that it cannot fetch again. Run by `make test`."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import fetch


class SetAside(unittest.TestCase):
    def test_a_file_keeps_its_contents_under_a_name_of_its_own(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "net.pth")
            for number, contents in enumerate((b"mine", b"mine too"), start=1):
                file.write_bytes(contents)
                kept = fetch.set_aside(file)
                self.assertEqual((kept.name, kept.read_bytes()), (f"net.other-{number}.pth", contents))
                self.assertFalse(file.exists())


if __name__ == "__main__":
    unittest.main()
