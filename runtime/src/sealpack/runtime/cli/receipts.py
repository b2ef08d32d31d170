"""`sealpack receipts`: list, verify and export what was metered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sealpack.format.errors import SealpackError
from sealpack.format.qr import PREFIX
from sealpack.runtime.cli.common import license_option, open_state, state_option, trust_lines, trust_rows
from sealpack.runtime.words import day, plural
from sealpack.verifier.cli import support


@click.group(short_help="List, verify and export usage receipts.")
def receipts() -> None:
    """List, verify and export the signed usage receipts of this machine."""


@receipts.command("list", short_help="Print the newest receipts of every log.")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@license_option
@state_option
@support.format_option
def list_(last: int, license_id: str | None, state_dir: str | None, fmt: str) -> None:
    """Print the newest receipts, oldest first."""
    from sealpack.runtime import receipts as carried

    logs: list[dict[str, Any]] = []
    with open_state(state_dir) as state:
        for entry in carried.pending(state, license_id):
            with state.read() as db:
                records = [_row(r) for r in carried.recent(db, entry.log.log, last)]
            logs.append({"origin": entry.log.origin, "size": entry.log.size, "records": records})
    result = {"schema": "sealpack/receipts/v1", "logs": logs}
    support.emit(result, "\n".join(_lines(logs)) or "no receipts yet", fmt)


def _row(record: Any) -> dict[str, Any]:
    return {"n": record.position, "kind": record.kind, "t": record.time_ms, **record.body}


_NAMES = {
    "g": "log begins",
    "b": "runtime started",
    "t": "registers",
    "l": "lost",
    "d": "refused",
    "c": "clock",
    "a": "acknowledged",
    "e": "exported",
    "r": "key rotated",
    "x": "log closed",
}


def _lines(logs: list[dict[str, Any]]) -> list[str]:
    from sealpack.format.values import METERS

    lines = []
    for log in logs:
        lines.append(f"{log['origin']} ({plural(log['size'], 'receipt')})")
        for row in log["records"]:
            if row["kind"] == "u":
                meters = ", ".join(
                    f"{meter} {row['meters'][meter]}" for meter in METERS if meter in row["meters"]
                )
                what = f"call {row['status']}: {meters}"
            else:
                what = _NAMES[row["kind"]] + "".join(f" {row[k]}" for k in ("code", "event") if k in row)
            lines.append(f"  {row['n']:>6}  {day(row['t'] // 1000)}  {what}")
    return lines


@receipts.command(short_help="Check the logs, or a usage file, as settlement will.")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@state_option
@support.format_option
def verify(file: str | None, state_dir: str | None, fmt: str) -> int:
    """Check FILE, or without it every log on this machine, from the first receipt to the last."""
    if file is not None:
        return _verify_file(file, fmt)
    from sealpack.runtime import receipts as carried

    logs: list[dict[str, Any]] = []
    with open_state(state_dir) as state:
        for entry in carried.pending(state):
            findings = carried.verify_log(state, entry.log.log)
            logs.append({"origin": entry.log.origin, "size": entry.log.size, "findings": findings})
    good = not any(log["findings"] for log in logs)
    result = {"schema": "sealpack/log-check/v1", "ok": good, "logs": logs}
    lines = []
    for log in logs:
        lines.append(f"{log['origin']}: {plural(log['size'], 'receipt')}, signed and complete")
        lines += [f"  {f['code']}: {f['message']}" for f in log["findings"]]
    support.emit(result, "\n".join(lines) or "no receipts yet", fmt)
    return 0 if good else 3


def _verify_file(file: str, fmt: str) -> int:
    from sealpack.format.limits import LIMITS
    from sealpack.runtime import receipts as carried

    report = carried.verify_file(support.existing(file), LIMITS.usage_file_bytes)
    verdict = "whole and valid" if report.ok else plural(len(report.findings), "finding")
    lines = [f"{file}: {plural(report.accepted, 'receipt')} accepted, {verdict}"]
    if report.tallies:
        lines.append(
            f"  no single call in it; its running totals grew by {report.growth.total('calls')} calls"
        )
    lines += [f"  {finding.code}: {finding.message}" for finding in report.findings]
    support.emit(report.to_dict(), "\n".join(lines), fmt)
    return 0 if report.ok else 3


@receipts.command(short_help="Write usage files to carry to the vendor.")
@click.option(
    "--out", "folder", type=click.Path(file_okay=False), default=".", show_default=True, help="Folder."
)
@click.option("--privacy", "private", is_flag=True, help="Running totals and proofs only, no single call.")
@click.option("--reading", is_flag=True, help="No file: the meters as a QR code and as text to type.")
@click.option(
    "--qr", type=click.Path(dir_okay=False), metavar="FILE",
    help="With --reading: write the code to FILE.png or FILE.svg instead of the terminal.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing picture.")
@license_option
@state_option
@support.format_option
def export(
    folder: str, private: bool, reading: bool, qr: str | None, force: bool, license_id: str | None,
    state_dir: str | None, fmt: str,
) -> None:  # fmt: skip
    """Write every receipt that is not acknowledged yet, with a readable summary beside it.

    With --privacy single calls stay on this machine: the files hold its running totals for every quarter of
    an hour, and proofs that these are the signed ones. With --reading there is no file but a code to scan or
    type: the totals as they are now. Both are billed, and replaced by the receipts if these come later.
    """
    if reading:
        _reading(license_id, state_dir, private, qr, force, fmt)
        return
    if qr is not None:
        raise SealpackError("USAGE", "--qr goes with --reading")
    from sealpack.runtime import receipts as carried

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with open_state(state_dir) as state:
        files = carried.export(state, out, license_id=license_id, private=private)
    result = {"schema": "sealpack/exported/v1", "files": [exported_row(f) for f in files]}
    lines = [f"{f.path}: receipts {f.start} to {f.end}" for f in files]
    support.emit(result, "\n".join(lines) or "nothing to export: everything is acknowledged", fmt)


def _reading(
    license_id: str | None, state_dir: str | None, private: bool, qr: str | None, force: bool, fmt: str
) -> None:
    """Read the meters and show them; the code's text stands below it, for where there is no camera."""
    from sealpack.format.qr import frames
    from sealpack.runtime import readings
    from sealpack.verifier.cli import codes

    if private:
        raise SealpackError("USAGE", "--privacy writes files, --reading none")
    codes.require_segno("runtime")
    if qr is None and fmt == "text":
        codes.require_blocks()
    if qr is not None:
        codes.require_picture(qr)
        support.refuse_existing(qr, force)
    with open_state(state_dir) as state:
        taken = readings.take(state, license_id)
    if qr is not None and len(taken) > 1:
        raise SealpackError("USAGE", "there are several logs here", remedy="give --license")
    rows: list[dict[str, Any]] = []
    lines = []
    for one in taken:
        texts = frames(one.document)
        row: dict[str, Any] = {"license_id": one.license_id, "origin": one.origin, "size": one.size,
               "registers": one.registers.to_tally(), "frames": list(texts)}  # fmt: skip
        lines.append(f"{one.origin}: {plural(one.size, 'receipt')}, {one.registers.total('calls')} calls")
        if qr is not None:
            pictures = [str(path) for path in codes.save(Path(qr), texts, force=force)]
            row["pictures"] = pictures
            lines += [f"wrote {path}" for path in pictures]
        elif fmt == "text":
            codes.show(one.document)
        lines += [line for text in texts for line in _typed(text)]
        rows.append(row)
    lines.append("next: let the vendor scan or type it: `sealpack settle reading`")
    result = {"schema": "sealpack/meter-readings/v1", "readings": rows}
    support.emit(result, "\n".join(lines if rows else ["no receipts yet"]), fmt)


_GROUP, _LINE = 5, 60  # characters of the text to type


def _typed(text: str) -> list[str]:
    """A code's text in groups that a person can type; blanks, line ends and case do not matter."""
    body = text.removeprefix(PREFIX)
    groups = [PREFIX, *(body[at : at + _GROUP] for at in range(0, len(body), _GROUP))]
    count = _LINE // _GROUP
    return [" ".join(groups[at : at + count]) for at in range(0, len(groups), count)]


@receipts.command(short_help="Bring usage to the settlement service, and its replies home.")
@click.argument("url")
@click.option(
    "--token-file", type=click.Path(dir_okay=False), help="First line: the token that the vendor gave."
)
@click.option("--ca", type=click.Path(dir_okay=False), help="Certificates of your own authority (PEM).")
@click.option("--proxy", metavar="URL", help="HTTP proxy; none of the environment is used.")
@click.option("--insecure-http", is_flag=True, help="Let usage and token travel where others can read them.")
@click.option(
    "--wait", type=click.FloatRange(0, 86_400), default=120, show_default=True, metavar="SECONDS",
    help="For a service that only keeps files at first.",
)  # fmt: skip
@click.option("--privacy", "private", is_flag=True, help="Running totals and proofs only, no single call.")
@state_option
@support.format_option
def push(
    url: str, token_file: str | None, ca: str | None, proxy: str | None, insecure_http: bool, wait: float,
    private: bool, state_dir: str | None, fmt: str,
) -> int:  # fmt: skip
    """Upload what is pending to the settlement service at URL, and import its replies.

    Nothing but usage files is sent. After a break call it again: nothing is lost or counted twice.
    Exit status 5 when a file was held or refused. A file that is kept and not decided in time (no code) is
    told of by the next push.
    """
    from sealpack.runtime.push import Line, push as run

    token = support.passphrase(token_file, prompt="Token", option="--token-file") if token_file else None
    line = Line(
        url, token.decode("utf-8", "replace") if token else None, support.existing(ca) if ca else None, proxy,
        insecure_http, private,
    )  # fmt: skip
    with open_state(state_dir) as state:
        done = run(state, line, wait_s=wait)
    result = {
        "schema": "sealpack/pushed/v1",
        "files": [
            {
                **exported_row(p.file),
                "path": p.file.path.name,
                "code": p.code,
                "meaning": p.meaning,
                "sent": p.sent,
            }
            for p in done.pushed
        ],
        "acknowledgements": done.taken.acknowledgements,
        "leases": done.taken.leases,
        "trust": trust_rows(done.taken),
        "refused": {name: error.to_dict() for name, error in done.refused.items()},
    }
    lines = [
        f"{p.code or 'kept':<4}  receipts {p.file.start} to {p.file.end} of {p.file.origin}: {p.meaning}"
        for p in done.pushed
    ] or ["nothing to send: everything is acknowledged"]
    lines.append(f"imported {plural(done.taken.count, 'document')} ({done.taken.known} known)")
    lines += trust_lines(done.taken)
    for name, error in done.refused.items():
        support.note(f"sealpack: {name}: {error}; next: {error.remedy}")
    support.emit(result, "\n".join(lines), fmt)
    return 5 if done.refused or not all(p.is_accepted or p.is_kept for p in done.pushed) else 0


def exported_row(file: Any) -> dict[str, Any]:
    """A written usage file as JSON members."""
    return {
        "path": str(file.path),
        "license_id": file.license_id,
        "origin": file.origin,
        "from": file.start,
        "to": file.end,
    }
