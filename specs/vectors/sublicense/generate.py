"""Write the sub-license vectors: `python specs/vectors/sublicense/generate.py [FOLDER]`.

Each case is `case.json`, `parent.json` and `sublicense.json`, opened with the `trust.json` beside the cases
or with its own. `license` is what counts: the meet, as a license without `schema`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from typing import Any

from support import world
from support.vectors import Cases
from support.world import LICENSER, T0

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.format.license import open_license
from sealpack.format.sublicense import open_sublicense

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
OTHER = PrivateKey.from_seed(b"sealpack-test-delegate-of-others")
QUOTA = {"meter": "calls", "window": "term", "scope": "license", "cap": 1000, "hard_cap": 2000,
         "on_exceed": "bill"}  # fmt: skip
DAILY = {"meter": "tok_out", "window": "day", "scope": "device", "cap": 500, "on_exceed": "deny"}
PARENT: dict[str, Any] = {
    "license_id": "L-1", "seq": 1, "issued_at": T0, "issuer": world.ISSUER,
    "customer": {"id": "group", "name": "Hospital Group"},
    "bundles": [{"id": "acme/tiny", "min_version": "1.0", "max_version": "1.9"},
                {"id": "acme/words", "bundle_digest": "ab" * 32}],
    "use": {"terms_digest": "1" * 64, "spdx": "MIT", "allow": ["business", "research"], "deny": ["resale"],
            "attribution": "Acme", "ack_required": True},
    "devices": {"binding": "key", "max": 10, "vm": False, "container": True},
    "tier": "commercial", "billing": "metered", "nbf": T0, "exp": T0 + 10_000, "grace_s": 60,
    "updates_until": T0 + 5_000, "features": ["batch", "stream"], "provisional": {"s": 3600, "calls": 10},
    "limits": {"qps": 10, "inflight": 4}, "quota": [QUOTA, DAILY],
    "lease": {"required": True, "max_age_s": 100, "warn_s": 30, "on_stale": "throttle",
              "allowance": [{"meter": "calls", "amount": 50}]},
    "plan": {"id": "pro", "version": 2}, "watermark": "hidden", "clock": {"on_back": "deny"},
    "delegation": {"keys": [DELEGATE.public.pem], "max_devices": 5},
}  # fmt: skip
NARROWER: dict[str, Any] = {
    "customer": {"id": "ward-3", "name": "Ward 3"}, "support": "it@group.example",
    "bundles": [{"id": "acme/tiny", "min_version": "1.2", "max_version": "1.5"}],
    "use": {"allow": ["research"], "deny": ["resale", "military"]},
    "devices": {"binding": "key+fp", "max": 1, "container": False}, "nbf": T0 + 1, "exp": T0 + 9_000,
    "grace_s": 0, "updates_until": T0, "features": ["batch"], "provisional": {"calls": 1},
    "limits": {"qps": 5, "burst": 8, "processes": 1},
    "quota": [{"meter": "calls", "window": "term", "scope": "device", "cap": 40, "on_exceed": "deny"},
              {"meter": "ms", "window": "month", "scope": "license", "cap": 9, "on_exceed": "warn"}],
    "lease": {"max_age_s": 50, "warn_s": 40, "on_stale": "deny", "allowance": [{"meter": "ms", "amount": 7}]},
}  # fmt: skip
TERM = {name: value for name, value in PARENT.items() if name != "exp"} | {"term_s": 500}
LATER = PARENT | {
    "seq": 2, "exp": T0 + 50, "limits": {"qps": 1}, "devices": {"binding": "key+fp", "max": 4},
    "bundles": [{"id": "acme/tiny", "max_version": "1.3"}], "quota": [QUOTA | {"cap": 10, "hard_cap": 20}],
    "use": {"terms_digest": "2" * 64, "allow": ["any"]},
}  # fmt: skip


def seal_parent(members: dict[str, Any]) -> Envelope:
    """The parent as its issuer signs it."""
    return documents.seal("license", members, LICENSER)


def seal_sub(stated: dict[str, Any], above: Envelope, key: PrivateKey = DELEGATE, **own: Any) -> Envelope:
    """A sub-license written under that parent."""
    members = documents.payload_fields(above, "license")
    name, seq = members.text("license_id"), members.integer("seq")
    parent = {"license_id": name, "seq": seq, "digest": above.digest}
    return documents.seal(
        "sublicense",
        {**stated, "license_id": f"{name}.ward", "seq": 1, "issued_at": T0 + 7, "parent": parent, **own},
        key,
    )


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()
    trust = world.make_trust()

    def add(
        name: str, description: str, sub: Envelope, above: Envelope, expect: str = "ok", **more: Any
    ) -> None:
        files = {"sublicense.json": sub.to_bytes(), "parent.json": above.to_bytes()}
        if "trust" in more:
            files["trust.json"] = more["trust"].to_bytes()
        facts: dict[str, Any] = {}
        if expect == "ok":
            believed = more.get("trust", trust)
            facts["license"] = open_sublicense(sub, believed, open_license(above, believed)).license.to_dict()
        cases.add(name, description, expect, files, **facts)

    above, later, term = seal_parent(PARENT), seal_parent(LATER), seal_parent(TERM)
    add(
        "good-silent",
        "Nothing stated: quotas shared out by seats.",
        seal_sub({}, above),
        above,
    )
    add("good-narrower", "Every member narrower.", seal_sub(NARROWER, above), above)
    add("good-later-parent", "A later, narrower parent bounds it.", seal_sub(NARROWER, above), later)
    add("good-term", "An end under a parent with a term: both count.", seal_sub({"exp": T0 + 5}, term), term)
    wide = {
        "bundles": [{"id": "acme/talk"}], "use": {"allow": ["resale"]}, "devices": {"max": 6},
        "tier": "gold", "billing": "one_time", "environment": "test", "enforcement": "advisory",
        "nbf": T0 - 1, "exp": T0 + 10_001, "grace_s": 61, "updates_until": T0 + 5_001,
        "features": ["secret"], "provisional": {"s": 3601}, "limits": {"burst": 11},
        "quota": [QUOTA], "lease": {"max_age_s": 101}, "receipts": "local", "watermark": "no",
        "plan": {"id": "free"}, "clock": {"on_back": "continue"}, "issuer": "Another",
        "issued_under": {"root": 1, "revocations": 1}, "site_keys": [],
    }  # fmt: skip
    invalid = "SUBLICENSE_INVALID"
    for name, value in wide.items():
        folder_name = f"wider-{name.replace('_', '-')}"
        add(folder_name, f"A wider {name}.", seal_sub({name: value}, above), above, invalid)
    add("wider-term", "A longer term.", seal_sub({"term_s": 501}, term), term, invalid)
    for name, problem, sub in (
        ("delegation", "It hands on.", seal_sub({"delegation": {"keys": []}}, above)),
        ("name", "Its id is not below the parent's.", seal_sub({}, above, license_id="L-2.ward")),
        ("name-deep", "Its id is two steps below.", seal_sub({}, above, license_id="L-1.a.b")),
        ("name-none", "Its id is the parent's.", seal_sub({}, above, license_id="L-1")),
        ("negative", "A negative quantity.", seal_sub({"limits": {"qps": -1}}, above)),
        ("seq-0", "Number 0.", seal_sub({}, above, seq=0)),
        ("other-delegate", "Signed by another license's delegate.", seal_sub({}, above, OTHER)),
        ("newer-parent", "Written under a later parent than this.", seal_sub({}, later)),
    ):
        add(name, problem, sub, above, invalid)
    gone = seal_parent({name: value for name, value in LATER.items() if name != "delegation"})
    add("superseded", "The parent has no delegate any more.", seal_sub({}, above), gone, invalid)
    listed = seal_parent(PARENT | {"delegation": {"keys": [world.CREATOR.public.pem]}})
    add("keyring-key", "A key of the keyring.", seal_sub({}, listed, world.CREATOR), listed, invalid)
    good, other = seal_sub({}, above), seal_sub({"exp": T0 + 2}, above)
    changed = Envelope(good.payload_type, other.payload, good.signatures)
    add("changed", "Another payload under the signature.", changed, above, "SIG_INVALID")
    add("crit", "A name in crit.", seal_sub({}, above, crit=["mood"]), above, "DOC_CRIT")
    add("kind", "A license in its place.", above, above, "DOC_TYPE")
    revoked = world.make_trust(keys=[{"keyid": DELEGATE.keyid, "good": [good.digest]}])
    add("revoked-key", "Its delegate's key was revoked.", other, above, "KEY_REVOKED", trust=revoked)
    add("revoked-key-good", "The same, but this one is listed as good.", good, above, trust=revoked)
    cases.write(folder)
    (folder / "trust.json").write_bytes(trust.to_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
