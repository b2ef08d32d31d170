"""`sealpack activate`: introduce this machine to an issuer, and take the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import open_state, state_option, trust_lines, trust_rows
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.documents import Parcel
    from sealpack.runtime.state import State


@click.group(short_help="Activate this machine: request, install, status.")
def activate() -> None:
    """Activate this machine without a network: carry a request out and the reply in."""


@activate.command(short_help="Write the request that the issuer answers.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="File to write.")
@click.option("--label", help="What people call this machine.")
@click.option("--license", "license_id", help="License id, if the issuer named one.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@state_option
@support.format_option
def request(
    out: str, label: str | None, license_id: str | None, force: bool, state_dir: str | None, fmt: str
) -> None:
    """Make this machine's key if it has none, and write a signed activation request."""
    from sealpack.format.activation import ActivationRequest
    from sealpack.format.documents import Parcel
    from sealpack.format.files import atomic_write
    from sealpack.runtime import anchors, device

    if Path(out).exists() and not force:
        raise SealpackError("OUTPUT_EXISTS", f"{out} already exists")
    with open_state(state_dir, create=True) as state:
        trusts = anchors.load(state)
        envelope = device.request(state, trusts[0], support.now(), label=label, license_id=license_id)
    atomic_write(out, Parcel((envelope,)).to_bytes(), replace=force)
    made = ActivationRequest.open(envelope)
    result = {
        "schema": "sealpack/activation-request-made/v1",
        "path": out,
        "device_id": made.device_id,
        "nonce": made.nonce,
        "root_digest": made.root_digest,
    }
    text = (
        f"device {made.device_id}\nwrote {out}: send it to the issuer, then `sealpack activate install REPLY`"
    )
    support.emit(result, text, fmt)


@activate.command(short_help="Take the issuer's reply, or a license file.")
@click.argument("file", type=click.Path(dir_okay=False))
@state_option
@support.format_option
def install(file: str, state_dir: str | None, fmt: str) -> None:
    """Verify the license, activation and lease in FILE and take them over, all or nothing."""
    from sealpack.format.documents import Parcel
    from sealpack.format.files import read_bounded
    from sealpack.format.limits import LIMITS
    from sealpack.runtime import imports

    parcel = Parcel.from_bytes(read_bounded(file, LIMITS.parcel_bytes), file)
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
    }
    lines = [f"license {entry['license_id']} for {entry['customer']}, {entry['ends']}" for entry in licenses]
    lines += trust_lines(taken)
    support.emit(result, "\n".join(lines) or "nothing new: this file was taken before", fmt)


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
    from sealpack.runtime import anchors, rights
    from sealpack.runtime.words import day

    with state.read() as db:
        trusts = anchors.current(db)
        found = [rights.read(db, name, trusts) for name in names]
    return [
        {
            "license_id": r.license.license_id,
            "seq": r.license.seq,
            "customer": r.license.customer.name,
            "bundles": [grant.id for grant in r.license.bundles],
            "activated": r.activation is not None,
            "ends": f"until {day(r.license.exp)}" if r.license.exp is not None else "without an end date",
        }
        for r in found
    ]


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
        has_key = state.home.device_key.exists()
        name = device.name(device.key(state.home)) if has_key else None
        licenses = _licenses(state, names)
    result = {
        "schema": "sealpack/activation-status/v1",
        "device_id": name,
        "open_requests": waiting,
        "licenses": licenses,
    }
    lines = [f"device {name or 'has no key yet'}", f"open requests {waiting}"]
    lines += [
        f"license {entry['license_id']} number {entry['seq']}: {', '.join(entry['bundles'])}, {entry['ends']}"
        for entry in licenses
    ]
    support.emit(result, "\n".join(lines), fmt)
