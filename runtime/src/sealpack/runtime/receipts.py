"""Carrying usage out: what is pending, the usage file, and a summary people can read.

Source: specs/usage-export.md. A file holds the receipts from the last *acknowledged* size on, so a lost
stick costs nothing; exporting again without new receipts gives the same range. Settlement reads only
leaves under a valid checkpoint, never names or summaries.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sealpack.format import canonical, records, tallies
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, atomic_writer, read_bounded
from sealpack.format.keys import PrivateKey
from sealpack.format.license import License
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.records import Registers, parse_record
from sealpack.format.tallies import write_tallies
from sealpack.format.usage import FILE_LEAVES, UsageHeader, sign_blocks, write_usage
from sealpack.format.usage_reader import UsageReport
from sealpack.format.values import METERS, readable
from sealpack.runtime import anchors, device, epochs, holds, log, machine, rights, timekeeper
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.state import State
from sealpack.runtime.words import day

SUFFIX = ".usage.gz"
_PRIVATE = "running totals for every quarter of an hour, and proofs; no single call"


@dataclass(frozen=True, slots=True)
class Exported:
    """One usage file that was written: receipts [start, end) of a log."""

    path: Path
    license_id: str
    origin: str
    start: int
    end: int
    growth: Registers
    private: bool = False  # a tally file


@dataclass(frozen=True, slots=True)
class Pending:
    """How a license's log stands: sizes, and whether there is something to carry to settlement."""

    license: License
    log: Log
    news: int


def pending(state: State, license_id: str | None = None) -> list[Pending]:
    """Every log on this device, or those of one license, with what settlement has not acknowledged yet.

    LIC_MISSING when a license is named that has no log here.
    """
    with state.read() as db:
        trusts = anchors.current(db)
        found = [
            Pending(
                rights.name_of(db, entry.license_id, trusts),
                entry,
                log.news_since(db, entry, entry.acked_size) + _ends_since(db, entry),
            )
            for entry in log.every(db)
            if license_id in (None, entry.license_id)
        ]
    if license_id is not None and not found:
        raise SealpackError("LIC_MISSING", f"there are no receipts of a license {license_id} on this machine")
    return found


def _ends_since(db: sqlite3.Connection, found: Log) -> int:
    """1 for a log whose last record settlement has not acknowledged yet."""
    row = db.execute(
        "SELECT count(*) FROM leaves WHERE log=? AND n=? AND n>=? AND kind=?",
        (found.log, found.size - 1, found.acked_size, records.CLOSED),
    ).fetchone()
    return int(row[0])


def export(
    state: State,
    folder: Path,
    *,
    license_id: str | None = None,
    reason: str = "export",
    all_logs: bool = True,
    private: bool = False,
) -> list[Exported]:
    """Write the usage files of every log that has something to carry, and their summaries.

    `private` writes tally files: running totals and proofs, no single call. `all_logs` False leaves out
    licenses whose receipts stay on the device. Nothing is written for a log whose receipts are all
    acknowledged. A log that its mark lets nobody go on with (STATE_ROLLED_BACK, DEVICE_CLOSED) is told after
    the others were written.
    """
    if not pending(state, license_id):
        return []
    signer = device.key(state.home)
    with state.write() as db:
        moment = timekeeper.observe(db)
        stopped = epochs.catch_up_all(db, signer, moment)
        holds.sweep(db, state.home, signer, moment)
    written: list[Exported] = []
    for entry in pending(state, license_id):
        if entry.license.license_id in stopped:
            continue
        if entry.news and (all_logs or entry.license.receipts == "required"):
            written += _export_log(state, folder, entry, signer, reason, private)
    told = [error for name, error in stopped.items() if license_id in (None, name)]
    if told:
        raise told[0]
    return written


def _export_log(
    state: State, folder: Path, entry: Pending, signer: PrivateKey, reason: str, private: bool
) -> list[Exported]:
    found = mark(state, entry.log.log, signer, reason)
    _require_signed(state, found)
    files = []
    start, tree = found.acked_size, found.acked
    while start < found.size:
        end = min(start + FILE_LEAVES, found.size)
        if private and end < found.size:
            end = _before_tally(state, found, start, end)
        exported, tree = _write_file(
            state, folder, entry.license, found, (start, end), tree, signer, reason, private
        )
        files.append(exported)
        start = end
    return files


def _before_tally(state: State, found: Log, start: int, end: int) -> int:
    """Where a tally file is cut, so that the next one begins with the totals."""
    with state.read() as db:
        (cut,) = db.execute(
            "SELECT max(n) FROM leaves WHERE log=? AND n>? AND n<=? AND kind=?",
            (found.log, start, end, records.TALLY),
        ).fetchone()
    return int(cut or end)


def mark(state: State, number: int, signer: PrivateKey, reason: str) -> Log:
    """Write tally and export record when receipts came since the last export; else leave the log as is.

    A log that another one followed, because a backup was restored, is carried out as it stands: what its
    device wrote behind the backup is gone here, and nothing is ever appended in its place.
    """
    with state.write() as db:
        found = log.by_id(db, number)
        if log.find_number(db, found.license_id) != number:
            return replace(found, file_seq=found.file_seq + 1)
        if found.exported_size and not log.news_since(db, found, found.exported_size):
            return found
        writer = Writer(db, found, signer, timekeeper.observe(db))
        writer.tally()
        found.file_seq += 1
        writer.exported(
            file_seq=found.file_seq,
            reason=reason,
            **{"from": found.acked_size, "to": writer.position + 1},
        )
        found = writer.finish()
        found.exported_size = found.size
        log.store_exported(db, found)
        return found


def _require_signed(state: State, found: Log) -> None:
    """STATE_TAMPERED unless the receipts are the signed ones: an export signs every block anew."""
    with state.read() as db:
        lines = log.leaves(db, found.log, found.acked_size, found.size)
        tree = found.acked
        for line in lines:
            tree = tree.append(leaf_hash(line))
    if tree != found.frontier:
        raise _edited(found)


def _edited(found: Log) -> SealpackError:
    return SealpackError("STATE_TAMPERED", f"the receipts of {found.origin} are not the ones it signed")


@dataclass(slots=True)
class _Digest:
    """One pass over the receipts of a file: what its header and summary need, in constant memory."""

    tree: Frontier
    growth: Registers = field(default_factory=Registers)
    opened: int | None = None
    last: int = 0
    lost: int = 0

    def take(self, lines: Iterator[bytes]) -> _Digest:
        for line in lines:
            record = parse_record(line)
            self.tree = self.tree.append(leaf_hash(line))
            self.growth.add(record)
            self.opened = record.time_ms if self.opened is None else self.opened
            self.last = record.time_ms
            self.lost += record.kind == records.LOST
        return self


def _write_file(
    state: State,
    folder: Path,
    license: License,
    found: Log,
    span: tuple[int, int],
    tree: Frontier,
    signer: PrivateKey,
    reason: str,
    private: bool,
) -> tuple[Exported, Frontier]:
    start, end = span
    with state.read() as db:
        activation = rights.stored(db, "activation", license.license_id)
        digest = _Digest(tree).take(log.leaves(db, found.log, start, end))
        header = UsageHeader(
            origin=found.origin,
            file_seq=found.file_seq,
            start=start,
            end=end,
            reason=reason,
            opened=digest.opened or 0,
            last=digest.last,
            lost=digest.lost,
            frontier=tree,
            device_key=signer.public,
            runtime_version=machine.runtime_version(),
            runtime_digest=machine.runtime_digest(),
            activation=activation.to_dict() if activation else None,
        )
        path = folder / f"{_file_name(license, activation, found, start, end)}{SUFFIX}"
        lines = log.leaves(db, found.log, start, end)
        with atomic_writer(path) as file:
            if private:
                write_tallies(file, header, lines, [signer])
            else:
                write_usage(file, header, sign_blocks(tree, found.origin, lines, signer))
    exported = Exported(path, license.license_id, found.origin, start, end, digest.growth, private)
    _write_summaries(exported, license, header)
    return exported, digest.tree


def _file_name(license: License, activation: Envelope | None, found: Log, start: int, end: int) -> str:
    """A name for people: the label the device was activated under, else the license's, else its id.

    Several licenses, logs and machines of one label meet on one stick: the log's mark keeps them apart.
    """
    payload = canonical.loads(activation.payload, what="activation") if activation else {}
    labels = payload.get("device_label") or "", license.device_label or "", found.origin.split("/")[-2]
    mark = hashlib.sha256(found.origin.encode()).hexdigest()[:8]
    return f"{readable(license.customer.id)}-{readable(*labels)}-{mark}-{start}-{end}"


def _write_summaries(exported: Exported, license: License, header: UsageHeader) -> None:
    stem = exported.path.name.removesuffix(SUFFIX)
    rows = [
        (route, status, *(str(meters.get(meter, 0)) for meter in METERS))
        for route, by_status in exported.growth.to_tally().items()
        for status, meters in by_status.items()
    ]
    table = [("route", "status", *METERS), *rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    atomic_write(exported.path.with_name(f"{stem}.summary.csv"), text.getvalue().encode())
    page = _summary_page(exported, license, header, table)
    atomic_write(exported.path.with_name(f"{stem}.summary.html"), page.encode())


def _summary_page(
    exported: Exported, license: License, header: UsageHeader, table: list[tuple[str, ...]]
) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

    head, *rows = table
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    facts = {
        "Customer": license.customer.name,
        "License": license.license_id,
        "Log": exported.origin,
        "Receipts": f"{exported.start} to {exported.end} ({exported.end - exported.start})",
        "Period": f"{day(header.opened // 1000)} to {day(header.last // 1000)}",
        "Holds": _PRIVATE if exported.private else "every receipt",
        "File": exported.path.name,
    }
    terms = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Usage summary</title>'
        "<style>body{font:16px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}"
        "dt{float:left;clear:left;width:8em;color:#555}</style><h1>Usage summary</h1>"
        f"<p>For people; settlement reads only the signed file.</p><dl>{terms}</dl>"
        f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table></html>\n"
    )


def verify_log(state: State, number: int) -> list[dict[str, Any]]:
    """Check a whole log in the database as settlement will; returns the findings.

    Raises STATE_TAMPERED when the stored tree is not the one this device signed last.
    """
    signer = device.key(state.home)
    with state.read() as db:
        found = log.by_id(db, number)
        holds.check(db, found, signer.public)
        checker, tree = LogChecker(LogState.fresh()), Frontier()
        for line in log.leaves(db, number, 0, found.size):
            tree = tree.append(leaf_hash(line))
            checker.follow(parse_record(line))
    if tree != found.frontier:
        raise _edited(found)
    return [finding.to_dict() for finding in checker.findings]


def verify_file(path: Path, limit: int) -> UsageReport:
    """Check a usage file as settlement will before it leaves the site."""
    return tallies.verify(read_bounded(path, limit))


def recent(db: sqlite3.Connection, number: int, count: int) -> Iterator[records.Record]:
    """The newest `count` records of a log, oldest first."""
    found = log.by_id(db, number)
    for line in log.leaves(db, number, max(0, found.size - count), found.size):
        yield parse_record(line)
