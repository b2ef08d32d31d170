"""`sealpack activate`: introduce this machine to an issuer, take the answer, and give the seat back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import license_option, open_state, state_option, trust_lines, trust_rows
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.documents import Parcel
    from sealpack.runtime.rights import Rights
    from sealpack.runtime.state import State


@click.group(short_help="Activate this machine: request, install, status, close.")
def activate() -> None:
    """Activate this machine without a network: carry a request out and the reply in."""


@activate.command(short_help="Write the request that the issuer answers.")
@click.option("--out", type=click.Path(dir_okay=False), help="File to write.")
@click.option(
    "--qr",
    type=click.Path(dir_okay=False, allow_dash=True),
    is_flag=False,
    flag_value="-",
    help="Show the request as QR codes on this terminal, or write them to FILE.png or FILE.svg.",
    metavar="[FILE|-]",
)
@click.option("--label", help="What people call this machine.")
@click.option("--license", "license_id", help="License id, if the issuer named one.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@state_option
@support.format_option
def request(
    out: str | None,
    qr: str | None,
    label: str | None,
    license_id: str | None,
    force: bool,
    state_dir: str | None,
    fmt: str,
) -> None:
    """Make this machine's key if it has none, and a signed activation request: a file, QR codes, or both."""
    from sealpack.format.activation import ActivationRequest
    from sealpack.format.documents import Parcel
    from sealpack.format.files import atomic_write
    from sealpack.runtime import anchors, device

    if out is None and qr is None:
        raise SealpackError("USAGE", "say where the request goes: --out FILE, --qr, or --qr FILE.png")
    _check_outputs(out, qr, force, fmt)
    with open_state(state_dir, create=True) as state:
        trusts = anchors.load(state)
        envelope = device.request(state, trusts[0], support.now(), label=label, license_id=license_id)
    document = Parcel((envelope,)).to_bytes()
    if out is not None:
        atomic_write(out, document, replace=force)
    codes = {} if qr is None else _codes(document, qr, force, fmt)
    made = ActivationRequest.open(envelope)
    result = {
        "schema": "sealpack/activation-request-made/v1",
        "device_id": made.device_id,
        "nonce": made.nonce,
        "root_digest": made.root_digest,
        **({} if out is None else {"path": out}),
        **codes,
    }
    lines = [f"device {made.device_id}"]
    lines += [f"wrote {path}" for path in ([out] if out else []) + codes.get("pictures", [])]
    lines.append("next: give it to the issuer, then `sealpack activate install REPLY`")
    support.emit(result, "\n".join(lines), fmt)


def _check_outputs(out: str | None, qr: str | None, force: bool, fmt: str) -> None:
    """What can be known to fail is told before a request is made and remembered."""
    from sealpack.verifier.cli import codes

    support.refuse_existing(out, force)
    if qr is not None:
        codes.require_segno("runtime")
    if qr == codes.STDIO and fmt == "text":
        codes.require_blocks()
    if qr not in (None, codes.STDIO):
        codes.require_picture(qr)
        support.refuse_existing(qr, force)


def _codes(document: bytes, qr: str, force: bool, fmt: str) -> dict[str, list[str]]:
    """Draw the codes, or write their pictures; what is said of them in JSON."""
    from pathlib import Path

    from sealpack.format.qr import frames
    from sealpack.verifier.cli import codes

    texts = frames(document)
    if qr != codes.STDIO:
        return {
            "frames": list(texts),
            "pictures": [str(path) for path in codes.save(Path(qr), texts, force=force)],
        }
    if fmt == "text":
        codes.show(document)
    return {"frames": list(texts)}


@activate.command(short_help="Take the issuer's reply, or a license file.")
@click.argument(
    "files", type=click.Path(dir_okay=False, allow_dash=True), nargs=-1, required=True, metavar="FILE..."
)
@state_option
@support.format_option
def install(files: tuple[str, ...], state_dir: str | None, fmt: str) -> None:
    """Verify the license, activation and lease in FILE and take them over, all or nothing.

    FILE is the issuer's file; or the texts of its scanned QR codes, one a line in any order; or pictures of
    the codes; `-` is standard input, where a scanner types.
    """
    from sealpack.format.documents import Parcel
    from sealpack.runtime import imports
    from sealpack.verifier.cli import codes

    document, file = codes.read_document(files)
    parcel = Parcel.from_bytes(document, file)
    with open_state(state_dir, create=True) as state:
        taken = imports.take(state, [parcel])
        if not any(parcel.of_kind(kind) for kind in imports.KINDS):
            raise SealpackError(
                "DOC_TYPE",
                f"{file} is not an issuer's reply",
                remedy="give the file that the issuer sent back",
            )
        if not taken.count and not taken.known and taken.others:
            raise _for_another(state, parcel)
        licenses = _licenses(state, sorted({*taken.licenses, *taken.activations, *taken.leases}))
    result = {
        "schema": "sealpack/activated/v1",
        "licenses": licenses,
        "trust": trust_rows(taken),
        "known": taken.known,
        "repaired": taken.repairs,
        "further_logs": taken.tokens,
    }
    lines = [f"license {entry['license_id']} for {entry['customer']}, {entry['ends']}" for entry in licenses]
    lines += [f"confirm {entry['license_id']} {entry['confirmation']}" for entry in _coded(licenses)]
    if _coded(licenses):
        lines.append("next: tell the vendor that code if you were asked to")
    lines += [_provisional_line(entry) for entry in licenses if "provisional" in entry]
    lines += trust_lines(taken)
    lines += [f"a further log may begin under license {name}" for name in taken.tokens]
    lines += [f"repaired under license {name}: see `sealpack status`" for name in taken.repairs]
    known = "nothing new: this file was taken before; `sealpack activate status` says what is here"
    support.emit(result, "\n".join(lines) or known, fmt)


@activate.command("site-code", short_help="Open encrypted bundles with the code that was sent.")
@click.option("--code-file", type=click.Path(dir_okay=False), help="File whose first line is the code.")
@license_option
@state_option
@support.format_option
def site_code(code_file: str | None, license_id: str | None, state_dir: str | None, fmt: str) -> None:
    """Ask for the site code of a license, and open its encrypted bundles on this machine, once and for all.

    The code came separately from the license: in a letter, or over the phone.
    """
    from sealpack.runtime import anchors, lapses, rights, site_codes

    with open_state(state_dir) as state:
        with state.read() as db:
            name = lapses.only_license(db, license_id)
            license = rights.read(db, name, anchors.current(db)).license
        typed = support.passphrase(code_file, prompt="Site code", option="--code-file") or b""
        opened = site_codes.enter(state, license, typed.decode("ascii", "replace"))
    result = {"schema": "sealpack/site-code/v1", "license_id": name, "bundles": list(opened)}
    lines = [f"bundle {digest[:16]} opens on this machine now" for digest in opened]
    support.emit(result, "\n".join(lines), fmt)


def _for_another(state: State, parcel: Parcel) -> SealpackError:
    """The refusal of a file for another machine; what it names is not verified, only told."""
    from sealpack.format import canonical
    from sealpack.runtime import device

    here = device.name(device.key(state.home))
    said = [canonical.loads(e.payload, what="activation") for e in parcel.of_kind("activation")]
    names = ", ".join(str(payload.get("device_id"))[:40] for payload in said)
    message = f"the file is for {names}, this is {here}" if names else "the file activates no device"
    return SealpackError(
        "DEVICE_MISMATCH" if names else "NOT_ACTIVATED",
        message,
        remedy="run `sealpack activate request` here and send the request to the issuer",
    )


def _licenses(state: State, names: list[str]) -> list[dict[str, Any]]:
    from sealpack.runtime import anchors, closing, rights
    from sealpack.runtime.words import day

    with state.read() as db:
        trusts = anchors.current(db)
        found = [rights.read(db, name, trusts) for name in names]
        closed = {name for name in names if closing.refusal(db, name) is not None}
    return [
        {
            "license_id": r.license.license_id,
            "seq": r.license.seq,
            "customer": r.license.customer.name,
            "bundles": [grant.id for grant in r.license.bundles],
            "activated": r.activation is not None,
            **_confirmation(r),
            **_provisional(r),
            **({} if name not in closed else {"closed": True}),
            "ends": f"until {day(r.license.exp)}" if r.license.exp is not None else "without an end date",
        }
        for name, r in zip(names, found, strict=True)
    ]


def _provisional(found: Rights) -> dict[str, dict[str, int]]:
    """What may be done before the activation, where that is to come."""
    terms = found.license.provisional
    if terms is None or found.activation is not None or found.license.devices.binding == "none":
        return {}
    return {"provisional": {"s": terms.s, "calls": terms.calls}}


def _provisional_line(entry: dict[str, Any]) -> str:
    from sealpack.runtime.words import duration, plural

    terms = entry["provisional"]
    first = f"{plural(terms['calls'], 'call')} within {duration(terms['s'])} of the first"
    return f"provisional use: {first}; next: `sealpack activate request --out FILE`"


def _confirmation(found: Rights) -> dict[str, str]:
    """The short code of an activation that has one."""
    from sealpack.format import confirmation

    made = found.activation
    if made is None or made.confirmation is None:
        return {}
    root = found.trust.root_digest
    return {"confirmation": confirmation.code(made.confirmation, made.device_id, made.digest, root)}


def _coded(licenses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in licenses if "confirmation" in entry]


@activate.command(short_help="Say what this machine is and which licenses it has.")
@state_option
@support.format_option
def status(state_dir: str | None, fmt: str) -> None:
    """Print the device id, open requests and installed licenses."""
    from sealpack.runtime import device, rights

    with open_state(state_dir) as state:
        with state.read() as db:
            names = rights.license_ids(db)
            waiting = db.execute("SELECT count(*) FROM requests WHERE answered IS NULL").fetchone()[0]
        kept = device.Surroundings(state.home).key_store
        name = device.name(device.key(state.home)) if kept else None
        licenses = _licenses(state, names)
    result = {
        "schema": "sealpack/activation-status/v1",
        "device_id": name,
        "open_requests": waiting,
        "licenses": licenses,
    }
    lines = [f"device {name or 'has no key yet'}", f"open requests {waiting}"]
    lines += [
        f"license {entry['license_id']} number {entry['seq']}: {', '.join(entry['bundles'])}, "
        + ("closed on this machine" if "closed" in entry else entry["ends"])
        for entry in licenses
    ]
    lines += [f"confirm {entry['license_id']} {entry['confirmation']}" for entry in _coded(licenses)]
    support.emit(result, "\n".join(lines), fmt)


@activate.command(short_help="Give a seat back: end a license on this machine.")
@click.argument("license_id", required=False, metavar="[LICENSE]")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="File for the proof.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@state_option
@support.format_option
def close(license_id: str | None, out: str, force: bool, state_dir: str | None, fmt: str) -> None:
    """End the license LICENSE on this machine, for good, and write the signed proof that frees its seat.

    The usage files that settlement has not acknowledged are written beside the proof: hand over both. Nothing
    runs under the license here until the machine is activated anew. Closing again writes the same proof.
    """
    from pathlib import Path

    from sealpack.format.documents import Parcel
    from sealpack.format.files import atomic_write
    from sealpack.runtime import closing
    from sealpack.runtime.words import day

    support.refuse_existing(out, force)
    with open_state(state_dir) as state:
        closed = closing.close(state, closing.choose(state, license_id))
        atomic_write(out, Parcel((closed.proof,)).to_bytes(), replace=force)
        exported = closing.export(state, Path(out).parent, closed.said.license_id)
    said, usage = closed.said, [str(entry.path) for entry in exported]
    result = {
        "schema": "sealpack/closed/v1",
        "license_id": said.license_id,
        "device_id": said.device_id,
        "origin": said.origin,
        "size": said.size,
        "root": said.root,
        "closed_at": said.closed_at,
        "used": dict(said.used),
        "path": out,
        "usage": usage,
        "closed_before": closed.before,
    }
    lines = [f"license {said.license_id} closed on {said.device_id} at {day(said.closed_at)}"]
    lines += [f"wrote {path}" for path in (out, *usage)]
    lines.append("next: give these files to the vendor; `sealpack license transfer` moves the seat")
    support.emit(result, "\n".join(lines), fmt)
