"""Writes the seeds that are no images: records with their headers, and raw frames.

The layout of both is told in `../src/lib.rs`. The seeds of the image targets are the images in
`../../fixtures/images`.
"""

import json
import struct
from pathlib import Path

import msgpack

HERE = Path(__file__).parent
BMP = (HERE / "../../fixtures/images/odd_size.bmp").resolve().read_bytes()[:54] + b"\x55" * 64

ALL_HEADERS = {
    "view": "left", "class": "gear", "line": "line2", "views": "5",
    "captured-at": "2026-03-01T12:00:00.250Z",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
RAW = {"pixel-format": "Mono12p", "width": "4", "height": "2", "stride": "6"}


def record(name, headers, value):
    lines = "".join(f"{header}: {text}\n" for header, text in {"key": "part-1", **headers}.items())
    (HERE / "envelope" / name).write_bytes(lines.encode() + b"\n" + value)


record("bare", {"content-type": "image/bmp", **ALL_HEADERS}, BMP)
record("sniffed", {}, BMP)
record("raw", {"content-type": "image/x-raw", **RAW}, bytes(range(12)))
fields = {name.replace("-", "_"): text for name, text in ALL_HEADERS.items()}
fields |= {"part_id": "part-1", "views": 5, "content_type": "image/bmp", "data": BMP}
record("msgpack", {"content-type": "application/msgpack"}, msgpack.packb(fields))
fields = {"pixel_format": "0x01080009", "width": 4, "height": 2, "stride": 4, "captured_at": 1000,
          "content_type": "image/x-raw", "data": bytes(range(8)), "more": [{"a": None}, 1.5]}
record("msgpack_raw", {"content-type": "application/msgpack"}, msgpack.packb(fields))
for number, (width, height, stride, size) in enumerate([
        (4, 3, 5, 15), (4, 3, 8, 24), (6, 2, 8, 16), (5, 2, 8, 16), (4, 2, 8, 16), (6, 2, 9, 18),
        (5, 2, 8, 16), (4, 2, 8, 16), (3, 2, 9, 18), (3, 2, 10, 19), (4, 4, 4, 16), (5, 3, 5, 15),
        (4, 2, 4, 8), (2, 2, 2, 4)]):
    head = struct.pack("<BHHH", number, width, height, stride)
    (HERE / "raw" / f"{number:02}").write_bytes(head + bytes(i * 37 % 256 for i in range(size)))

place = {"topic": "line1.cam.top", "partition": 3, "offset": 17}
closed = {"schema_version": 1, "group_id": "panoptes", "line": "line1", "part_id": "part-1",
          "opened_by": place, "taken_after": 1772366400000, "written_after": 1772366400250,
          "views": [{"view": "top", "hash": 2**63 + 5, "length": 1024}], "records": [place]}
(HERE / "closed_part" / "one").write_bytes(msgpack.packb(closed))
(HERE / "closed_part" / "later").write_bytes(msgpack.packb(closed | {"schema_version": 2}))

entry = {"offset": 17, "timestamp": 1772366400250, "timestamp_type": "create_time", "key": "part-1",
         "headers": [{"name": "view", "value": "top"}, {"name": "null", "value": None},
                     {"name": "odd", "value": {"base64": "/wA="}}],
         "value": {"entry": "00000000000000000017.jpg", "at": 512, "length": 8, "sha256": "ab" * 32}}
bare = {"offset": 19, "timestamp": None, "timestamp_type": None, "key": {"base64": "wyg="},
        "headers": [], "value": None, "fault": "expected header names in UTF-8"}
segment = {"schema_version": 1, "topic": "line1.cam.top", "partition": 3, "start": 12, "end": 25,
           "records": 2, "first_offset": 17, "last_offset": 19, "first_timestamp": 1772366400250,
           "last_timestamp": 1772366400250, "missing": 6, "deleted": [{"start": 12, "end": 17}],
           "faults": 1, "bytes": 4096, "sha256": "cd" * 32, "index_at": 1536, "index_bytes": 300,
           "index_sha256": "ef" * 32}
totals = {"segments": 1, "records": 2, "bytes": 4096, "first_offset": 17, "last_offset": 19,
          "missing": 6, "deleted": 5, "faults": 1}
partition = {"partition": 3, "log_start": 5, "start": 12, "end": 25, "deleted_at_start": 0,
             "totals": totals}
archive = {"schema_version": 1, "created_by": "panoptes 0.1.0", "cluster_id": "abc", "created_at": 1,
           "completed_at": None, "subscription": ["^line1"],
           "range": {"from_timestamp": 1, "to_timestamp": None, "from_offset": None, "to_offset": None},
           "topics": [{"topic": "line1.cam.top", "partitions": [partition]}]}
(HERE / "archive").mkdir(exist_ok=True)
(HERE / "archive" / "index").write_text(json.dumps(entry) + "\n" + json.dumps(bare) + "\n")
(HERE / "archive" / "segment").write_text(json.dumps(segment))
(HERE / "archive" / "manifest").write_text(json.dumps(archive))
