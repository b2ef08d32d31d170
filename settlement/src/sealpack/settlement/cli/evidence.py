"""`sealpack settle evidence` and `check-evidence`: what an invoice, a log or a case rests on, in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Pack what an invoice, log or case rests on.")
@click.argument("invoice", required=False)
@click.option("--case", "case", type=int, metavar="N", help="Instead of an invoice: this case.")
@click.option("--log", "log", metavar="ORIGIN", help="Instead of an invoice: this device log.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="File to write (.evidence.zip).")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@support.format_option
def evidence(invoice: str | None, case: int | None, log: str | None, out: str, force: bool, fmt: str) -> None:
    """Write a dispute pack about INVOICE: plan, licenses, every receipt, what was acknowledged and issued.

    Whoever has the vendor's trust file checks it with `sealpack verify --trust trust.json FILE`, without a
    database. It holds the documents as they are signed, with the payout split and all price tiers.
    """
    if [invoice, case, log].count(None) != 2:
        raise SealpackError("USAGE", "give one of INVOICE, --case N or --log ORIGIN")
    support.refuse_existing(out, force)
    with common.open_database() as database:
        from sealpack.settlement import evidence_pack

        if case is not None:
            data = evidence_pack.for_case(database, case)
        else:
            with database.read() as connection:
                if invoice is not None:
                    data = evidence_pack.for_invoice(connection, invoice)
                else:
                    data = evidence_pack.for_log(connection, log or "")
    atomic_write(Path(out), data, replace=force)
    digest = hashlib.sha256(data).hexdigest()
    result = {"schema": "sealpack/settle-evidence/v1", "file": out, "bytes": len(data), "sha256": digest}
    support.emit(result, f"{out}  {len(data):,} bytes\nsha256 {digest}", fmt)


@click.command("check-evidence", short_help="Check a dispute pack.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--trust", "trust_file", type=click.Path(dir_okay=False), required=True, help="Trust file (trust.json)."
)
@support.format_option
def check_evidence(file: str, trust_file: str, fmt: str) -> int:
    """Check dispute pack FILE by itself, and say what was checked. `sealpack verify FILE` does the same.

    Exit status: 0 everything holds, 3 something does not.
    """
    support.require_extra("settlement", "sqlalchemy", "yaml", "tzdata")
    from sealpack.settlement import evidence_check, evidence_pack

    trust = support.load_trust(trust_file)
    report = evidence_check.check(read_bounded(file, evidence_pack.MAX_BYTES), trust)
    lines = ["PASS" if report.ok else "FAIL"]
    lines += [f"  {'ok  ' if c.ok else 'FAIL'}  {c.name}: {c.detail}" for c in report.checks]
    lines.append(f"sha256 {report.sha256}")
    support.emit(report.to_dict(), "\n".join(lines), fmt)
    return 0 if report.ok else 3
