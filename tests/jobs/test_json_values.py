"""Arrow values as JSON."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from gliner_fast.jobs.json_values import dump_json, read_json_rows

NOON = dt.datetime.fromisoformat("2026-11-23T12:00:00.000005")

VALUES = {
    "text": (pa.array(["é\0\U0001f600"]), '"é\\u0000\U0001f600"'),
    "numbers": (pa.array([2**63 - 1]), "9223372036854775807"),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
    "doubles": (pa.array([0.1]), "0.1"),
    "not a number": (pa.array([float("nan")]), "null"),
    "infinity in a list": (pa.array([[float("inf"), 1.0]]), "[null, 1.0]"),
    "bool": (pa.array([True]), "true"),
    "null": (pa.nulls(1), "null"),
    "bytes": (pa.array([b"\xff\x00"]), '"/wA="'),
    "bytes in a struct": (pa.array([{"a": b"\xff"}]), '{"a": "/w=="}'),
    "decimals": (pa.array([Decimal("1.10")]), '"1.10"'),
    "times": (pa.array([NOON], pa.timestamp("us")), '"2026-11-23T12:00:00.000005"'),
    "fine times": (pa.array([1], pa.timestamp("ns")), '"1970-01-01T00:00:00.000000001"'),
    "times of a zone": (pa.array([0], pa.timestamp("s", "UTC")), '"1970-01-01T00:00:00Z"'),
    "dates": (pa.array([NOON.date()]), '"2026-11-23"'),
    "times of day": (pa.array([dt.time(1, 2, 3)], pa.time32("s")), '"01:02:03"'),
    "durations": (pa.array([1500], pa.duration("ms")), "1500"),
    "no time": (pa.array([None], pa.timestamp("us")), "null"),
    "lists of times": (pa.array([[NOON, None]], pa.list_(pa.timestamp("s"))), '["2026-11-23T12:00:00", null]'),
    "large lists of times": (pa.array([[NOON]], pa.large_list(pa.timestamp("s"))), '["2026-11-23T12:00:00"]'),
    "fixed lists of times": (pa.array([[NOON]], pa.list_(pa.timestamp("s"), 1)), '["2026-11-23T12:00:00"]'),
    "structs": (
        pa.array(
            [{"at": NOON, "n": [Decimal(1)]}],
            pa.struct([("at", pa.timestamp("s")), ("n", pa.list_(pa.decimal128(3)))]),
        ),
        '{"at": "2026-11-23T12:00:00", "n": ["1"]}',
    ),
    "no struct": (pa.array([None], pa.struct([("at", pa.timestamp("s"))])), "null"),
    "maps": (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int8())), '[["a", 1], ["b", null]]'),
    "maps of times": (
        pa.array([[("a", NOON)]], pa.map_(pa.string(), pa.timestamp("s"))), '[["a", "2026-11-23T12:00:00"]]',
    ),
    "dictionaries": (pa.array(["a"]).dictionary_encode(), '"a"'),
}  # fmt: skip


@pytest.mark.parametrize(("array", "expected"), VALUES.values(), ids=VALUES)
def test_every_value_has_one_form(array, expected):
    (row,) = read_json_rows(pa.table({"x": array}))
    line = dump_json(row)
    assert line == f'{{"x": {expected}}}'
    json.loads(line)


def test_a_string_that_is_not_utf8_is_an_error():
    with pytest.raises(UnicodeDecodeError):
        read_json_rows(pa.table({"x": pa.array([b"\xff"]).view(pa.string())}))


def test_what_has_no_form_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="has no form in JSON"):
        dump_json({"x": object()})
