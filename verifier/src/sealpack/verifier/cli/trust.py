"""`sealpack trust`: the group, and `trust show`. The other sub-verbs live with the part they need."""

from __future__ import annotations

from typing import Any

import click

from sealpack.format.errors import printable
from sealpack.format.keys import ML_DSA
from sealpack.format.trust import Trust
from sealpack.format.words import fingerprint_words
from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import VerbGroup


@click.group(
    cls=VerbGroup, group="sealpack.verbs.trust", short_help="Make, change, look at or pin a trust file."
)
def trust() -> None:
    """Make, change, look at or pin a trust file."""


def describe(trust: Trust) -> dict[str, Any]:
    """A trust file's content as plain values."""
    return {
        "schema": "sealpack/trust-summary/v1",
        "root": {
            "version": trust.root.version,
            "digest": trust.root_digest,
            "words": fingerprint_words(trust.root_digest),
            "roles": {
                role: {
                    "threshold": threshold,
                    "keys": sorted(keyids),
                    "post_quantum": trust.root.post_quantum(role),
                }
                for role, (threshold, keyids) in trust.root.roles.items()
            },
        },
        "keyring": {
            "version": trust.keyring.version,
            "keys": [
                {
                    "keyid": e.key.keyid,
                    "scheme": e.key.scheme,
                    "mldsa_keyid": None if e.mldsa is None else e.mldsa.keyid,
                    "required_schemes": sorted(e.schemes),
                    "since": e.since,
                    "issuer": e.issuer,
                    "status": e.status,
                    "roles": sorted(e.roles),
                    "namespaces": list(e.namespaces),
                }
                for e in trust.keyring.entries.values()
            ],
        },
        "revocations": {
            "version": trust.revocations.version,
            "keys": sorted(trust.revocations.keys),
            "bundles": sorted(trust.revocations.bundles),
            "licenses": sorted(trust.revocations.licenses),
            "devices": sorted(trust.revocations.devices),
            "floors": dict(sorted(trust.revocations.floors.items())),
        },
    }


@click.command(short_help="Print what a trust file says.")
@click.argument("file", type=click.Path(dir_okay=False))
@support.format_option
def show(file: str, fmt: str) -> None:
    """Print the root's fingerprint, the keys and what is revoked in the trust file FILE."""
    summary = describe(support.load_trust(file))
    root, keyring, lists = summary["root"], summary["keyring"], summary["revocations"]
    lines = [
        f"root v{root['version']}  {root['digest']}",
        f"  words  {root['words']}",
        f"  {_threshold(root)}",
        f"keyring v{keyring['version']}",
    ]
    width = max((len(_schemes(k)) for k in keyring["keys"]), default=0)
    lines += [
        f"  {k['keyid'][:16]}  {_schemes(k):<{width}}  {k['issuer']}: {', '.join(k['roles'])}"
        f" for {', '.join(k['namespaces'])} ({'revoked' if k['keyid'] in lists['keys'] else k['status']})"
        for k in keyring["keys"]
    ]
    counts = ", ".join(f"{len(lists[n])} {n}" for n in ("keys", "bundles", "licenses", "devices", "floors"))
    lines.append(f"revocations v{lists['version']}: {counts}")
    for name in ("key", "bundle", "license", "device"):
        lines += [f"  {name:<7}  {withdrawn}" for withdrawn in lists[f"{name}s"]]
    lines += [f"  floor    {bundle}: release {index} or newer" for bundle, index in lists["floors"].items()]
    support.emit(summary, "\n".join(map(printable, lines)), fmt)


def _threshold(root: dict[str, Any]) -> str:
    """How many root keys must sign: in one phrase, or by role where the roles differ."""
    asked = {role: f"{told['threshold']} of {len(told['keys'])}" for role, told in root["roles"].items()}
    if len(set(asked.values())) == 1:
        return f"{asked['root']} root keys must sign every change"
    return ", ".join(f"{role}: {count} root keys" for role, count in asked.items())


def _schemes(entry: dict[str, Any]) -> str:
    """The key's scheme, and the second one with whether it is required."""
    if entry["mldsa_keyid"] is None:
        return str(entry["scheme"])
    needed = ML_DSA in entry["required_schemes"]
    return f"{entry['scheme']}+{ML_DSA}" + ("" if needed else " (optional)")
