"""Write the ingestion vectors: `python specs/vectors/ingest/generate.py [FOLDER]`.

A settlement that knows `trust.json`, `plan.yaml` and `registry.jsonl` (a case's own where it has one, else
those beside this file) is given the case's files in the order of `steps`. Each step states what comes of it:
[file, code, receipts newly accepted], first of the file that was given, then of files that this set free.
`expect` is the code of the last file given. `logs` is what is held afterwards; `registers` sums its receipts
by route, status and meter. `now` is settlement's clock. Usage files stand here unpacked, so that the same
generator writes the same bytes under any zlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import gzip
import json
from typing import Any

from support import world
from support.device import T0, Device, make_license

from sealpack.format import records
from sealpack.format.license import Allowance, LeaseTerms
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.usage import checkpoint_line

NOW = T0 + 5 * 86_400
DAY_MS = 86_400_000
PLAN = b"""# The price plan that every license here names.
plan: {id: example, version: 1, currency: EUR, tz: Europe/Berlin}
meters: {tokens: {field: tok_out, per: 1000}}
charges:
  - {id: tokens, type: usage, meter: tokens, model: per_unit, unit: "0.02"}
"""

made: dict[str, dict[str, bytes]] = {}
Step = tuple[str, bytes, list[list[Any]]]  # name, content, what comes of it


def plain(device: Device, *span: int, **header: Any) -> bytes:
    """The usage file of a range, unpacked."""
    return gzip.decompress(device.export(*span, **header))


def case(
    name: str, description: str, steps: list[Step], *held: Device, now: int = NOW, registry: bytes = b"",
    trust: bytes = b"",
) -> None:  # fmt: skip
    """One case; `held` are the devices whose whole log is held afterwards."""
    value = {
        "description": description,
        "expect": steps[-1][2][0][1],
        "now": now,
        "steps": [{"file": file, "outcomes": outcomes} for file, _, outcomes in steps],
        "logs": [
            {"origin": d.origin, "size": d.size, "root": d.frontier(d.size).root.hex(),
             "registers": d.registers.to_tally()}
            for d in held
        ],
    }  # fmt: skip
    files = {file: data for file, data, _ in steps}
    own = {"registry.jsonl": registry, "trust.json": trust}
    files |= {file: data for file, data in own.items() if data}
    made[name] = {"case.json": json.dumps(value, indent=1).encode() + b"\n", **files}


def worked(count: int = 10, **members: Any) -> Device:
    """A device whose log has genesis, boot, `count` usage records and a tally."""
    return Device(**members).work(count).tally()


def accepted() -> None:
    """OK and the warnings."""
    d = worked()
    n = d.size
    case("ok", "a whole file", [("1.usage", plain(d), [["1.usage", "OK", n]])], d)
    case(
        "again", "the same bytes twice",
        [("1.usage", plain(d), [["1.usage", "OK", n]]), ("1.usage", plain(d), [["1.usage", "W101", 0]])], d,
    )  # fmt: skip
    case(
        "overlap", "the second file begins inside the first",
        [("1.usage", plain(d, 0, 8), [["1.usage", "OK", 8]]),
         ("2.usage", plain(d, 5), [["2.usage", "W102", n - 8]])], d,
    )  # fmt: skip
    case(
        "older", "a file of which everything is known",
        [("1.usage", plain(d), [["1.usage", "OK", n]]),
         ("2.usage", plain(d, 3, 9), [["2.usage", "W103", 0]])], d,
    )  # fmt: skip
    long = Device().work(270)
    torn = plain(long)[:-900]
    case(
        "torn", "a file that ends early gives its whole block of 256; the whole file gives the rest",
        [("1.usage", torn, [["1.usage", "W104", 256]]),
         ("2.usage", plain(long), [["2.usage", "W102", long.size - 256]])], long,
    )  # fmt: skip
    lost = Device().work(3).lose(calls=2, tok_out=500).tally()
    case("lost", "an unclean stop destroyed a reservation",
         [("1.usage", plain(lost), [["1.usage", "W140", lost.size]])], lost)  # fmt: skip
    turned = Device().work(4)
    cut = turned.rotate(7).size
    turned.work(4)
    case(
        "rotated", "the log goes on under another key; its first file alone cannot be believed yet",
        [("2.usage", plain(turned, cut), [["2.usage", "R303", 0]]),
         ("1.usage", plain(turned, 0, cut),
          [["1.usage", "OK", cut], ["2.usage", "OK", turned.size - cut]])], turned,
    )  # fmt: skip
    old = worked(20)
    new = old.restored().work(3).tally()
    m = old.size
    case(
        "restored", "a database was set back: the next log begins by itself and carries the registers over",
        [("1.usage", plain(old, 0, 8), [["1.usage", "OK", 8]]),
         ("2.usage", plain(new), [["2.usage", "W151", new.size]]),
         ("3.usage", plain(old, 8), [["3.usage", "OK", m - 8]])], old, new,
    )  # fmt: skip
    leased = worked(license=make_license(lease=LeaseTerms(allowance=(Allowance("calls", 9),))))
    case("over-lease", "10 calls under a first lease that allows 9",
         [("1.usage", plain(leased), [["1.usage", "W110", leased.size]])], leased,
         registry=leased.line())  # fmt: skip
    early = Device().until((NOW + 2 * 3600) * 1000).work(2)
    case("ahead", "2 hours ahead of settlement's clock",
         [("1.usage", plain(early), [["1.usage", "W120", early.size]])], early)  # fmt: skip
    test = worked(license=make_license(environment="test"))
    case("test-license", "stored and never billed",
         [("1.usage", plain(test), [["1.usage", "W150", test.size]])], test,
         registry=test.line())  # fmt: skip


def stated() -> None:
    """What registers tell first, and the receipts themselves later."""
    d = worked().tally()
    n, half = d.size, d.size // 2
    tallies = gzip.decompress(d.tallies())
    usage = ("usage.usage", plain(d))
    case("tallies", "a tally file, then the usage file of the same receipts",
         [("tallies.usage", tallies, [["tallies.usage", "W152", n]]),
          (*usage, [["usage.usage", "OK", n]])], d)  # fmt: skip
    case("reading", "a meter reading, then the usage file of the same receipts",
         [("reading.json", d.reading(), [["reading.json", "W153", 0]]),
          (*usage, [["usage.usage", "OK", n]])], d)  # fmt: skip
    first, second = plain(d, 0, half), plain(d, half)
    case("behind-tallies", "a usage file behind receipts that are known by their tallies; then these",
         [("tallies.usage", gzip.decompress(d.tallies(0, half)), [["tallies.usage", "W152", half]]),
          ("2.usage", second, [["2.usage", "W154", n - half]]),
          ("1.usage", first, [["1.usage", "OK", half], ["2.usage", "OK", n - half]])], d)  # fmt: skip


def held() -> None:
    """What waits for another file, a document or a person."""
    d = worked(20)
    n = d.size
    case(
        "gap", "files in reverse order: the first one sets the others free, in log order",
        [("3.usage", plain(d, 15), [["3.usage", "H201", 0]]),
         ("2.usage", plain(d, 6, 15), [["2.usage", "H201", 0]]),
         ("1.usage", plain(d, 0, 6),
          [["1.usage", "OK", 6], ["2.usage", "OK", 9], ["3.usage", "OK", n - 15]])], d,
    )  # fmt: skip
    twin = d.clone()
    d.work(5)
    twin.wait(1).work(5)
    case(
        "fork", "two machines went on from one state: the log is frozen; older copies are still known",
        [("1.usage", plain(d), [["1.usage", "OK", d.size]]),
         ("2.usage", plain(twin), [["2.usage", "H210", 0]]),
         ("3.usage", plain(d.clone().work(3)), [["3.usage", "H210", 0]]),
         ("4.usage", plain(d, 0, 9), [["4.usage", "W103", 0]])], d,
    )  # fmt: skip
    ended = worked(6)
    next_log = ended.restored().work(2)
    kept = ended.clone()
    ended.work(2)
    case(
        "rollback", "a log goes on after the device said where it ended: both logs are frozen",
        [("1.usage", plain(kept), [["1.usage", "OK", kept.size]]),
         ("2.usage", plain(next_log), [["2.usage", "W151", next_log.size]]),
         ("3.usage", plain(ended), [["3.usage", "H211", 0]])], kept, next_log,
    )  # fmt: skip
    small = worked(4)
    changed = plain(small).replace(b'"ms":31', b'"ms":30', 1)
    case("changed", "a receipt was changed: its block does not give the signed root",
         [("1.usage", changed, [["1.usage", "H212", 0]])])  # fmt: skip
    low = Device().work(4)
    low.put(records.TALLY, registers={"r1": {"ok": {"calls": 1}}})
    case("tally", "the device signed a tally that is below its own receipts",
         [("1.usage", plain(low), [["1.usage", "H213", 0]])])  # fmt: skip
    other = Device().work(2)
    other.start(license_id="L-2")
    case("other-license", "a route names a license that the log is not of",
         [("1.usage", plain(other), [["1.usage", "H214", 0]])])  # fmt: skip
    epoch = Device(epoch=1).work(2)
    case("epoch", "a second log of a device that may write one",
         [("1.usage", plain(epoch, activation=None), [["1.usage", "H215", 0]])])  # fmt: skip
    case("revoked", "the vendor revoked the device", [("1.usage", plain(small), [["1.usage", "H220", 0]])],
         trust=world.make_trust(devices=[small.id]).to_bytes())  # fmt: skip
    ahead = Device().until((NOW + 25 * 3600) * 1000).work(2)
    case(
        "future",
        "25 hours ahead of settlement's clock",
        [("1.usage", plain(ahead), [["1.usage", "H221", 0]])],
    )
    short = make_license(exp=T0 + 86_400, grace_s=3600)
    over = Device(short).until((T0 + 2 * 86_400) * 1000).work(2)
    case("over", "used after the license and its days of grace",
         [("1.usage", plain(over), [["1.usage", "H230", 0]])], registry=over.line())  # fmt: skip
    case("late", "500 days old", [("1.usage", plain(small), [["1.usage", "H231", 0]])], now=T0 + 500 * 86_400)
    unknown = worked(4, license=make_license(license_id="L-9"))
    case("unknown-license", "no registry line names the license",
         [("1.usage", plain(unknown), [["1.usage", "H250", 0]])])  # fmt: skip


def refused() -> None:
    """What is no usage of a device we know."""
    d = worked(4)
    case("no-usage", "not a usage file", [("1.usage", b"hello\n", [["1.usage", "R301", 0]])])
    torn = plain(d)[: len(plain(d)) // 2]
    case("no-block", "torn before its first checkpoint", [("1.usage", torn, [["1.usage", "R301", 0]])])
    stranger = worked(4, number=9)
    case("unknown-device", "no activation, neither here nor in the file",
         [("1.usage", plain(stranger, activation=None), [["1.usage", "R302", 0]])])  # fmt: skip
    case("other-key", "the header names a key that is not the device's",
         [("1.usage", plain(d, device_key=stranger.key.public), [["1.usage", "R303", 0]])])  # fmt: skip
    checkpoint = Checkpoint(d.origin, d.size, d.frontier(d.size).root)
    theirs = checkpoint_line(sign_checkpoint(checkpoint, stranger.key))
    forged = plain(d).replace(checkpoint_line(d.block(0, d.size).note), theirs)
    case("forged", "another key signed the checkpoint", [("1.usage", forged, [["1.usage", "R304", 0]])])


def main(folder: Path) -> None:
    accepted()
    stated()
    held()
    refused()
    known = {
        "trust.json": world.make_trust().to_bytes(),
        "plan.yaml": PLAN,
        "registry.jsonl": Device().line(),
    }
    for name, files in {".": known, **made}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (folder / name / file).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
