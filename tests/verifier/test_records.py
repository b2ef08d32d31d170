"""Receipt records and registers."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, strategies as st

from sealpack.format import canonical, records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.records import Record, Registers, encode, make, parse_record
from sealpack.format.values import METERS, STATUSES

SCHEMA = json.loads((Path(__file__).parents[2] / "specs/schemas/receipt-record.json").read_text())
SCHEMA_CHECK = jsonschema.Draft202012Validator(SCHEMA)
PEM = PrivateKey.from_seed(b"sealpack test record device key1").public.pem
DIGEST = "ab" * 32
ROUTE = {"license_id": "lic-1", "seq": 2, "bundle_digest": DIGEST, "model_digest": DIGEST}
HEAD = {"position": 7, "boot": 2, "time_ms": 1_790_000_000_123, "skew_ms": -5, "uptime_ms": 61_000}

# One full body and one least body of every kind.
BODIES: list[tuple[str, dict[str, Any]]] = [
    (
        "g",
        {
            "origin": "sealpack/usage/lic-1/dev/0",
            "device": PEM,
            "license": DIGEST,
            "root": DIGEST,
            "epoch": 0,
        },
    ),
    (
        "g",
        {
            "origin": "sealpack/usage/lic-1/dev/1",
            "device": PEM,
            "license": DIGEST,
            "root": DIGEST,
            "epoch": 1,
            "activation": DIGEST,
            "previous": {"origin": "sealpack/usage/lic-1/dev/0", "size": 9, "root": DIGEST},
            "carried": {DIGEST: {"calls": 12}},
        },
    ),
    ("b", {"nonce": "0f" * 16, "runtime": {"version": "0.2.0", "digest": DIGEST}, "routes": {}}),
    (
        "b",
        {
            "nonce": "0f" * 16,
            "runtime": {"version": "0.2.0+local", "digest": DIGEST},
            "routes": {
                "r1": ROUTE,
                "r2": {
                    **ROUTE,
                    "tokenizer_digest": DIGEST,
                    "terms": DIGEST,
                    "plan": {"id": "pro", "version": 3},
                },
            },
        },
    ),
    ("u", {"route": "r1", "status": "err", "meters": {}, "wait_ms": 0}),
    (
        "u",
        {
            "route": "r1",
            "status": "ok",
            "meters": {"calls": 1, "tok_in": 7, "tok_out": 12, "ms": 31, "items": 4},
            "wait_ms": 3,
            "cost_centre": "ward 3/icu",
        },
    ),
    ("t", {"registers": {}}),
    ("t", {"registers": {"r1": {"ok": {"calls": 4}, "lost": {"ms": 9}}}}),
    ("l", {"route": "r1", "meters": {"calls": 1, "tok_out": 64}}),
    ("d", {"code": "QUOTA_EXCEEDED", "minute": 29_833_333}),
    ("c", {"event": "wall-back", "delta_ms": -86_400_000}),
    ("a", {"digest": DIGEST, "ack_seq": 1, "size": 7, "server_time": 1_790_000_000}),
    ("e", {"file_seq": 1, "from": 0, "to": 8, "reason": "manual"}),
    ("r", {"device": PEM, "reason": "scheduled"}),
    ("x", {"reason": "transferred"}),
]


def refused() -> AbstractContextManager[Any]:
    return pytest.raises(SealpackError, match="RECEIPT_INVALID")


@pytest.mark.parametrize("kind, body", BODIES)
def test_every_kind_is_written_and_read_back(kind: str, body: dict[str, Any]) -> None:
    record = make(kind, **HEAD, **body)
    line = encode(record)
    assert parse_record(line) == record
    value = json.loads(line)
    assert canonical.dumps(value) == line
    assert SCHEMA_CHECK.is_valid(value)


def test_every_kind_has_a_sample() -> None:
    assert {kind for kind, _ in BODIES} == set(records._KINDS)


def _paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [at]
    return [at, *(path for name, member in value.items() for path in _paths(member, (*at, name)))]


def _changed(value: Any, path: tuple[str, ...], new: Any) -> Any:
    """Replace (or with None remove) the member at `path`."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    if new is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just({"calls": 1}),
    st.just("ab" * 33),
)


@given(st.sampled_from(BODIES), ODD, st.data())
def test_reader_and_schema_agree_on_any_change(
    sample: tuple[str, dict[str, Any]], new: Any, data: st.DataObject
) -> None:
    value = json.loads(encode(make(sample[0], **HEAD, **sample[1])))
    path = data.draw(st.sampled_from(_paths(value)[1:]))
    changed = _changed(value, path, new)
    line = canonical.dumps(changed)
    try:
        parse_record(line)
    except SealpackError as error:
        assert error.code == "RECEIPT_INVALID"
        assert not SCHEMA_CHECK.is_valid(changed)
    else:
        assert SCHEMA_CHECK.is_valid(changed)


@pytest.mark.parametrize("kind, body", BODIES)
def test_unknown_members_and_missing_ones_are_refused(kind: str, body: dict[str, Any]) -> None:
    value = json.loads(encode(make(kind, **HEAD, **body)))
    with refused():
        parse_record(canonical.dumps({**value, "prompt": "x"}))
    for name in {"v", "k", "n", "b", "t", "w", "u"} | records._KINDS[kind][0].keys():
        with refused():
            parse_record(canonical.dumps(_changed(value, (name,), None)))


def test_a_missing_member_is_not_made_good_by_an_optional_one() -> None:
    record = make("u", **HEAD, route="r1", status="ok", meters={}, cost_centre="x")
    with refused():
        encode(record)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'"u"',
        b"{",
        b"\xff",
        b'{"k":[]}',
        b'{"k":NaN}',
        b'{"k":"u","k":"u"}',
        b"[" * 60_000,
        b'{"n":1e999}',
        b'{"n":' + b"9" * 5000 + b"}",
        b'{"k":"\\ud800"}',
    ],
)
def test_hostile_lines_end_in_the_one_error(line: bytes) -> None:
    with refused():
        parse_record(line)


def test_oversize_line() -> None:
    with refused():
        parse_record(b'"' + b"a" * 70_000 + b'"')


GOOD = encode(make("u", **HEAD, route="r1", status="ok", meters={"calls": 1, "ms": 31}, wait_ms=0))


@pytest.mark.parametrize(
    "line",
    [
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b":", b": ", 1),
        GOOD.replace(b'"ms":31', b'"ms":31.0'),
        GOOD.replace(b'"ms":31', b'"ms":3.1e1'),
        GOOD.replace(b'"w":-5', b'"w":-0'),
        GOOD.replace(b'"ms":31', b'"ms":true'),
        GOOD.replace(b'"r1"', b'"\\u00721"'),
        b'{"b":2,' + GOOD[1:],
        b"\xef\xbb\xbf" + GOOD,
    ],
)
def test_other_spellings_of_a_record_are_refused(line: bytes) -> None:
    with refused():
        parse_record(line)


json_values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text()),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.text(alphabet=st.characters(max_codepoint=127)), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_fast_writer_equals_the_canonical_one(value: Any) -> None:
    assert records._canonical(value) == canonical.dumps(value)


BIG = [0, 1, 9, 10, 10**15 - 1, 10**15, 2**53 - 1, 2**53]
PLAIN = {"b": 1, "k": "u", "meters": {"calls": 1, "items": 2, "ms": 31, "tok_in": 7, "tok_out": 12}, "n": 5,
         "route": "r1", "status": "ok", "t": 1, "u": 60001, "v": 1, "w": -3, "wait_ms": 0}  # fmt: skip


def slowly(line: bytes, monkeypatch: pytest.MonkeyPatch) -> Record | None:
    """What the reader makes of a line without the short ways; None when refused."""
    with monkeypatch.context() as patch:
        patch.setattr(records, "_plain_usage", lambda line: None)
        patch.setattr(records, "_plain_tally", lambda line: None)
        try:
            return parse_record(line)
        except SealpackError:
            return None


def spelled(**changed: Any) -> bytes:
    return json.dumps(PLAIN | changed, sort_keys=True, separators=(",", ":")).encode()


def test_plain_usage_is_read_the_short_way_as_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    meters = [
        dict(zip(names, (3, 5, 7), strict=False)) for names in ((), ("ms",), ("calls", "tok_out"), ("x",))
    ]
    lines = [spelled(meters=m) for m in meters]
    lines += [spelled(**{name: n}) for name in "bntuw" for n in (*BIG, *(-n for n in BIG))]
    lines += [spelled(wait_ms=n) for n in BIG] + [spelled(meters={"ms": n}) for n in BIG]
    lines += [spelled(status=status) for status in (*STATUSES, "lost", "", "o")]
    lines += [spelled(route=route) for route in ("r", "R", "a" * 32, "a" * 33, "\u00e4")]
    lines.append(spelled(cost_centre="a"))
    short = [records._plain_usage(line) for line in lines]
    assert 40 < sum(found is not None for found in short) < len(lines) - 20
    for line, found in zip(lines, short, strict=True):
        if found is not None:
            assert Record(*found) == slowly(line, monkeypatch), line


def test_no_changed_byte_makes_the_short_way_read_what_the_long_way_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = spelled()
    for at in range(len(line)):
        for byte in (b"", b"0", b"1", b"-", b",", b"}", b'"', b" ", b"\n", b"\xc3", b"k"):
            for changed in (line[:at] + byte + line[at + 1 :], line[:at] + byte + line[at:]):
                if (found := records._plain_usage(changed)) is not None:
                    assert Record(*found) == slowly(changed, monkeypatch), changed


TOLD = {"r1": {"err": {"calls": 1}, "ok": {"calls": 12, "ms": 31}}}
TALLIED = {"b": 1, "k": "t", "n": 5, "registers": TOLD, "t": 1, "u": 60001, "v": 1, "w": -3}


def tallied(**changed: Any) -> bytes:
    return json.dumps(TALLIED | changed, sort_keys=True, separators=(",", ":")).encode()


def test_tallies_are_read_the_short_way_as_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[Any] = [
        {},
        {"r1": {}},
        {"r1": {"ok": {}}},
        {"r1": {"so": {"ms": 1}}},
        {"R": {"ok": {"ms": 1}}},
    ]
    tables += [{"r1": {"ok": {"watts": 1}}}, {"r1": {"ok": 5}}, {"r1": 5}, {"r1": {"ok": {"ms": {"ms": 5}}}}]
    tables += [{"r2": {"ok": {"ms": 1}}, f"{'r' * 32}": {"lost": {"ms": 1}}}]
    tables += [{f"r{n}": {"ok": {"ms": 1}} for n in range(count)} for count in (64, 65)]
    tables += [{"r1": {"ok": {"ms": n}}} for n in (*BIG, *(-n for n in BIG))]
    lines = [tallied(registers=table) for table in tables]
    lines += [tallied(**{name: n}) for name in "bntuw" for n in (*BIG, *(-n for n in BIG))]
    lines += [tallied(v=2), tallied(extra=1), tallied().replace(b'"r1":{', b'"r1":{"err":{"calls":1},', 1)]
    lines += [
        tallied().replace(b"{", b"[", 2),
        tallied().replace(b"r1", b"\xff"),
        tallied().replace(b"r1", b'"'),
    ]
    short = [records._plain_tally(line) for line in lines]
    assert 30 < sum(found is not None for found in short) < len(lines) - 20
    for line, found in zip(lines, short, strict=True):
        if found is not None:
            assert Record(*found) == slowly(line, monkeypatch), line


def test_no_changed_byte_makes_a_tally_read_the_short_way_that_the_long_way_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = tallied()
    for at in range(len(line)):
        for byte in (b"", b"0", b"1", b"-", b",", b"}", b"{", b":", b'"', b" ", b"\n", b"\xc3", b"k"):
            for changed in (line[:at] + byte + line[at + 1 :], line[:at] + byte + line[at:]):
                if (found := records._plain_tally(changed)) is not None:
                    assert Record(*found) == slowly(changed, monkeypatch), changed


def test_make_leaves_out_what_is_not_there() -> None:
    record = make(
        "u", **HEAD, route="r1", status="ok", meters={"calls": 1, "items": 0}, wait_ms=0, cost_centre=None
    )
    assert record.body == {"route": "r1", "status": "ok", "meters": {"calls": 1}, "wait_ms": 0}


# --- registers ----------------------------------------------------------------------------------------

meters = st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**6))
uses = st.lists(
    st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from([*STATUSES, "lost"]), meters), max_size=20
)


def _record(route: str, status: str, counts: dict[str, int]) -> Record:
    if status == "lost":
        return make("l", **HEAD, route=route, meters=counts)
    return make("u", **HEAD, route=route, status=status, meters=counts, wait_ms=0)


@given(uses)
def test_registers_are_the_sums_and_survive_their_tally(items: list[tuple[str, str, dict[str, int]]]) -> None:
    registers = Registers()
    for item in items:
        registers.add(_record(*item))
    for meter in METERS:
        assert registers.total(meter) == sum(counts.get(meter, 0) for _, _, counts in items)
        assert registers.total(meter, route="r2") == sum(c.get(meter, 0) for r, _, c in items if r == "r2")
    tally = make("t", **HEAD, registers=registers.to_tally())
    assert Registers.from_tally(parse_record(encode(tally)).body["registers"]) == registers


@given(uses, uses)
def test_growth_is_what_came_between(
    before: list[tuple[str, str, dict[str, int]]], after: list[tuple[str, str, dict[str, int]]]
) -> None:
    early, growth = Registers(), Registers()
    for item in before:
        early.add(_record(*item))
    late = early.copy()
    for item in after:
        late.add(_record(*item))
        growth.add(_record(*item))
    assert late.minus(early) == growth
    if growth.totals:
        with pytest.raises(SealpackError, match="RECEIPT_TALLY"):
            early.minus(late)


def test_only_usage_and_lost_records_count() -> None:
    registers = Registers()
    for kind, body in BODIES:
        if kind not in "ul":
            registers.add(make(kind, **HEAD, **body))
    assert registers == Registers()


def test_a_count_of_zero_leaves_no_register() -> None:
    registers = Registers()
    registers.charge("r1", "ok", {"calls": 0, "ms": 3})
    assert registers.totals == {("r1", "ok", "ms"): 3}


def test_a_total_is_over_every_status_and_one_route_or_all() -> None:
    registers = Registers()
    registers.charge("r1", "ok", {"calls": 3, "ms": 100})
    registers.charge("r1", "err", {"calls": 1})
    registers.charge("r2", "ok", {"calls": 5})
    assert (registers.total("calls"), registers.total("calls", route="r1")) == (9, 4)
    assert registers.total("tok_in") == 0
