"""`sealpack terms`: read the license terms of a bundle, and accept them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import license_option, open_state, state_option
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.license import License
    from sealpack.format.terms import Terms
    from sealpack.runtime.state import State


@click.group(short_help="Read and accept license terms.")
def terms() -> None:
    """Read the license terms of an installed bundle, and accept them."""


def _read(state: State, bundle_id: str) -> tuple[Terms, str]:
    from sealpack.format.terms import ENTRY_NAME, Terms
    from sealpack.runtime import store

    opened = store.open_installed(state, store.find(state, bundle_id))
    try:
        if ENTRY_NAME not in opened.reader.names:
            raise SealpackError(
                "TERMS_MISMATCH", f"{bundle_id} carries no terms", remedy="ask the vendor for them"
            )
        found = Terms.from_bytes(opened.reader.read(ENTRY_NAME))
        return found, opened.reader.read(found.text).decode("utf-8", "replace")
    finally:
        opened.close()


def _license(state: State, bundle_id: str, wanted: str | None) -> License | None:
    """The license that applies; None while there is none here, or several and none was named."""
    from sealpack.runtime import api, rights, store

    build = rights.build_of(store.find(state, bundle_id))
    try:
        return api.installed_rights(state, build, wanted).license
    except SealpackError as error:
        if wanted is not None or error.code not in ("LIC_MISSING", "BUNDLE_MISMATCH", "LIC_AMBIGUOUS"):
            raise
        return None


@terms.command(short_help="Print the terms of an installed bundle.")
@click.argument("bundle_id")
@license_option
@state_option
@support.format_option
def show(bundle_id: str, license_id: str | None, state_dir: str | None, fmt: str) -> None:
    """Print what may be done with BUNDLE_ID: your license in plain words, and the full legal text."""
    from sealpack.verifier import license_words

    with open_state(state_dir) as state:
        found, text = _read(state, bundle_id)
        license = _license(state, bundle_id, license_id)
    rows = (
        ("license", found.spdx),
        ("allowed", ", ".join(found.allow)),
        ("not allowed", ", ".join(found.deny)),
        ("attribution", found.attribution or ""),
    )
    summary = "\n".join(f"{name}: {value}" for name, value in rows if value)
    page = f"{support.for_screen(license_words.to_text(license))}\n\n" if license else ""
    result = {
        "schema": "sealpack/terms-shown/v1",
        "bundle_id": bundle_id,
        "terms_digest": found.digest,
        "terms": found.to_bytes().decode(),
        "text": text,
        **({"license": license_words.to_dict(license)} if license else {}),
    }
    support.emit(result, f"{page}{summary}\nterms digest: {found.digest}\n\n{text}", fmt)


@terms.command(short_help="Accept the terms of an installed bundle.")
@click.argument("bundle_id")
@license_option
@state_option
@support.format_option
def accept(bundle_id: str, license_id: str | None, state_dir: str | None, fmt: str) -> None:
    """Record that the terms of BUNDLE_ID are accepted for the license that covers it."""
    from sealpack.runtime import api, rights, store

    now = support.now()
    with open_state(state_dir) as state:
        found, _ = _read(state, bundle_id)
        build = rights.build_of(store.find(state, bundle_id))
        license = api.installed_rights(state, build, license_id).license
        if license.use.terms_digest != found.digest:
            raise SealpackError(
                "TERMS_MISMATCH",
                f"license {license.license_id} names terms {license.use.terms_digest[:16]}, "
                f"the bundle carries {found.digest[:16]}",
            )
        with state.write() as db:
            db.execute(
                "INSERT INTO terms VALUES(?,?,?) ON CONFLICT DO NOTHING",
                (license.license_id, found.digest, now),
            )
    result = {
        "schema": "sealpack/terms-accepted/v1",
        "license_id": license.license_id,
        "terms_digest": found.digest,
    }
    support.emit(result, f"accepted terms {found.digest[:16]} for license {license.license_id}", fmt)
