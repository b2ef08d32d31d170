"""A creator's project folder: configuration, keys, trust, an example plan and the recovery sheet.

Source: specs/config.md, section "The project folder". The folder is made under a temporary name and
renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import datetime as dt
import html
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from sealpack.builder import keyfiles
from sealpack.builder.config import CONFIG_NAME
from sealpack.builder.trust_author import PURPOSES, KeyGrant, first_trust
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.format.keys import ECDSA, PrivateKey
from sealpack.format.trust import Trust
from sealpack.format.words import fingerprint_words

PUBLISHER = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
TRUST_PATH = "trust/trust.json"
_GITIGNORE = "# private keys and vaults never belong in a repository\nkeys/*.pem\n!keys/*.pub.pem\n*.vault\n"


@dataclass(frozen=True, slots=True)
class Project:
    """What `create` made."""

    folder: Path
    publisher: str
    trust: Trust
    files: tuple[str, ...]

    @property
    def words(self) -> str:
        """The root's fingerprint as words."""
        return fingerprint_words(self.trust.root_digest)


def create(
    folder: Path, *, publisher: str, name: str | None, now: int, passphrase: bytes | None = None
) -> Project:
    """Make a new project in `folder`, which must be absent or empty.

    `publisher` becomes the namespace of every bundle id (`publisher/model`), `name` how people call
    it; `now` is Unix seconds. OUTPUT_EXISTS, USAGE or an I/O code; a failure leaves nothing.
    """
    if not PUBLISHER.fullmatch(publisher):
        raise SealpackError(
            "USAGE", f"publisher {publisher!r} must be lower-case letters, digits, '.' or '-'"
        )
    if name is not None and (not name.strip() or len(name) > 200 or not name.isprintable()):
        raise SealpackError("USAGE", "the name must be 1 to 200 printable characters")
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow a link
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SealpackError(
            "OUTPUT_EXISTS", f"{folder} already exists and is not empty", remedy="choose a new folder"
        )
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        trust = _fill(part, publisher, name or publisher, now, passphrase)
        files = tuple(sorted(str(p.relative_to(part)) for p in part.rglob("*") if p.is_file()))
        part.rename(folder)
    except OSError as error:
        raise io_error(error, folder, "write") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Project(folder, publisher, trust, files)


def _fill(part: Path, publisher: str, name: str, now: int, passphrase: bytes | None) -> Trust:
    for sub in ("keys", "trust", "licenses", "plans", "bundles", "evidence"):
        (part / sub).mkdir()
    (part / "keys").chmod(0o700)
    keys = {"root": PrivateKey.generate(ECDSA)}
    keys |= {purpose: PrivateKey.generate(scheme) for purpose, (scheme, _) in PURPOSES.items()}
    for purpose, key in keys.items():
        keyfiles.write_pair(part / "keys" / f"{purpose}.pem", key, passphrase)
    grants = [KeyGrant(keys[purpose].public, purpose) for purpose in PURPOSES]
    trust = first_trust([keys["root"]], grants, issuer=publisher, namespaces=[publisher], now=now)
    (part / TRUST_PATH).write_bytes(trust.to_bytes())
    facts = {"publisher": publisher, "name": name}
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')  # for a TOML basic string
    _write(part / CONFIG_NAME, _template("sealpack.toml", {**facts, "name": quoted}))
    _write(part / "plans" / "plan.yaml", _template("plan.yaml", facts))
    _write(part / "card.md", _template("card.md", facts))
    _write(part / "licenses" / "LICENSE.txt", _template("license.txt", facts))
    _write(part / ".gitignore", _GITIGNORE)
    _write(part / "recovery-sheet.html", recovery_sheet(name, keys, trust, now, passphrase is not None))
    return trust


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _template(name: str, facts: dict[str, str]) -> str:
    source = resources.files("sealpack.builder").joinpath("templates", name)
    return Template(source.read_text(encoding="utf-8")).substitute(facts)


_USE = {
    "root": "changes the keyring and the revocations; the only key that can replace the others",
    "bundle": "signs bundles and evidence",
    "license": "signs licenses and activations",
    "settlement": "signs acknowledgements and leases",
    "witness": "cosigns the usage logs of devices",
}


def recovery_sheet(name: str, keys: dict[str, PrivateKey], trust: Trust, now: int, encrypted: bool) -> str:
    """A page to print: fingerprints as words, what to keep offline, how to recover. No secret on it."""
    rows = "\n".join(
        f"<tr><td>keys/{purpose}.pem</td><td>{html.escape(_USE[purpose])}</td>"
        f"<td>{fingerprint_words(key.keyid)}<br><code>{key.keyid}</code></td></tr>"
        for purpose, key in keys.items()
    )
    facts = {
        "name": html.escape(name),
        "date": dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat(),
        "root_words": fingerprint_words(trust.root_digest),
        "root_digest": trust.root_digest,
        "rows": rows,
        "passphrase": (
            "The key files are encrypted. Without their passphrase they are lost: write it down and "
            "keep it in another place than the files."
            if encrypted
            else "The key files are not encrypted: whoever has a file has the key."
        ),
    }
    return _template("recovery-sheet.html", facts)
