"""`sealpack trust add`, `rotate` and `revoke`: changes to a trust file, signed by its root keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError, printable
from sealpack.format.trust import ROLES
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.trust_changes import Withdrawal
    from sealpack.builder.trust_files import TrustFile
    from sealpack.format.keys import PublicKey, Signer
    from sealpack.format.trust import Root, Trust

_FILE = click.Path(dir_okay=False)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _change_options(command: Any) -> Any:
    """The trust file and the root keys that change it."""
    for option in (
        support.format_option,
        click.option(
            "--passphrase-file",
            "passphrase_files",
            type=_FILE,
            multiple=True,
            envvar="SEALPACK_PASSPHRASE_FILE",
            help="File whose first line is a root key's passphrase; may be repeated.",
        ),
        click.option(
            "--trust", "path", type=_FILE, default="trust/trust.json", show_default=True, help="Trust file."
        ),
        click.option(
            "--root-key",
            "root_keys",
            type=_FILE,
            multiple=True,
            required=True,
            help="Private key of the root, a file or pkcs11:URI; repeat it up to the root's threshold.",
        ),
    ):
        command = option(command)
    return command


_mldsa_option = click.option(
    "--mldsa",
    is_flag=True,
    help="The new keys sign with the ML-DSA key beside them too (NAME.mldsa.pub.pem).",
)


@click.command(short_help="List a further key in the keyring.")
@click.option("--key", "key_file", type=_FILE, required=True, help="Public key file (NAME.pub.pem).")
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    required=True,
    help="What it may sign; may be repeated.",
)
@click.option(
    "--namespace", "namespaces", multiple=True, help="Names it may sign for [default: as the others]."
)
@click.option("--issuer", help="Whose key it is [default: as the others].")
@_mldsa_option
@_change_options
def add(
    key_file: str,
    roles: tuple[str, ...],
    namespaces: tuple[str, ...],
    issuer: str | None,
    mldsa: bool,
    path: str,
    root_keys: tuple[str, ...],
    passphrase_files: tuple[str, ...],
    fmt: str,
) -> None:
    """List a key in a new keyring, signed by the root keys.

    Writes the trust file, and beside it the parcel that carries the change to machines.
    """
    from sealpack.builder import keyfiles, trust_changes, trust_files

    before = trust_files.read(Path(path))
    key = keyfiles.load_public(key_file)
    issuer, spaces = trust_changes.usual_names(before.trust, issuer, namespaces)
    after = trust_changes.add_key(
        before.trust,
        _root_signers(before.trust.root, root_keys, passphrase_files),
        key,
        mldsa=keyfiles.load_public_mldsa(key_file) if mldsa else None,
        roles=roles,
        issuer=issuer,
        namespaces=spaces,
        now=support.now(),
    )
    granted = f"{', '.join(sorted(set(roles)))} for {', '.join(spaces)}"
    _finish(before, after, [f"added key {_short(key)}: {granted}"], [key], fmt)


@click.command(short_help="Replace a key of the keyring, or the root.")
@click.option("--key", "old", help="Key id (or its beginning) of the key to retire.")
@click.option("--with", "new", type=_FILE, help="Public key file of the key that takes its place.")
@click.option(
    "--new-root",
    "new_root",
    type=_FILE,
    multiple=True,
    help="Key file of the new root; may be repeated. Public files are listed, private ones sign too.",
)
@click.option(
    "--threshold", type=click.IntRange(min=1), help="Signatures the new root asks for [default: as before]."
)
@_mldsa_option
@_change_options
def rotate(
    old: str | None,
    new: str | None,
    new_root: tuple[str, ...],
    threshold: int | None,
    mldsa: bool,
    path: str,
    root_keys: tuple[str, ...],
    passphrase_files: tuple[str, ...],
    fmt: str,
) -> None:
    """Replace one key: `--key KEYID --with NEW.pub.pem`, or the root: `--new-root NEW.pem`.

    A replaced key is retired: what it signed stays good. A stolen one has to be revoked as well. A new root
    is signed by the old and the new root keys; machines that pinned the old one follow with the next bundle,
    license or update-N.parcel that is brought to them: each holds every root step.
    """
    from sealpack.builder import keyfiles, trust_changes, trust_files

    if (old is None) != (new is None) or (old is None) != bool(new_root):
        raise SealpackError("USAGE", "give --key KEYID and --with FILE, or --new-root FILE")
    if threshold is not None and not new_root:
        raise SealpackError("USAGE", "--threshold belongs to --new-root")
    before = trust_files.read(Path(path))
    signers = _root_signers(before.trust.root, root_keys, passphrase_files)
    if new_root:
        _rotate_root(before, signers, new_root, passphrase_files, threshold, mldsa, fmt)
        return
    entry = trust_changes.find_key(before.trust, old or "")
    key = keyfiles.load_public(new or "")
    second = keyfiles.load_public_mldsa(new or "") if mldsa else None
    after = trust_changes.replace_key(before.trust, signers, entry, key, mldsa=second, now=support.now())
    changed = [f"retired key {_short(entry.key)}", f"added key {_short(key)}: in its place"]
    _finish(before, after, changed, [key], fmt)


def _rotate_root(
    before: TrustFile,
    signers: list[Signer],
    files: tuple[str, ...],
    passphrases: tuple[str, ...],
    threshold: int | None,
    mldsa: bool,
    fmt: str,
) -> None:
    from sealpack.builder import keyfiles, trust_changes

    public = [path for path in files if keyfiles.is_public(path)]
    secret = [path for path in files if path not in public]
    private = _private(secret, passphrases)
    keys = [keyfiles.load_public(path) for path in public] + [key.public for key in private]
    beside = {}
    if mldsa:
        order = zip([*public, *secret], keys, strict=True)
        beside = {key.keyid: keyfiles.load_public_mldsa(path) for path, key in order}
        private += _private([str(keyfiles.mldsa_beside(path)) for path in secret], passphrases)
    after = trust_changes.replace_root(
        before.trust,
        signers,
        keys,
        private,
        mldsa=beside,
        threshold=before.trust.root.roles["root"][0] if threshold is None else threshold,
        now=support.now(),
    )
    old, new = before.trust.root, after.root
    if before.follows_from > 1:
        support.note(
            "older root steps are not at hand: machines whose root is older than version "
            f"{before.follows_from} cannot follow"
        )
    changed = [f"root version {old.version} replaced by {new.version}: {_threshold(after)}"]
    _finish(before, after, changed, keys, fmt)
    support.note("new customers compare the new root's words: correct contracts and recovery sheet")


@click.command(short_help="Withdraw a key, bundle, license or device, or raise a floor.")
@click.option("--key", "keys", multiple=True, help="Key id (or its beginning); may be repeated.")
@click.option(
    "--good",
    multiple=True,
    metavar="DIGEST|FILE",
    help="With one --key: a document of it that stays good, by payload digest, or all in a file.",
)
@click.option("--bundle", "bundles", multiple=True, metavar="DIGEST|FILE", help="Bundle; may be repeated.")
@click.option("--license", "licenses", multiple=True, metavar="ID", help="License id; may be repeated.")
@click.option("--device", "devices", multiple=True, metavar="ID", help="Device id; may be repeated.")
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="BUNDLE_ID=INDEX",
    help="Lowest release index still allowed; may be repeated.",
)
@_change_options
def revoke(
    path: str,
    root_keys: tuple[str, ...],
    passphrase_files: tuple[str, ...],
    fmt: str,
    **named: tuple[str, ...],
) -> None:
    """Withdraw what is named, in a new revocation list; nothing that was withdrawn comes back.

    A revoked key makes everything it signed invalid, whatever its date, except what --good names: bundles
    (give the bundle file) and licenses (give the license file) that customers shall go on using. Machines
    learn of it with the next bundle, license, acknowledgement or update-N.parcel that is brought to them.
    """
    from sealpack.builder import trust_changes, trust_files

    if not any(named.values()):
        raise SealpackError("USAGE", "give --key, --bundle, --license, --device or --floor")
    before = trust_files.read(Path(path))
    what = _withdrawal(before.trust, named)
    signers = _root_signers(before.trust.root, root_keys, passphrase_files)
    after = trust_changes.revoke(before.trust, signers, what, now=support.now())
    _finish(before, after, _withdrawn(what), [], fmt)


def _withdrawal(trust: Trust, named: dict[str, tuple[str, ...]]) -> Withdrawal:
    """What the options name, checked: nobody notices a typing error in a revocation."""
    from sealpack.builder import trust_changes, trust_files
    from sealpack.format.activation import DEVICE_ID
    from sealpack.format.values import IDENTIFIER

    entries = [trust_changes.find_key(trust, name) for name in named["keys"]]
    if named["good"] and len(entries) != 1:
        raise SealpackError("USAGE", "--good belongs to exactly one --key")
    good = frozenset[str]()
    for item in named["good"]:
        by_digest = _DIGEST.fullmatch(item) is not None
        good |= {item} if by_digest else trust_files.signed_by(support.existing(item), entries[0].key)
    return trust_changes.Withdrawal(
        keys={entry.key.keyid: good for entry in entries},
        bundles=frozenset(
            item if _DIGEST.fullmatch(item) else trust_files.bundle_digest(support.existing(item))
            for item in named["bundles"]
        ),
        licenses=frozenset(_matching(item, IDENTIFIER, "license id") for item in named["licenses"]),
        devices=frozenset(_matching(item, DEVICE_ID, "device id") for item in named["devices"]),
        floors=dict(map(_floor, named["floors"])),
    )


def _matching(item: str, pattern: str, what: str) -> str:
    if not re.fullmatch(pattern, item):
        raise SealpackError("USAGE", f"{item[:100]!r} is not a {what}")
    return item


def _floor(item: str) -> tuple[str, int]:
    from sealpack.format.trust import NAMESPACE

    bundle_id, _, index = item.partition("=")
    if not NAMESPACE.fullmatch(bundle_id) or not re.fullmatch(r"[0-9]{1,15}", index):
        raise SealpackError("USAGE", f"floor {item[:100]!r} is not like acme/model=3")
    return bundle_id, int(index)


def _withdrawn(what: Withdrawal) -> list[str]:
    lines = [
        f"revoked key {keyid[:16]}, {len(good)} of its documents stay good"
        for keyid, good in sorted(what.keys.items())
    ]
    for kind, names in (("bundle", what.bundles), ("license", what.licenses), ("device", what.devices)):
        lines += [f"revoked {kind} {name}" for name in sorted(names)]
    return lines + [f"floor of {name} is {floor}" for name, floor in sorted(what.floors.items())]


def _private(files: Sequence[str], passphrase_files: Sequence[str]) -> list[Signer]:
    """The private keys; each is opened without a passphrase or with the first one that fits."""
    from sealpack.builder import keyfiles

    passphrases = [Path(path) for path in passphrase_files]
    return [keyfiles.load_with_any(path, passphrases) for path in files]


def _root_signers(root: Root, files: Sequence[str], passphrase_files: Sequence[str]) -> list[Signer]:
    """The root's private keys, each with the ML-DSA key beside it where the root has one for it."""
    from sealpack.builder import keyfiles
    from sealpack.builder.key_uri import is_uri

    keys = _private(files, passphrase_files)
    beside = [
        keyfiles.mldsa_path(Path(path))
        for path, key in zip(files, keys, strict=True)
        if key.keyid in root.mldsa and not is_uri(path)
    ]
    return keys + _private([str(path) for path in beside if path.exists()], passphrase_files)


def _short(key: PublicKey) -> str:
    from sealpack.format.words import fingerprint_words

    return f"{key.keyid[:16]} ({fingerprint_words(key.keyid)})"


def _threshold(trust: Trust) -> str:
    threshold, keyids = trust.root.roles["root"]
    return f"{threshold} of {len(keyids)} keys must sign"


def _finish(before: TrustFile, trust: Trust, changed: list[str], keys: list[PublicKey], fmt: str) -> None:
    """Write both files and say what is new."""
    from sealpack.builder import trust_files
    from sealpack.format.words import fingerprint_words

    after = trust_files.write(before, trust)
    words = fingerprint_words(trust.root_digest)
    result = {
        "schema": "sealpack/trust-changed/v1",
        "path": str(after.path),
        "parcel": str(after.parcel_path),
        "changed": changed,
        "before": _versions(before.trust),
        "after": _versions(trust),
        "root": {"digest": trust.root_digest, "words": words, "follows_from": after.follows_from},
        "keys": [{"keyid": key.keyid, "words": fingerprint_words(key.keyid)} for key in keys],
    }
    versions = ", ".join(f"{kind} v{number}" for kind, number in _versions(trust).items())
    lines = [
        *changed,
        f"now      {versions}",
        f"root     {words}",
        f"wrote    {after.path}",
        f"wrote    {after.parcel_path}: bring it to machines (`sealpack sync`, `sealpack activate install`)",
    ]
    support.emit(result, "\n".join(map(printable, lines)), fmt)


def _versions(trust: Trust) -> dict[str, int]:
    return {
        "root": trust.root.version,
        "keyring": trust.keyring.version,
        "revocations": trust.revocations.version,
    }
