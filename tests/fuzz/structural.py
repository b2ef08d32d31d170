"""The structural fuzzer: small good bundles, damaged in every way that keeps them nearly good.

Two layers are attacked. *The file*: every byte outside payload content with every pattern, every truncation,
every byte doubled or left out at structural places. *The content*: the entries of a good bundle changed,
swapped, renamed, removed, doubled or taken from another bundle, and laid out canonically with right
checksums, so that only signatures and cross-checks can tell. Whatever comes out must be refused with a
stable code.

No byte of these bundles is free. (A *redundant* signature would be: where more root keys sign than the
threshold asks, a broken one among them changes nothing. These bundles carry none.)
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support import rawzip, world
from support.site import make_license, seal_license

from sealpack.format.container import ALIGNMENT, BundleReader, is_pad
from sealpack.format.errors import CODES
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle

FLIPS: tuple[Callable[[int], int], ...] = (
    *((lambda byte, bit=bit: byte ^ 1 << bit) for bit in range(8)),
    lambda byte: 0x00,
    lambda byte: 0xFF,
)
INSERTED = (0x00, 0x50, 0xFF)
Entries = list[tuple[str, bytes]]


def vendor_keyring(version: int) -> world.documents.Envelope:
    """The vendor's keyring, same keys in every version."""
    return world.make_keyring(version)


def trust_file() -> Trust:
    """What the verifier was given: version 1 of everything."""
    return world.make_trust()


def plain_bundle() -> bytes:
    """No trust, no license: one model."""
    return world.BundleSpec(model=world.tiny_gguf(8)).build()


def carrying_bundle(bundle_id: str = "acme/tiny") -> bytes:
    """A newer keyring and a license ride along, and there is a pad before the payload."""
    license = seal_license(make_license()).to_bytes()
    meta = {
        "META/trust/root.1.json": world.make_root().to_bytes(),
        "META/trust/keyring.json": vendor_keyring(2).to_bytes(),
        "META/trust/revocations.json": world.make_revocations(2).to_bytes(),
        "META/license/L-1.json": license,
    }
    spec = world.BundleSpec(bundle_id=bundle_id, model=world.tiny_gguf(8), meta=meta)
    return padded(spec)


def padded(spec: world.BundleSpec) -> bytes:
    """`spec` built so that a pad stands before its model: the card grows until there is one."""
    for extra in range(1, 4):
        spec.extra = {"notes.txt": ("asset", "text/plain", b"n" * _missing(spec, extra))}
        data = spec.build()
        with BundleReader(io.BytesIO(data)) as bundle:
            if any(is_pad(name) for name in bundle.entries):
                return data
    raise AssertionError("no pad could be provoked")


def _missing(spec: world.BundleSpec, gap: int) -> int:
    """Length of a file before the payload that leaves a gap of `gap` bytes (too small for an extra)."""
    spec.extra = {"notes.txt": ("asset", "text/plain", b"n" * 1000)}
    with BundleReader(io.BytesIO(spec.build())) as bundle:
        place = bundle.entries[spec.model_name]
        slack = place.data_at - place.header_at - 50 - len(spec.model_name)
    return 1000 + slack - gap


@dataclass
class Campaign:
    """Verdicts of one run. `accepted` lists what passed although it was changed; `codes` counts refusals."""

    path: Path
    good: tuple[bytes, ...]  # files that are good as they are: some damage gives one of them back
    trust: Trust = field(default_factory=trust_file)
    cases: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)

    def judge(self, what: str) -> None:
        """Verify the file at `path`, which was changed as `what` says."""
        report = verify_bundle(self.path, self.trust)
        self.cases += 1
        if report.ok:
            self.accepted.append(what)
            return
        code = report.failures[0].code
        assert code in CODES, f"{what}: unknown code {code}"
        self.codes[code] += 1

    def file(self, what: str, data: bytes) -> None:
        """Judge `data` as a whole file, unless it is a good one after all."""
        if data in self.good:
            return
        self.path.write_bytes(data)
        self.judge(what)

    def patched(self, base: bytes, changes: Iterator[tuple[int, int]]) -> None:
        """Judge `base` with one byte replaced, for each (place, new value); written in place."""
        self.path.write_bytes(base)
        with self.path.open("r+b", buffering=0) as file:
            for at, value in changes:
                if value == base[at]:
                    continue
                file.seek(at)
                file.write(bytes([value]))
                self.judge(f"byte {at}: {base[at]:02x} -> {value:02x}")
                file.seek(at)
                file.write(base[at : at + 1])


def structural_places(base: bytes) -> list[int]:
    """Every place outside the content of payload files: headers, extras, META, metadata, directory, tail."""
    with BundleReader(io.BytesIO(base)) as bundle:
        inside = [
            (p.data_at, p.data_at + p.item.size)
            for name, p in bundle.entries.items()
            if name.startswith("payload/")
        ]
    return [at for at in range(len(base)) if not any(a <= at < b for a, b in inside)]


def edges(base: bytes) -> list[int]:
    """Where structures begin, end, and the places beside them: for insertions and deletions."""
    marks: set[int] = {0, len(base)}
    with BundleReader(io.BytesIO(base)) as bundle:
        for p in bundle.entries.values():
            name_at = p.header_at + 30
            marks |= {p.header_at, name_at, name_at + len(p.item.name), name_at + len(p.item.name) + 20}
            marks |= {p.data_at, p.data_at + p.item.size}
        last = max(p.data_at + p.item.size for p in bundle.entries.values())
    marks |= set(range(last, len(base) + 1))  # directory and end records: every byte
    return sorted({at + beside for at in marks for beside in (-1, 0, 1) if 0 <= at + beside <= len(base)})


def entries_of(base: bytes) -> Entries:
    """Names and contents in file order, without pads."""
    with BundleReader(io.BytesIO(base)) as bundle:
        return [(name, b"".join(bundle.blocks(name))) for name in bundle.names]


def relaid(entries: Entries) -> bytes:
    """The entries as our own writer lays them out."""
    return world.pack(dict(entries))


# --- one generator for each kind of damage: (what was done, the bytes) ------------------------------------


def flips(base: bytes, places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Every pattern at every place."""
    for at in places:
        for value in sorted({flip(base[at]) for flip in FLIPS}):
            yield at, value


def cuts(base: bytes, places: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """The file ends at each place."""
    for at in places:
        yield f"cut at {at}", base[:at]


def slips(base: bytes, places: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """One byte put in, doubled, or left out at each place."""
    for at in places:
        for value in INSERTED:
            yield f"{value:02x} put in at {at}", base[:at] + bytes([value]) + base[at:]
        if at < len(base):
            yield f"byte {at} doubled", base[: at + 1] + base[at:]
            yield f"byte {at} left out", base[:at] + base[at + 1 :]


def content_flips(base: bytes, pick: Callable[[str, int], Sequence[int]]) -> Iterator[tuple[str, bytes]]:
    """One byte of one entry's content changed, the file laid out anew; `pick` says which of `size` bytes."""
    entries = entries_of(base)
    for number, (name, data) in enumerate(entries):
        for at in pick(name, len(data)):
            for value in sorted({flip(data[at]) for flip in FLIPS} - {data[at]}):
                changed = data[:at] + bytes([value]) + data[at + 1 :]
                yield f"{name} byte {at} = {value:02x}", relaid(_with(entries, number, (name, changed)))


def content_slips(base: bytes, pick: Callable[[str, int], Sequence[int]]) -> Iterator[tuple[str, bytes]]:
    """One byte of one entry's content put in or left out, or the content cut there; laid out anew."""
    entries = entries_of(base)
    for number, (name, data) in enumerate(entries):
        for at in pick(name, len(data)):
            changes = {"20 put in": data[:at] + b" " + data[at:], "left out": data[:at] + data[at + 1 :]}
            for what, changed in (changes | {"cut": data[:at]}).items():
                yield f"{name} byte {at} {what}", relaid(_with(entries, number, (name, changed)))


def _with(entries: Entries, number: int, entry: tuple[str, bytes]) -> Entries:
    return [*entries[:number], entry, *entries[number + 1 :]]


def shuffles(base: bytes) -> Iterator[tuple[str, bytes]]:
    """Entries removed, doubled, swapped, renamed and reordered.

    Laid out canonically where a canonical file exists (removals, swapped contents, renames); as raw zip for
    what our writer will not write (two of a name, another order).
    """
    entries = entries_of(base)
    optional = ("META/trust/", "META/license/")  # unsigned by design: leaving one out is not a fault
    for number, (name, data) in enumerate(entries):
        if not name.startswith(optional):
            yield f"{name} removed", relaid(entries[:number] + entries[number + 1 :])
        yield f"{name} stands twice", raw([*entries, (name, data)])
        yield f"{name} stands first", raw([(name, data), *entries[:number], *entries[number + 1 :]])
        yield f"{name} stands last", raw([*entries[:number], *entries[number + 1 :], (name, data)])
        if not name.startswith("META/") and name != "mimetype":
            yield f"{name} renamed", relaid(_with(entries, number, (f"{name}.old", data)))
            yield f"{name} copied", relaid([*entries, (f"{name}.copy", data)])
        for other in range(number + 1, len(entries)):
            swapped = _with(
                _with(entries, number, (name, entries[other][1])), other, (entries[other][0], data)
            )
            yield f"{name} and {entries[other][0]} swapped", relaid(swapped)
            yield f"{name} and {entries[other][0]} trade places", raw(_traded(entries, number, other))
    yield "entries reversed", raw(entries[::-1])


def _traded(entries: Entries, one: int, other: int) -> Entries:
    traded = list(entries)
    traded[one], traded[other] = traded[other], traded[one]
    return traded


def raw(entries: Entries) -> bytes:
    """A zip of the entries in this order; everything but the order is canonical."""
    parts: list[rawzip.Raw] = []
    at = pads = 0
    for name, data in entries:
        part = _aligned(name, data, at)
        if part is None:
            parts.append(rawzip.pad(pads))
            at += 50 + len(parts[-1].name) + 64
            pads += 1
            part = _aligned(name, data, at)
            assert part is not None
        parts.append(part)
        at += 30 + len(name) + len(part.local.get("extra", bytes(20))) + len(data)
    return rawzip.build(parts)


def _aligned(name: str, data: bytes, at: int) -> rawzip.Raw | None:
    """The entry with its header at `at`; None where it needs a pad before."""
    if not name.startswith("payload/"):
        return rawzip.Raw(name, data)
    gap = -(at + 50 + len(name)) % ALIGNMENT
    return None if 0 < gap < 4 or gap > 65515 else rawzip.payload(name, data, at)


def splices(base: bytes, other: bytes, places: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Parts of two good bundles in one file: by entry (laid out anew) and by byte position."""
    mine, theirs = entries_of(base), dict(entries_of(other))
    for number, (name, data) in enumerate(mine):
        if theirs.get(name, data) != data:
            yield f"{name} of the other bundle", relaid(_with(mine, number, (name, theirs[name])))
    half = len(mine) // 2
    yield "half of each", relaid([*mine[:half], *((n, theirs.get(n, d)) for n, d in mine[half:])])
    yield "both, one after the other", base + other
    yield "the other one in front", other + base
    for at in places:
        yield f"head of one, tail of the other at {at}", base[:at] + other[at:]
        yield f"head up to {at}, then all of the other", base[:at] + other


# --- the campaigns ------------------------------------------------------------------------------------------


def everything(path: Path, base: bytes, other: bytes) -> Campaign:
    """The full form: hundreds of thousands of files, minutes."""
    run = Campaign(path, (base, other))
    run.patched(base, flips(base, structural_places(base)))
    for what, data in cuts(base, range(len(base))):
        run.file(what, data)
    for what, data in slips(base, edges(base)):
        run.file(what, data)
    for make in (content_flips, content_slips):
        for what, data in make(base, lambda name, size: range(size)):
            run.file(what, data)
    for what, data in (*shuffles(base), *splices(base, other, edges(base))):
        run.file(what, data)
    return run


def sample(path: Path, base: bytes, other: bytes, budget: int = 900, seed: int = 1) -> Campaign:
    """The short form: about `budget` files of each kind at random places, and every shuffle."""
    run, chance = Campaign(path, (base, other)), random.Random(seed)
    marks = edges(base)

    def some(places: Sequence[int], count: int) -> list[int]:
        return sorted(chance.sample(places, min(count, len(places))))

    run.patched(
        base, flips(base, some(structural_places(base), budget // 10) + some(marks[:-3], budget // 10))
    )
    for what, data in cuts(base, some(marks, budget // 2) + some(range(len(base)), budget // 2)):
        run.file(what, data)
    for what, data in slips(base, some(marks, budget // 5)):
        run.file(what, data)
    for make in (content_flips, content_slips):
        for what, data in make(base, lambda name, size: some(range(size), 3)):
            run.file(what, data)
    for what, data in (*shuffles(base), *splices(base, other, some(marks, 20))):
        run.file(what, data)
    return run


GOOD = {"plain": plain_bundle, "carrying": carrying_bundle}


def other_bundle() -> bytes:
    """A good bundle of the same vendor under another name."""
    return carrying_bundle("acme/words")
