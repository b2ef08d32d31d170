"""Write the license vectors: `python specs/vectors/license/generate.py [FOLDER]`.

Each case is `case.json` and `license.json`, opened with the `trust.json` beside the cases or with its own.
`covers` lists builds (bundle id, version, digest), `covered` whether the license covers them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import json
from typing import Any

from support import world
from support.vectors import Cases
from support.world import CREATOR, LICENSER, STRANGER, T0

from sealpack.format import canonical, documents, dsse
from sealpack.format.dsse import Envelope

LEAST: dict[str, Any] = {
    "license_id": "L-1",
    "seq": 1,
    "issued_at": T0,
    "issuer": world.ISSUER,
    "customer": {"id": "hospital", "name": "Hospital"},
    "bundles": [{"id": "acme/tiny"}],
    "use": {"terms_digest": "0" * 64},
    "devices": {"binding": "none"},
    "tier": "free_dev",
    "billing": "one_time",
}
QUOTA: dict[str, Any] = {
    "meter": "calls", "window": "day", "scope": "device", "cap": 1000, "on_exceed": "deny",
}  # fmt: skip
FULL: dict[str, Any] = LEAST | {
    "bundles": [
        {"id": "acme/tiny", "min_version": "1.2", "max_version": "1.9.9"},
        {"id": "acme/other", "bundle_digest": "ab" * 32},
    ],
    "use": {"terms_digest": "0" * 64, "spdx": "MIT", "allow": ["research"], "deny": ["resale"],
            "attribution": "Acme", "ack_required": True},
    "devices": {"binding": "key+fp", "max": 3, "vm": False, "container": False},
    "environment": "test", "enforcement": "advisory", "support": "help", "device_label": "ward 1",
    "order_ref": "PO 7", "nbf": T0, "exp": T0 + 86400, "grace_s": 86400, "updates_until": T0 + 9,
    "features": ["batch"], "provisional": {"s": 3600, "calls": 10},
    "limits": {"qps": 10, "burst": 20, "inflight": 4, "processes": 2},
    "quota": [QUOTA, QUOTA | {"meter": "ms", "window": "term", "scope": "license", "hard_cap": 2000}],
    "lease": {"required": True, "max_age_s": 100, "warn_s": 10, "on_stale": "throttle",
              "allowance": [{"meter": "calls", "amount": 5}]},
    "receipts": "local", "watermark": "hidden", "plan": {"id": "pro", "version": 2},
    "issued_under": {"root": 1, "revocations": 3},
}  # fmt: skip


PROVISIONAL = {"s": 36_000, "calls": 100}
SITE_KEY = {"bundle_digest": "ab" * 32, "n": 65536, "salt": "01" * 16, "sealed": "02" * 48}


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()

    def add(name: str, description: str, expect: str, envelope: Envelope, **more: Any) -> None:
        files = {"license.json": envelope.to_bytes()}
        if "trust" in more:
            files["trust.json"] = more.pop("trust").to_bytes()
        cases.add(name, description, expect, files, **more)

    add(
        "good",
        "Only what must be there.",
        "ok",
        documents.seal("license", LEAST, LICENSER),
        covers=[["acme/tiny", "1.0.0", "00"], ["acme/tinyx", "1.0.0", "00"]],
        covered=[True, False],
    )
    builds = [["acme/tiny", "1.2.0", "00"], ["acme/tiny", "1.10", "00"], ["acme/tiny", "1.1.9", "00"],
              ["acme/other", "7", "ab" * 32], ["acme/other", "7", "00"]]  # fmt: skip
    add(
        "good-full",
        "Every member; versions compare by number, and 1.2 is 1.2.0.",
        "ok",
        documents.seal("license", FULL, LICENSER),
        covers=builds,
        covered=[True, False, False, True, False],
    )
    unknown = documents.seal("license", LEAST | {"mood": "good"}, LICENSER)
    add("unknown-member", "A member of a later version.", "ok", unknown)
    helped = LEAST | {"clock": {"on_back": "deny"}, "provisional": PROVISIONAL, "site_keys": [SITE_KEY]}
    add("good-kit", "What an install may do today.", "ok", documents.seal("license", helped, LICENSER))
    _fields(add)
    _signers(add)
    cases.write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


def _fields(add: Any) -> None:
    for name, description, members in (
        ("no-id", "No license_id.", {"license_id": None}),
        ("id-path", "A license_id with a slash.", {"license_id": "a/b"}),
        ("seq-0", "seq 0.", {"seq": 0}),
        ("seq-text", "seq is text.", {"seq": "1"}),
        ("seq-true", "seq is true: no number.", {"seq": True}),
        ("negative-time", "A negative time.", {"issued_at": -1}),
        ("exp-before-nbf", "It ends before it starts.", {"nbf": T0, "exp": T0}),
        ("exp-and-term", "An end and a term.", {"exp": T0, "term_s": 1}),
        ("no-bundles", "No bundles member.", {"bundles": None}),
        ("bundle-name", "A bundle id with an empty segment.", {"bundles": [{"id": "acme//tiny"}]}),
        ("bundle-version", "A version that is none.",
         {"bundles": [{"id": "acme/tiny", "min_version": "1.x"}]}),
        ("bundle-digest", "A digest in upper case.",
         {"bundles": [{"id": "acme/tiny", "bundle_digest": "A" * 64}]}),
        ("binding", "An unknown binding.", {"devices": {"binding": "blood"}}),
        ("devices-negative", "Minus one device.", {"devices": {"binding": "key", "max": -1}}),
        ("billing", "An unknown billing shape.", {"billing": "barter"}),
        ("quota-meter", "An unknown meter.", {"quota": [QUOTA | {"meter": "miles"}]}),
        ("quota-window", "An unknown window.", {"quota": [QUOTA | {"window": "week"}]}),
        ("quota-hard-cap", "A hard cap below the cap.", {"quota": [QUOTA | {"hard_cap": 999}]}),
        ("quota-negative", "A negative cap.", {"quota": [QUOTA | {"cap": -1}]}),
        ("lease-stale", "An unknown on_stale.", {"lease": {"required": True, "on_stale": "explode"}}),
        ("lease-meter", "An allowance of an unknown meter.",
         {"lease": {"required": True, "allowance": [{"meter": "miles", "amount": 1}]}}),
        ("qps-negative", "A negative rate.", {"limits": {"qps": -1}}),
        ("terms-digest", "A short terms digest.", {"use": {"terms_digest": "00"}}),
        ("environment", "An unknown environment.", {"environment": "staging"}),
        ("receipts", "Unknown receipts.", {"receipts": "maybe"}),
        ("plan-version", "A plan of version 0.", {"plan": {"id": "pro", "version": 0}}),
        ("schema", "A license of another version.", {"schema": "sealpack/license/v2"}),
        ("issued-under", "It states the root and not the revocations.", {"issued_under": {"root": 1}}),
        ("tier-long", "A tier of 65 characters.", {"tier": "t" * 65}),
        ("on-back", "An unknown on_back.", {"clock": {"on_back": "stop"}}),
        ("site-key-work", "A site key that asks for 256 MiB.", {"site_keys": [SITE_KEY | {"n": 1 << 18}]}),
        ("site-key-odd", "A site key of work that is no power of two.",
         {"site_keys": [SITE_KEY | {"n": 40_000}]}),
        ("site-key-short", "A site key that is cut short.",
         {"site_keys": [SITE_KEY | {"sealed": "00" * 47}]}),
    ):  # fmt: skip
        add(f"field-{name}", description, "LIC_SCHEMA", sealed(members))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", sealed({"crit": ["dongle"]}))


def sealed(members: dict[str, Any]) -> Envelope:
    """The least license with other members (None: removed), signed by the license key."""
    value = {"schema": "sealpack/license/v1"} | LEAST | members
    body = canonical.dumps({k: v for k, v in value.items() if v is not None})
    return dsse.sign(documents.payload_type("license"), body, LICENSER)


def _signers(add: Any) -> None:
    good = documents.seal("license", LEAST, LICENSER)
    add("stranger", "Signed by a stranger.", "LIC_KEY_UNTRUSTED", documents.seal("license", LEAST, STRANGER))
    add(
        "creator",
        "Signed by a key for bundles.",
        "LIC_KEY_UNTRUSTED",
        documents.seal("license", LEAST, CREATOR),
    )
    changed = Envelope(good.payload_type, good.payload.replace(b'"seq":1', b'"seq":2'), good.signatures)
    add("changed", "One number was changed.", "LIC_SIG_INVALID", changed)
    cut = Envelope(good.payload_type, good.payload, (dsse.Signature(LICENSER.keyid, b"\x30\x00"),))
    add("signature-der", "A signature that is not DER.", "LIC_SIG_INVALID", cut)
    add(
        "two-signatures",
        "Two signatures.",
        "LIC_UNREADABLE",
        documents.seal("license", LEAST, LICENSER, CREATOR),
    )
    add("other-kind", "A lease.", "DOC_TYPE", documents.seal("lease", LEAST, LICENSER))
    add(
        "foreign-kind",
        "A payload type of somebody else.",
        "DOC_TYPE",
        dsse.sign("application/vnd.in-toto+json", good.payload, LICENSER),
    )
    spaced = dsse.sign(good.payload_type, json.dumps(json.loads(good.payload)).encode(), LICENSER)
    add("not-canonical", "Signed with spaces.", "JSON_INVALID", spaced)
    add(
        "other-namespace",
        "A bundle outside the key's namespaces.",
        "LIC_KEY_UNTRUSTED",
        sealed({"bundles": [{"id": "acme/tiny"}, {"id": "other/model"}]}),
    )
    add(
        "other-issuer",
        "An issuer that is not the key's owner.",
        "LIC_KEY_UNTRUSTED",
        sealed({"issuer": "Another Vendor"}),
    )
    revoked = {"keyid": LICENSER.keyid, "good": []}
    add(
        "key-revoked",
        "The license key was revoked.",
        "KEY_REVOKED",
        good,
        trust=world.make_trust(keys=[revoked]),
    )
    add(
        "key-revoked-good",
        "The key was revoked, this license stays good.",
        "ok",
        good,
        trust=world.make_trust(keys=[revoked | {"good": [good.digest]}]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
