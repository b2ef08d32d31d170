"""A customer's site: a state directory, a vendor that answers its requests, and runnable bundles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import WrappedKey
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, Customer, Devices, License, Use
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, device, imports, store
from sealpack.runtime.home import Home, open_home
from sealpack.runtime.state import State
from support import world

T0 = world.T0
TERMS = "11" * 32
CLASSIFIER_IO: dict[str, Any] = {
    "task": "classification",
    "pre": {"kind": "tensor"},
    "post": {"kind": "labels", "output": "scores", "labels": ["a", "b"], "softmax": True},
    "samples": [
        {"input": {"inputs": {"x": [["2", "1.5", 0]]}}, "expect": {"label": "b"}},
        {"input": {"inputs": {"x": [[1, 2, 0]]}}, "expect": {"label": "a"}},
    ],
}
EMBEDDER_IO: dict[str, Any] = {
    "task": "embedding",
    "pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt", "max_tokens": 8},
    "post": {"kind": "embedding", "output": "sentence_embedding"},
}
INPUT = {"x": [[2, 1, 0]]}  # the classifier says "b"


def make_license(**members: Any) -> License:
    """A license for everything of the vendor, bound to a device key; fields as told."""
    default = License(
        license_id="L-1",
        seq=1,
        issued_at=T0,
        issuer=world.ISSUER,
        customer=Customer("hospital", "Hospital Nord"),
        bundles=(BundleGrant("acme/tiny"), BundleGrant("acme/words"), BundleGrant("acme/talk")),
        use=Use(TERMS),
        devices=Devices("key"),
        tier="commercial",
        billing="metered",
        support="help@acme.example",
        device_label="ward 3",
    )
    return replace(default, **members)


def seal_license(license: License) -> Envelope:
    """Sign a license as the vendor does."""
    return documents.seal("license", license.to_dict(), world.LICENSER)


@dataclass
class Site:
    """One device. `models` are the tiny models of tests/runtime/conftest.py."""

    folder: Path
    models: dict[str, Path]
    trust: Trust

    @property
    def state_dir(self) -> Path:
        """Where this device keeps its state."""
        return self.folder / "state"

    @property
    def home(self) -> Home:
        """The checked state directory."""
        return open_home(self.state_dir)

    def state(self) -> State:
        """A new connection to the state."""
        return State(self.home)

    def pin(self) -> Site:
        """Believe the vendor's root."""
        with self.state() as state:
            anchors.pin(state, self.trust)
        return self

    def bundle(self, name: str = "tiny", **members: Any) -> Path:
        """Write a runnable bundle: tiny (classifier), words (embedder) or talk (language model)."""
        spec = world.BundleSpec(
            **({"bundle_id": f"acme/{name}"} | getattr(self, f"_{name}", dict)() | members)
        )
        path = self.folder / f"{name}-{spec.version}.sealpack"
        path.write_bytes(spec.build())
        return path

    def _tiny(self) -> dict[str, Any]:
        model = self.models["classifier"]
        data = model.with_name("tiny.onnx.data").read_bytes()
        extra = {"payload/tiny.onnx.data": ("model-data", "application/octet-stream", data)}
        return self._onnx(model, CLASSIFIER_IO, extra)

    def _words(self) -> dict[str, Any]:
        vocabulary = self.models["vocab"].read_bytes()
        extra = {"payload/vocab.txt": ("vocabulary", "text/plain", vocabulary)}
        return self._onnx(self.models["embedder"], EMBEDDER_IO, extra)

    def _onnx(self, model: Path, io: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        return {
            "kind": "onnx",
            "model_name": "payload/model.onnx",
            "model": model.read_bytes(),
            "io": io,
            "extra": extra,
            "engine": {"name": "onnxruntime"},
        }

    def _talk(self) -> dict[str, Any]:
        return {"model": self.models["llama"].read_bytes()}

    def install(self, name: str = "tiny", **members: Any) -> store.Installed:
        """Build and install a bundle."""
        path = self.bundle(name, **members)
        with self.state() as state:
            return store.install(state, path, T0)

    def request(self) -> ActivationRequest:
        """Make an activation request and read it as the vendor does."""
        with self.state() as state:
            return ActivationRequest.open(device.request(state, self.trust, T0))

    def reply(
        self,
        request: ActivationRequest,
        license: License,
        ceilings: dict[str, int] | None = None,
        keys: tuple[WrappedKey, ...] = (),
    ) -> Parcel:
        """The vendor's answer: license, activation (with the keys of encrypted builds) and first lease."""
        envelope = seal_license(license)
        activation = Activation(
            license.license_id,
            envelope.digest,
            request.device_id,
            request.device_key,
            request.digest,
            request.nonce,
            T0,
            keys=keys,
            fingerprint=request.fingerprint,
        )
        lease = self.lease(request.device_id, license.license_id, 1, ceilings or {})
        answer = documents.seal("activation", activation.to_dict(), world.LICENSER)
        return Parcel((envelope, answer, lease))

    def lease(
        self, device_id: str, license_id: str, seq: int, ceilings: dict[str, int], **more: Any
    ) -> Envelope:
        """A signed lease with ceilings by meter."""
        made = Lease(
            license_id,
            device_id,
            more.get("epoch", 0),
            seq,
            more.get("issued_at", T0),
            more.get("expires"),
            tuple(Ceiling(meter, limit) for meter, limit in ceilings.items()),
        )
        return documents.seal("lease", made.to_dict(), world.SETTLEMENT)

    def activate(
        self, license: License | None = None, ceilings: dict[str, int] | None = None
    ) -> imports.Taken:
        """Request, answer, import."""
        parcel = self.reply(self.request(), license or make_license(), ceilings)
        return self.take(parcel)

    def take(self, *parcels: Parcel) -> imports.Taken:
        """Import documents."""
        with self.state() as state:
            return imports.take(state, parcels)

    def ready(self, license: License | None = None, ceilings: dict[str, int] | None = None) -> Site:
        """Pinned, installed and activated."""
        self.pin()
        self.install()
        self.activate(license, ceilings)
        return self

    def ready_beside_another_issuer(self) -> PrivateKey:
        """:meth:`ready`, under a keyring that also lists this `ack` key of another issuer."""
        stranger = PrivateKey.from_seed(b"sealpack-test-other-settlement-1")
        entries = [
            world.key_entry(world.CREATOR, ["bundle"]),
            world.key_entry(world.LICENSER, ["license"]),
            world.key_entry(world.SETTLEMENT, ["settlement", "ack", "witness"]),
            world.key_entry(stranger, ["ack"]) | {"issuer": "Other Models (test)"},
        ]
        self.ready()
        self.take(Parcel((world.make_keyring(2, entries),)))
        return stranger

    def acknowledge(self, size: int, root: str, ack_seq: int, **members: Any) -> Parcel:
        """Settlement's reply for the log of L-1 on this device."""
        name = device.name(device.key(self.home))
        made = Acknowledgement(
            f"sealpack/usage/L-1/{name}/0", "L-1", name, 0, size, root, ack_seq, T0, **members
        )
        return Parcel((documents.seal("acknowledgement", made.to_dict(), world.SETTLEMENT),))
