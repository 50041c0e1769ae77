#!/usr/bin/env python3
"""Reads Panoptes results as a stranger: from the published JSON Schema and documentation alone.

Nothing here shares code with Panoptes. Standard input (or the files given) holds one JSON object a
record, as any Kafka consumer can dump it:

    {"key": b64|null, "value": b64|null, "headers": {name: b64|null}}

Each value is decoded (msgpack or JSON), validated against the schema, and held against its own
record key and headers; maps are decompressed with other code than the writer's; the result ID is
computed anew. Prints a summary as JSON. Exit code 1 when any record is not as promised.
"""

import argparse
import base64
import collections
import datetime
import hashlib
import json
import struct
import sys
import zlib

import jsonschema
import msgpack
import zstandard

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_LISTED_ERRORS = 50
CONTENT_TYPES = {"msgpack": "application/msgpack", "json": "application/json"}


class Fault(Exception):
    """A record is not as promised."""


def require(condition, message):
    if not condition:
        raise Fault(message)


def unbase64(text):
    return None if text is None else base64.b64decode(text, validate=True)


def make_validator(schema):
    """A validator that also knows the keyword for bytes, which JSON Schema has no type for."""

    def msgpack_type(_validator, expected, instance, _schema):
        if expected == "bin" and not isinstance(instance, bytes):
            yield jsonschema.ValidationError(f"{instance!r} is not a msgpack bin")

    base = jsonschema.Draft202012Validator
    base.check_schema(schema)
    return jsonschema.validators.extend(base, {"x-msgpack-type": msgpack_type})(schema)


def decode_value(value, value_format):
    require(value is not None, "value is null")
    try:
        if value_format == "msgpack":
            return msgpack.unpackb(value, raw=False, strict_map_key=True)
        return json.loads(value)
    except Exception as error:
        raise Fault(f"value is no {value_format}: {error}") from error


def unfilter(kind, line, above):
    """One scan line of an 8-bit grey PNG without its filter (RFC 2083, section 6)."""
    out = bytearray(line)
    for x, byte in enumerate(line):
        left = out[x - 1] if x > 0 else 0
        up = above[x]
        corner = above[x - 1] if x > 0 else 0
        if kind == 0:
            guess = 0
        elif kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            require(kind == 4, f"PNG filter {kind} is unknown")
            estimate = left + up - corner
            distances = [abs(estimate - left), abs(estimate - up), abs(estimate - corner)]
            guess = (left, up, corner)[distances.index(min(distances))]
        out[x] = (byte + guess) & 0xFF
    return bytes(out)


def png_levels(data):
    """Width, height and grey levels of an 8-bit grey PNG."""
    require(data[:8] == PNG_SIGNATURE, "map is no PNG")
    chunks, position = [], 8
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        require(zlib.crc32(kind + body) == checksum, f"PNG chunk {kind} has a wrong checksum")
        chunks.append((kind, body))
        position += 12 + length
    require(chunks[0][0] == b"IHDR" and chunks[-1][0] == b"IEND", "PNG is not whole")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    require((depth, colour, interlace) == (8, 0, 0), "PNG is not plain 8-bit grey")
    raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    require(len(raw) == (width + 1) * height, "PNG holds another number of pixels than stated")
    levels, above = [], bytes(width)
    for row in range(height):
        start = row * (width + 1)
        above = unfilter(raw[start], raw[start + 1 : start + 1 + width], above)
        levels.append(above)
    return width, height, b"".join(levels)


def map_levels(anomaly_map, data):
    width, height = anomaly_map["width"], anomaly_map["height"]
    if anomaly_map["codec"] == "png":
        png_width, png_height, levels = png_levels(data)
        require((png_width, png_height) == (width, height), "PNG has another size than stated")
        return levels
    levels = zstandard.ZstdDecompressor().decompress(data, max_output_size=width * height)
    require(len(levels) == width * height, "zstd map holds another number of pixels than stated")
    return levels


def check_map(view, value_format):
    anomaly_map = view["map"]
    data = anomaly_map["data"]
    if value_format == "json":
        data = unbase64(data)
    levels = map_levels(anomaly_map, data)
    if anomaly_map["scale"] > 0:
        require(min(levels) == 0 and max(levels) == 255, "levels do not use the whole range")
        highest = anomaly_map["offset"] + anomaly_map["scale"] * 255
        # The score is a mean of the highest pixels of the map before it was made smaller.
        require(view["score"] >= anomaly_map["offset"] - 1e-4, "score is below its map's lowest level")
        require(highest > anomaly_map["offset"], "map has no range")
    else:
        require(set(levels) == {0}, "a constant map has levels")


def check_view(view, value_format):
    status = view["status"]
    if status == "scored":
        require(view["score"] is not None, "a scored view has no score")
        require(view.get("error") is None, "a scored view has an error")
    else:
        require(view["score"] is None and view["map"] is None, f"a {status} view has a score or map")
        require(view["regions"] == [], f"a {status} view has regions")
    arrived = status != "missing"
    require((view["source"] is not None) == arrived, f"source of a {status} view")
    require((view["captured_at"] is not None) == arrived, f"captured_at of a {status} view")
    if status == "failed":
        require(view.get("error"), "a failed view does not say why")
    peaks = [region["peak"] for region in view["regions"]]
    require(peaks == sorted(peaks, reverse=True), "regions are not in order of their peaks")
    for region in view["regions"]:
        require(region["area"] <= region["width"] * region["height"], "a region outgrows its box")
    if view["map"] is not None:
        check_map(view, value_format)


def check_decision(result):
    scores = [view["score"] for view in result["views"] if view["score"] is not None]
    require(result["score"] == max(scores, default=None), "score is not the highest view score")
    whole = all(view["status"] == "scored" for view in result["views"])
    require(whole or result["is_partial"], "a part with missing or failed views is not partial")
    score, threshold = result["score"], result["threshold"]
    if score is not None and threshold is not None and score >= threshold:
        expected = "ng"
    elif result["is_partial"] or score is None or threshold is None:
        expected = "review"
    else:
        expected = "ok"
    found = result["decision"]
    require(found == expected, f"decision should be {expected}, found {found}")


def expected_id(result):
    """The documented ID: SHA-256 over fields that each follow their length."""
    digest = hashlib.sha256()

    def field(content):
        content = content.encode() if isinstance(content, str) else content
        digest.update(struct.pack(">Q", len(content)))
        digest.update(content)

    run, model = result["run"], result["model"]
    field("panoptes.result.v1")
    for content in (result["line"], result["part_id"], model["name"], model["version"], run["kind"]):
        field(content)
    field(run["id"] if run["kind"] == "replay" else "")
    first = {}
    for source in (view["source"] for view in result["views"] if view["source"]):
        place = (source["topic"].encode(), source["partition"])
        first[place] = min(source["offset"], first.get(place, source["offset"]))
    for (topic, partition), offset in sorted(first.items()):
        field(topic)
        field(struct.pack(">i", partition))
        field(struct.pack(">q", offset))
    return digest.hexdigest()[:32]


def check_headers(result, headers, value_format, schema_id):
    expected = {
        "ce_specversion": "1.0",
        "ce_id": result["result_id"],
        "ce_subject": result["part_id"],
        "ce_dataschema": schema_id,
        "content-type": CONTENT_TYPES[value_format],
        "decision": result["decision"],
        "class": result["class"],
        "model-version": result["model"]["version"],
        "traceparent": result.get("traceparent"),
    }
    for name, value in expected.items():
        found = headers.get(name)
        require(found == value, f"header {name} should be {value!r}, found {found!r}")
    require(headers.get("ce_source", "").startswith("/panoptes/"), "ce_source is not /panoptes/<line>")
    require(headers.get("ce_type"), "header ce_type is missing")
    time = datetime.datetime.fromisoformat(headers["ce_time"].replace("Z", "+00:00"))
    milliseconds = round(time.timestamp() * 1000)
    require(milliseconds == result["timing"]["scored_at"], "ce_time is not the time of scoring")


def check_record(record, validator, value_format):
    """The decoded result of a record that is as promised."""
    result = decode_value(unbase64(record["value"]), value_format)
    error = jsonschema.exceptions.best_match(validator.iter_errors(result))
    require(error is None, error and f"{error.json_path}: {error.message}")
    key = unbase64(record["key"])
    require(key == result["part_id"].encode(), f"key should be the part ID, found {key!r}")
    headers = {
        name: None if value is None else unbase64(value).decode()
        for name, value in record["headers"].items()
    }
    check_headers(result, headers, value_format, validator.schema["$id"])
    for view in result["views"]:
        check_view(view, value_format)
    check_decision(result)
    require(result["is_simulated"] == (result["run"]["kind"] == "replay"), "is_simulated and run differ")
    require(result["result_id"] == expected_id(result), "result_id is not the documented hash")
    return result


def repeated(counter):
    return sorted(name for name, count in counter.items() if count > 1)


def summarise(lines, validator, value_format):
    decisions, statuses, codecs, classes = (collections.Counter() for _ in range(4))
    parts, identifiers = collections.Counter(), collections.Counter()
    totals, errors = collections.Counter(), []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        totals["records"] += 1
        try:
            result = check_record(json.loads(line), validator, value_format)
        except (Fault, ValueError, LookupError, struct.error, zlib.error, zstandard.ZstdError) as fault:
            errors.append(f"record {number}: {type(fault).__name__}: {fault}")
            continue
        decisions[result["decision"]] += 1
        classes[result["class"] or ""] += 1
        parts[f"{result['line']}/{result['part_id']}"] += 1
        identifiers[result["result_id"]] += 1
        totals["partial"] += result["is_partial"]
        totals["simulated"] += result["is_simulated"]
        totals["maps_dropped"] += result.get("maps_dropped", False)
        for view in result["views"]:
            statuses[view["status"]] += 1
            totals["regions"] += len(view["regions"])
            if view["map"] is not None:
                codecs[view["map"]["codec"]] += 1
    return {
        "records": totals["records"],
        "parts": len(parts),
        "repeated_parts": repeated(parts),
        "repeated_result_ids": repeated(identifiers),
        "decisions": dict(decisions),
        "classes": dict(classes),
        "views": dict(statuses),
        "maps": dict(codecs),
        "regions": totals["regions"],
        "partial": totals["partial"],
        "simulated": totals["simulated"],
        "maps_dropped": totals["maps_dropped"],
        "errors": len(errors),
        "first_errors": errors[:MAX_LISTED_ERRORS],
    }


def read_lines(files):
    if not files:
        yield from sys.stdin
    for name in files:
        with open(name, encoding="utf-8") as file:
            yield from file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schema", required=True, help="JSON Schema of the format")
    parser.add_argument("--format", required=True, choices=sorted(CONTENT_TYPES), dest="value_format")
    parser.add_argument("files", nargs="*", help="dumps of the topic; standard input if none")
    arguments = parser.parse_args()
    with open(arguments.schema, encoding="utf-8") as file:
        validator = make_validator(json.load(file))
    summary = summarise(read_lines(arguments.files), validator, arguments.value_format)
    print(json.dumps(summary, indent=2, sort_keys=True))
    return 1 if summary["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
