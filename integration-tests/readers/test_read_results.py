"""The reader refuses what it should: a check that cannot fail proves nothing."""

import base64
import copy
import json
import pathlib
import struct
import unittest
import zlib

import msgpack
import zstandard

import read_results

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"


def png(width, height, levels):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + levels[row * width : (row + 1) * width] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        read_results.PNG_SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def view(name, score, offset, codec):
    levels = bytes([0, 100, 200, 255])
    data = png(2, 2, levels) if codec == "png" else zstandard.compress(levels)
    return {
        "view": name,
        "status": "scored",
        "score": score,
        "source": {"topic": f"line1.{name}", "partition": 0, "offset": offset},
        "captured_at": 1_700_000_000_000,
        "map": {"codec": codec, "width": 2, "height": 2, "scale": 0.001, "offset": 0.0, "data": data},
        "regions": [{"x": 0, "y": 0, "width": 2, "height": 2, "area": 3, "peak": 0.2}],
    }


def result():
    found = {
        "schema_version": 1,
        "part_id": "p-1",
        "line": "line1",
        "class": "bolt",
        "decision": "ok",
        "score": 0.25,
        "threshold": 0.5,
        "is_partial": False,
        "is_simulated": False,
        "model": {"name": "demo", "version": "1"},
        "views": [view("top", 0.25, 3, "png"), view("left", 0.125, 4, "zstd")],
        "timing": {"first_view_at": 0, "last_view_at": 0, "scored_at": 1_700_000_000_250},
        "run": {"kind": "live", "id": "panoptes"},
    }
    found["result_id"] = read_results.expected_id(found)
    return found


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def record(found, value_format):
    found = copy.deepcopy(found)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": found["result_id"],
        "ce_source": "/panoptes/line1",
        "ce_type": "panoptes.result.v1",
        "ce_subject": found["part_id"],
        "ce_time": "2023-11-14T22:13:20.250Z",
        "ce_dataschema": f"urn:panoptes:schema:result:v1:{value_format}",
        "content-type": read_results.CONTENT_TYPES[value_format],
        "decision": found["decision"],
        "class": found["class"],
        "model-version": found["model"]["version"],
    }
    if value_format == "json":
        for one in found["views"]:
            if one["map"] is not None:
                one["map"]["data"] = b64(one["map"]["data"])
        value = json.dumps(found).encode()
    else:
        value = msgpack.packb(found)
    return {
        "key": b64(found["part_id"]),
        "value": b64(value),
        "headers": {name: b64(text) for name, text in headers.items()},
    }


def summary(records, value_format):
    schema = json.loads((SCHEMAS / f"result.v1.{value_format}.schema.json").read_text())
    validator = read_results.make_validator(schema)
    return read_results.summarise(map(json.dumps, records), validator, value_format)


class Reading(unittest.TestCase):
    def test_accepts_results_as_promised_in_both_formats(self):
        for value_format in ("msgpack", "json"):
            found = summary([record(result(), value_format)], value_format)
            self.assertEqual(found["first_errors"], [])
            self.assertEqual(found["maps"], {"png": 1, "zstd": 1})
            self.assertEqual(found["decisions"], {"ok": 1})

    def test_counts_repeated_parts(self):
        found = summary([record(result(), "json")] * 2, "json")
        self.assertEqual((found["records"], found["parts"]), (2, 1))
        self.assertEqual(found["repeated_parts"], ["line1/p-1"])
        self.assertEqual(len(found["repeated_result_ids"]), 1)

    def refuses(self, change, because):
        found = result()
        change(found)
        report = summary([record(found, "msgpack")], "msgpack")
        self.assertEqual(report["errors"], 1, because)
        self.assertIn(because, report["first_errors"][0])

    def test_refuses_what_the_schema_forbids(self):
        self.refuses(lambda found: found.pop("line"), "'line' is a required property")
        self.refuses(lambda found: found.update(decision="maybe"), "$.decision")
        self.refuses(lambda found: found.update(schema_version=2), "$.schema_version")
        self.refuses(lambda found: found["views"][0]["map"].update(data="text"), "not a msgpack bin")

    def test_refuses_a_wrong_decision_or_score(self):
        self.refuses(lambda found: found.update(threshold=0.2), "decision should be ng")
        self.refuses(lambda found: found.update(is_partial=True), "decision should be review")
        self.refuses(lambda found: found.update(score=0.3), "highest view score")

    def test_refuses_a_broken_map(self):
        def break_png(found):
            found["views"][0]["map"]["data"] = found["views"][0]["map"]["data"][:-20]

        def break_zstd(found):
            found["views"][1]["map"]["width"] = 3

        self.refuses(break_png, "record 1")
        self.refuses(break_zstd, "another number of pixels")

    def test_refuses_another_identity(self):
        self.refuses(lambda found: found.update(result_id="0" * 32), "documented hash")

    def test_refuses_headers_that_differ(self):
        one = record(result(), "json")
        one["headers"]["decision"] = b64("ng")
        self.assertIn("header decision", summary([one], "json")["first_errors"][0])
        one = record(result(), "json")
        del one["headers"]["ce_id"]
        self.assertIn("header ce_id", summary([one], "json")["first_errors"][0])

    def test_refuses_another_key(self):
        one = record(result(), "json")
        one["key"] = b64("p-2")
        self.assertIn("key should be the part ID", summary([one], "json")["first_errors"][0])

    def test_undoes_every_png_filter(self):
        above, line = bytes([10, 20, 30]), bytes([5, 9, 250])
        self.assertEqual(read_results.unfilter(0, line, above), bytes([5, 9, 250]))
        self.assertEqual(read_results.unfilter(1, line, above), bytes([5, 14, 8]))
        self.assertEqual(read_results.unfilter(2, line, above), bytes([15, 29, 24]))
        self.assertEqual(read_results.unfilter(3, line, above), bytes([10, 24, 21]))
        self.assertEqual(read_results.unfilter(4, line, above), bytes([15, 29, 24]))


if __name__ == "__main__":
    unittest.main()
