"""A predictor's file says more, and its tensors stay as they are. Run by `make test`."""

from __future__ import annotations

import json
import struct
import tempfile
import unittest
from pathlib import Path

import describe_predictor
from describe_predictor import Wrong

TENSORS = bytes(range(256))
KNOWN = {"family": "lite-medsam", "classes.arm": '["nerve"]', "metrics": '{"dice":{"nerve":0.5}}'}


def written(header: dict, tensors: bytes = TENSORS) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def header(metadata: dict | None = None) -> dict:
    # Not in the order of their names, nor the metadata first.
    tensors = {
        "ppn.b": {"dtype": "F16", "shape": [96], "data_offsets": [64, 256]},
        "ppn.a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
    }
    return tensors if metadata is None else tensors | {"__metadata__": metadata}


class Describe(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file, self.out = Path(folder.name, "last.safetensors"), Path(folder.name, "shipped.safetensors")

    def describe(self, contents: bytes, *said: str) -> tuple[dict, bytes]:
        """Header and tensors of what is written."""
        self.file.write_bytes(contents)
        describe_predictor.describe(self.file, self.out, describe_predictor.parse(list(said)))
        data = self.out.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        self.assertEqual(length % 8, 0)
        return json.loads(data[8 : 8 + length]), data[8 + length :]

    def test_metadata_are_added_and_nothing_else_changes(self) -> None:
        metrics = '{"cross_validation": {"parts": "0 and 1", "dice": {"nerve": 0.68}}}'
        said = ("licence=CC BY 4.0", "attribution=taught on = pictures of Zoë", f"metrics={metrics}")
        found, tensors = self.describe(written(header(KNOWN)), *said)
        self.assertEqual(tensors, TENSORS)
        metadata = found.pop("__metadata__")
        self.assertEqual(list(found.items()), list(header().items()))
        self.assertEqual(metadata.pop("licence"), "CC BY 4.0")
        self.assertEqual(metadata.pop("attribution"), "taught on = pictures of Zoë")
        self.assertEqual(json.loads(metadata.pop("metrics")), json.loads(metrics))
        self.assertEqual(metadata, {key: KNOWN[key] for key in ("family", "classes.arm")})
        # What is already there is replaced, or taken out; in place as well.
        self.out = self.file
        found, tensors = self.describe(written(header(KNOWN | {"licence": "x"})), "licence=", "metrics={}")
        self.assertEqual((found["__metadata__"], tensors), ({**KNOWN, "metrics": "{}"}, TENSORS))

    def test_every_length_of_a_text_leaves_the_tensors_where_they_may_begin(self) -> None:
        for length in range(1, 10):
            found, tensors = self.describe(written(header()), "data=" + "x" * length)
            self.assertEqual((found["__metadata__"], tensors), ({"data": "x" * length}, TENSORS))

    def test_what_the_program_goes_by_is_not_changed(self) -> None:
        for said in ("family=medsam", "classes.arm=[]", "preprocess=sam2rad", "licence", "=x", "config="):
            with self.assertRaisesRegex(Wrong, "where KEY is one of licence, attribution, data, metrics"):
                describe_predictor.parse([said])
        with self.assertRaisesRegex(Wrong, "licence is given twice"):
            describe_predictor.parse(["licence=a", "licence=b"])
        with self.assertRaisesRegex(Wrong, "nothing to say"):
            describe_predictor.parse([])
        for metrics in ("0.68", "dice", "[1]"):
            with self.assertRaisesRegex(Wrong, "metrics: expected"):
                describe_predictor.parse([f"metrics={metrics}"])

    def test_a_file_that_is_cut_or_something_else_is_refused_and_nothing_is_written(self) -> None:
        whole = written(header(KNOWN))
        many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(3)}
        for contents in (
            b"",
            whole[:7],
            whole[:40],
            whole[:-1],
            whole + b"x",
            b"PK\x03\x04" * 99,
            struct.pack("<Q", 8) + b"[1, 2,3]",
            struct.pack("<Q", 8) + b'{"a":{}}',
            written(header() | {"__metadata__": []}),
            written(many),
        ):
            with self.assertRaisesRegex(Wrong, "this is no safetensors file|not all there"):
                self.describe(contents, "licence=x")
            self.assertEqual([path.name for path in self.file.parent.iterdir()], [self.file.name])


if __name__ == "__main__":
    unittest.main()
