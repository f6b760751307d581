"""Arrow values as JSON."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gliner_fast.jobs.json_values import dump_json, dump_json_line, read_json_rows
from gliner_fast.jobs.selection import Selection

NOON = dt.datetime.fromisoformat("2026-11-23T12:00:00.000005")

VALUES = {
    "text": (pa.array(["é\0\U0001f600"]), '"é\\u0000\U0001f600"'),
    "numbers": (pa.array([2**63 - 1]), "9223372036854775807"),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
    "doubles": (pa.array([0.1]), "0.1"),
    "not a number": (pa.array([float("nan")]), "null"),
    "infinity in a list": (pa.array([[float("inf"), 1.0]]), "[null, 1.0]"),
    "infinity in a map": (pa.array([[("a", float("inf"))]], pa.map_(pa.string(), pa.float64())), '[["a", null]]'),
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
    "maps from times": (
        pa.array([[(NOON, 1)]], pa.map_(pa.timestamp("s"), pa.int8())), '[["2026-11-23T12:00:00", 1]]',
    ),
    "times beyond years": (pa.array([2**62], pa.timestamp("us")), "null"),
    "times of a zone beyond years": (pa.array([2**62], pa.timestamp("us", "Europe/Helsinki")), "null"),
    "times of a zone before years": (pa.array([-(2**62)], pa.timestamp("s", "Europe/Helsinki")), "null"),
    "fine times of a zone": (pa.array([2**62], pa.timestamp("ns", "UTC")), '"2116-02-20T23:53:38.427387904Z"'),
    "a year beyond 9999": (pa.array([253402300800], pa.timestamp("s", "UTC")), '"10000-01-01T00:00:00Z"'),
    "lists of times of a zone": (
        pa.array([[0, None, 2**62]], pa.list_(pa.timestamp("ms", "UTC"))), '["1970-01-01T00:00:00.000Z", null, null]',
    ),
    "dates beyond years": (pa.array([2**31 - 1], pa.date32()), "null"),
    "times of day beyond a day": (pa.array([{"at": -5}], pa.struct([("at", pa.time32("ms"))])), '{"at": null}'),
    "dictionaries": (pa.array(["a"]).dictionary_encode(), '"a"'),
    "dictionaries of times": (pa.array([NOON], pa.timestamp("s")).dictionary_encode(), '"2026-11-23T12:00:00"'),
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


# --- lines ------------------------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(ANY_JSON)
@example({"n": 2**64, "m": -(2**200)})
@example({"x": float("nan"), "y": [float("-inf")], "z": -0.0})
@example({"bytes": b"\x00\xff"})
def test_a_line_says_what_the_plain_form_says(value):
    line = dump_json_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.dumps(json.loads(line)) == json.dumps(json.loads(dump_json(value)))


def test_a_line_may_nest_deeply():
    value: list = []
    for _ in range(400):
        value = [value]
    assert json.loads(dump_json_line(value)) == value


def test_a_line_of_half_a_character_is_refused_as_in_any_utf8():
    with pytest.raises(UnicodeEncodeError):
        dump_json_line({"text": "\ud800"})


def test_a_line_beyond_orjson_is_as_dense():
    assert dump_json_line({"n": 2**64, "list": [1, 2]}) == b'{"n":18446744073709551616,"list":[1,2]}\n'


@pytest.mark.parametrize("value", [object(), NOON, NOON.date(), Selection()])
def test_a_line_of_what_has_no_form_is_a_mistake_of_ours(value):
    with pytest.raises(TypeError, match="has no form in JSON"):
        dump_json_line({"x": value})
