"""Whatever a file holds, ingestion answers with an outcome: no traceback, and the tables stay true."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.books import NOW, Books
from support.device import Device

from sealpack.format import canonical, records
from sealpack.format.canonical import MAX_INT
from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ingest
from sealpack.settlement.outcomes import OUTCOMES
from sealpack.settlement.reconcile import reconcile

NO_KEY = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def test_amounts_that_no_table_can_hold(books: Books) -> None:
    device = Device()
    books.learn(device)
    for _ in range(1100):
        device.use(tok_out=MAX_INT)
    (outcome,) = books.ingest(device.export())
    assert (outcome.code, outcome.accepted) == ("H213", 0)
    assert not books.rows(db.rollups)


def test_a_register_that_overflows_in_the_second_file(books: Books) -> None:
    device = Device().use(tok_out=MAX_INT)
    books.learn(device)
    cut = device.size
    device.use(tok_out=1)
    assert books.code(device.export(0, cut)) == "OK"
    assert books.code(device.export(cut)) == "H213"
    assert books.log(device).size == cut
    assert reconcile(books.database, NOW).ok


@pytest.mark.parametrize("pem", [NO_KEY, world.LICENSER.public.pem], ids=["no key", "other kind of key"])
def test_a_first_record_without_a_device_key_does_not_stop_other_files(books: Books, pem: str) -> None:
    device, other = Device(), Device(number=2).work(3)
    device.leaves[0] = canonical.dumps(canonical.loads(device.leaves[0]) | {"device": pem})
    books.learn(device, other)
    assert books.code(device.work(3).export()) == "H214"
    assert ingest.release(books.database, NOW) == []
    assert books.code(other.export()) == "OK"


@pytest.mark.parametrize("pem", [NO_KEY, world.LICENSER.public.pem], ids=["no key", "other kind of key"])
def test_a_rotation_to_no_device_key(books: Books, pem: str) -> None:
    device = Device().work(3)
    device.put(records.ROTATED, device=pem, reason="scheduled")
    books.learn(device)
    assert books.code(device.export()) == "R301"


def test_a_name_that_is_no_text(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    path = books.folder / "caf\udce9\x1b[2J\n.usage.gz"
    path.write_bytes(device.export())
    (outcome,) = ingest.ingest_file(books.database, path, NOW)
    assert outcome.code == "OK"
    assert outcome.name == "caf\\udce9\\x1b[2J\\n.usage.gz"
    assert books.rows(db.files)[0]["name"] == outcome.name


def anything(rng: random.Random, device: Device) -> None:
    """One record of any kind, well-formed, with the values a liar would choose."""
    some = [0, 1, 2, 255, MAX_INT - 1, MAX_INT, device.now_ms, rng.randrange(MAX_INT)]

    def pick(low: int = 0) -> int:
        return max(low, rng.choice(some))

    route = rng.choice(["r1", "r2"])
    meters = {
        m: pick(1) for m in rng.sample(["calls", "tok_in", "tok_out", "ms", "items"], rng.randrange(1, 5))
    }
    members: dict[str, dict[str, Any]] = {
        records.USAGE: {"route": route, "status": "ok", "meters": meters, "wait_ms": pick()},
        records.LOST: {"route": route, "meters": meters},
        records.TALLY: {"registers": rng.choice([{}, {"r1": {"ok": meters}}, device.registers.to_tally()])},
        records.CLOCK: {"event": "went-back", "delta_ms": -pick()},
        records.DENIED: {"code": "QUOTA_EXCEEDED", "minute": pick()},
        records.ACKNOWLEDGED: {"digest": "ab" * 32, "ack_seq": pick(1), "size": pick(),
                               "server_time": pick()},
        records.EXPORTED: {"file_seq": pick(1), "from": pick(), "to": pick(1), "reason": "manual"},
        records.CLOSED: {"reason": "done"},
        records.GENESIS: {"origin": device.origin, "device": NO_KEY, "license": "ab" * 32, "root": "cd" * 32,
                          "epoch": pick()},
    }  # fmt: skip
    kind = rng.choice(list(members))
    head = {"time_ms": pick(), "uptime_ms": pick(), "position": pick(), "boot": pick(1)}
    lies = {name: value for name, value in head.items() if rng.random() < 0.2}
    device.put(kind, **members[kind], **lies)


@pytest.mark.parametrize("seed", range(3))
def test_signed_nonsense(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        device = Device(number=rng.randrange(10**6)).work(rng.randrange(3))
        for _ in range(rng.choice([1, 2, 5])):
            anything(rng, device)
        folder = tmp_path / str(device.number)
        folder.mkdir()
        books = Books.open(folder).learn(device)
        assert books.code(device.export()) in OUTCOMES
        ingest.release(books.database, NOW)
        assert reconcile(books.database, NOW).problems == ()
        books.database.close()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes(books: Books, seed: int) -> None:
    rng = random.Random(seed)
    device = Device().work(300)
    books.learn(device)
    packed = device.export()
    for source in (packed, gzip.decompress(packed)):
        for _ in range(40):
            data = bytearray(source)
            for _ in range(rng.choice([1, 1, 3, 20])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            assert books.code(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])) in OUTCOMES
    assert books.ingest(packed)[0].is_accepted
    assert books.log(device).frontier == device.frontier(device.size)
    assert reconcile(books.database, NOW).ok


CUSTOMERS = b'{"schema":"sealpack/customers/v1","customers":[%s]}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b'{"schema":["sealpack/customers/v1"]}',
        b'{"payloadType":5}',
        CUSTOMERS % b"" + b" and more",
        CUSTOMERS % b'{"id":"a","legal_name":"\\ud800"}',
        CUSTOMERS % b'{"id":"a","legal_name":""}',
        CUSTOMERS % b'{"id":"a","legal_name":" "}',
        CUSTOMERS % b'{"id":"a","id":"b","legal_name":"B"}',
        CUSTOMERS % b'{"id":"a b","legal_name":"B"}',
        CUSTOMERS % b'{"id":"a","legal_name":"B","payment_days":-1}',
        CUSTOMERS % b'{"id":"a","legal_name":"B","payment_days":NaN}',
        CUSTOMERS % (b'{"id":"a","legal_name":"B","payment_days":' + b"9" * 5000 + b"}"),
        CUSTOMERS % b'{"id":"a","legal_name":"B","tax":{"category":"S","percent":"101"}}',
        CUSTOMERS % b'{"id":"a","legal_name":"B","tax":{"category":"E","percent":"1"}}',
        CUSTOMERS % b'{"id":"a","legal_name":"B","tax":{"category":"S","percent":20}}',
    ],
)
def test_files_that_are_nothing_settlement_takes(books: Books, data: bytes) -> None:
    books.learn()
    before = books.rows(db.customers)
    with pytest.raises(SealpackError) as caught:
        books.take("x.json", data)
    assert caught.value.code in ("REGISTRY_INVALID", "DSSE_INVALID")
    assert books.rows(db.customers) == before
