"""Encrypted bundles on a device: they run, and every way to the weights without the right is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import scan, world
from support.encrypted import INPUT_KEY, EncryptedSpec, repacked
from support.site import INPUT, T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import canonical
from sealpack.format.activation import ActivationRequest
from sealpack.format.container import MIMETYPE
from sealpack.format.documents import Parcel
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices
from sealpack.runtime import device, secret_memory, store
from sealpack.runtime.engines import stdio

pytest.importorskip("onnxruntime")

OTHER_DIGEST = "cd" * 32


def spec_of(site: Site, name: str, **members: Any) -> EncryptedSpec:
    """An encrypted bundle of the site's tiny model `name`."""
    if name == "talk":
        pytest.importorskip("llama_cpp")
    values = {"bundle_id": f"acme/{name}"} | getattr(site, f"_{name}")()
    spec = EncryptedSpec(**values)
    for member, value in members.items():
        setattr(spec, member, value)
    return spec


def put(site: Site, data: bytes) -> store.Installed:
    path = site.folder / "e.sealpack"
    path.write_bytes(data)
    with site.state() as state:
        return store.install(state, path, T0)


def keys_for(request: ActivationRequest, *digests: str, key: bytes = INPUT_KEY) -> tuple[WrappedKey, ...]:
    assert request.hpke_key is not None
    return tuple(request.hpke_key.wrap(key, digest, "L-1", request.device_id) for digest in digests)


def answer(site: Site, request: ActivationRequest, keys: tuple[WrappedKey, ...], **members: Any) -> Parcel:
    """The vendor's reply with these keys."""
    return site.reply(request, make_license(**members), keys=keys)


def ready(site: Site, name: str = "tiny", **members: Any) -> store.Installed:
    """Pinned, installed, and activated with the build's key."""
    site.pin()
    installed = put(site, spec_of(site, name, **members).build())
    request = site.request()
    site.take(answer(site, request, keys_for(request, installed.bundle_digest)))
    return installed


def use(site: Site, name: str = "tiny") -> dict[str, Any]:
    with sealpack.runtime.open(f"acme/{name}", state=site.state_dir, threads=1) as runtime:
        if name == "tiny":
            return runtime.infer(INPUT).value
        if name == "words":
            return runtime.embed(["hello world"]).value
        return runtime.generate("the", max_tokens=8).value


def refused(site: Site, name: str = "tiny") -> str:
    with pytest.raises(SealpackError) as caught:
        use(site, name)
    return caught.value.code


@pytest.mark.parametrize("name", ["tiny", "words", "talk"])
def test_answers_are_those_of_the_plain_bundle(site: Site, tmp_path: Path, name: str) -> None:
    ready(site, name)
    plain = Site(tmp_path / "plain", site.models, site.trust)
    plain.folder.mkdir()
    if name == "talk":
        pytest.importorskip("llama_cpp")
    plain.pin().install(name)
    plain.activate()
    assert use(site, name) == use(plain, name)


def test_a_gguf_model_through_a_sealed_memory_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(site, "talk")
    by_callbacks = use(site, "talk")
    monkeypatch.setattr(stdio, "_fopencookie", None)
    assert use(site, "talk") == by_callbacks

    def none(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(secret_memory, "memory_file", none)
    assert refused(site, "talk") == "ENGINE_FAILED"


# --- keys -------------------------------------------------------------------------------------------


def activated(site: Site, *digests: str, key: bytes = INPUT_KEY) -> None:
    request = site.request()
    site.take(answer(site, request, keys_for(request, *digests, key=key)))


def test_an_activation_without_the_key(site: Site) -> None:
    site.pin()
    put(site, spec_of(site, "tiny").build())
    activated(site)
    assert refused(site) == "KEY_UNWRAP"
    activated(site, OTHER_DIGEST)  # the key of another build only
    assert refused(site) == "KEY_UNWRAP"


def test_a_wrapped_key_of_another_bundle_under_this_ones_name(site: Site) -> None:
    installed = put(site.pin(), spec_of(site, "tiny").build())
    request = site.request()
    (wrapped,) = keys_for(request, OTHER_DIGEST)
    moved = WrappedKey(installed.bundle_digest, wrapped.enc_ct)
    site.take(answer(site, request, (moved,)))
    assert refused(site) == "KEY_UNWRAP"


def test_a_key_that_was_wrapped_for_another_device(site: Site, tmp_path: Path) -> None:
    installed = put(site.pin(), spec_of(site, "tiny").build())
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", site.models, site.trust).pin()
    site.take(answer(site, site.request(), keys_for(other.request(), installed.bundle_digest)))
    assert refused(site) == "KEY_UNWRAP"


def test_a_wrong_input_key_stops_at_the_commitment(site: Site) -> None:
    installed = put(site.pin(), spec_of(site, "tiny").build())
    activated(site, installed.bundle_digest, key=bytes(32))
    assert refused(site) == "KEY_UNWRAP"


def test_a_device_that_lost_its_key(site: Site) -> None:
    ready(site)
    path = site.home.hpke_key
    seed = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(bytes(32))
    assert refused(site) == "KEY_UNWRAP"
    path.write_bytes(seed + b"\n")
    assert refused(site) == "STATE_TAMPERED"
    path.unlink()
    assert refused(site) == "DEVICE_KEY_MISSING"
    path.write_bytes(seed)
    assert use(site)


def test_the_hybrid_key_is_made_once(site: Site) -> None:
    first, second = site.pin().request(), site.request()
    assert first.hpke_key == second.hpke_key
    assert first.hpke_key == device.hpke_key(site.home).public


def test_a_license_that_binds_no_device_opens_nothing(site: Site) -> None:
    site.pin()
    put(site, spec_of(site, "tiny").build())
    site.take(Parcel((seal_license(make_license(devices=Devices("none"))),)))
    assert refused(site) == "KEY_UNWRAP"


def test_a_revoked_license_is_refused_before_the_key_is_touched(site: Site) -> None:
    ready(site)
    site.home.hpke_key.unlink()  # would be DEVICE_KEY_MISSING
    site.take(Parcel((world.make_revocations(2, licenses=["L-1"]),)))
    assert refused(site) == "LIC_REVOKED"


def test_state_copied_to_another_machine(site: Site, tmp_path: Path) -> None:
    """Documents, store and database without the device's keys; then with only one of them."""
    ready(site)
    folder = tmp_path / "thief"
    shutil.copytree(site.state_dir, folder / "state", copy_function=shutil.copy2)
    thief = Site(folder, site.models, site.trust)
    keys = {p.name: p.read_bytes() for p in (thief.home.device_key, thief.home.hpke_key)}
    for path in (thief.home.device_key, thief.home.hpke_key):
        path.unlink()
    assert refused(thief) == "DEVICE_KEY_MISSING"
    thief.request()  # makes keys of its own
    assert refused(thief) == "DEVICE_MISMATCH"
    thief.home.device_key.write_bytes(keys["device.key"])
    assert refused(thief) == "KEY_UNWRAP"


# --- bundles ----------------------------------------------------------------------------------------


def install_refused(site: Site, data: bytes) -> str:
    with pytest.raises(SealpackError) as caught:
        put(site.pin(), data)
    assert not list(site.home.store.iterdir())
    return caught.value.code


def test_the_encrypted_flag_stripped(site: Site) -> None:
    spec = spec_of(site, "tiny")

    def strip(members: dict[str, bytes]) -> None:
        value = json.loads(members["manifest.json"])
        del value["encryption"], value["crit"]
        members["manifest.json"] = canonical.dumps(value)

    assert install_refused(site, repacked(spec, strip)) == "DIGEST_MISMATCH"
    members = spec.members()
    strip(members)  # by somebody who may sign
    signed = world.pack({"mimetype": MIMETYPE, "META/model.sig": spec.sign(members), **members})
    assert install_refused(site, signed) == "MANIFEST_MISMATCH"


def test_another_commitment_at_the_head_of_the_stored_file(site: Site) -> None:
    def change(stored: dict[str, bytes]) -> None:
        name = "payload/model.onnx"
        stored[name] = stored[name][:30] + bytes([stored[name][30] ^ 1]) + stored[name][31:]

    assert install_refused(site, spec_of(site, "tiny", change=change).build()) == "MANIFEST_MISMATCH"


def overwrite(installed: store.Installed, site: Site, change: Any) -> None:
    """Change the store's copy behind the runtime's back, as the same user can."""
    path = installed.path(site.home)
    data = change(path.read_bytes())
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


@pytest.mark.parametrize("name", ["tiny", "talk"])
def test_ciphertext_changed_in_the_store_is_found_while_it_is_opened(site: Site, name: str) -> None:
    """Plain bundles trust the store's copy; what is decrypted is compared with its leaves every time."""
    spec = spec_of(site, name)
    installed = ready(site, name)
    stored = spec.members()[spec.model_name]

    def flip(data: bytes) -> bytes:
        at = data.index(stored) + len(stored) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    overwrite(installed, site, flip)
    assert refused(site, name) == "CHUNK_MISMATCH"


def test_weights_encrypted_anew_under_the_true_key(site: Site) -> None:
    """Another licensee has the build's key: every tag fits, the leaf does not."""
    installed = ready(site, "talk")
    spec = spec_of(site, "talk")
    other = spec_of(site, "talk")
    other.model = other.model[:-1] + bytes([other.model[-1] ^ 1])
    true, forged = (s.members()[s.model_name] for s in (spec, other))
    assert len(true) == len(forged) and true[:56] == forged[:56]
    overwrite(installed, site, lambda data: data.replace(true, forged))
    assert refused(site, "talk") == "CHUNK_MISMATCH"


def test_a_signer_whose_chunks_do_not_open(site: Site) -> None:
    """Leaves fit, because a signer made them; the tag does not."""

    def swap(stored: dict[str, bytes]) -> None:
        name = next(n for n in stored if len(stored[n]) > 56 + 2 * 16400)
        data = stored[name]
        stored[name] = data[:56] + data[16456:32856] + data[56:16456] + data[32856:]

    ready(site, "talk", change=swap)
    assert refused(site, "talk") == "DIGEST_MISMATCH"


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (b"no model at all, whatever one calls it", "MANIFEST_MISMATCH"),
        (b"GGUF\3\0\0\0" + b"\xff" * 16, "MODEL_UNSAFE"),
    ],
)
def test_what_verify_could_not_see_is_looked_at_before_a_parser_does(
    site: Site, model: bytes, code: str
) -> None:
    ready(site, "talk", model=model)
    assert refused(site, "talk") == code


def test_an_onnx_model_that_reaches_for_another_file(site: Site) -> None:
    ready(site, "tiny", extra={})
    assert refused(site, "tiny") == "MODEL_UNSAFE"


# --- nothing readable -------------------------------------------------------------------------------

PROGRAM = """
import sys
import sealpack.runtime
name, state = sys.argv[1:3]
print("up", flush=True)
for line in sys.stdin:
    with sealpack.runtime.open(f"acme/{name}", state=state, threads=1) as runtime:
        if name == "talk":
            runtime.generate("the", max_tokens=4)
        else:
            runtime.infer({"x": [[2, 1, 0]]})
        print("done", flush=True)
        sys.stdin.readline()
    print("closed", flush=True)
"""


def markers_of(spec: world.BundleSpec) -> list[bytes]:
    """Stretches of the plain weights that stand nowhere else."""
    data = [spec.model, *(d for role, _, d in spec.extra.values() if role == "model-data")]
    return [piece[at : at + 24] for piece in data for at in (0, len(piece) // 2, max(0, len(piece) - 24))]


@pytest.mark.parametrize("name", ["tiny", "talk", "talk by memfd"])
def test_no_plaintext_on_disk_or_in_any_descriptor(site: Site, tmp_path: Path, name: str) -> None:
    name, _, memfd = name.partition(" ")
    markers = markers_of(spec_of(site, name))
    ready(site, name)
    assert not scan.found(markers, [site.state_dir], []), "before"
    temporary, home = tmp_path / "tmp", tmp_path / "home"
    temporary.mkdir(), home.mkdir()
    settings = {"TMPDIR": str(temporary), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    program = PROGRAM
    if memfd:
        program = "from sealpack.runtime.engines import stdio; stdio._fopencookie = None\n" + program
    child = subprocess.Popen(
        [sys.executable, "-c", program, name, str(site.state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
        cwd=home,
    )
    assert child.stdin is not None and child.stdout is not None
    folders, rounds = [site.state_dir, temporary, home, Path("/dev/shm")], 0
    try:
        assert child.stdout.readline() == "up\n"
        for _ in range(3):
            print("go", file=child.stdin, flush=True)
            os.set_blocking(child.stdout.fileno(), False)
            said = ""
            while "done" not in said and child.poll() is None:  # while it loads and answers
                # A memory file is written before it is sealed; callbacks need none.
                assert not scan.found(markers, folders, [child.pid], memory_files=not memfd)
                rounds += 1
                said += child.stdout.readline() or ""
            assert not scan.found(markers, folders, [child.pid])
            print("close", file=child.stdin, flush=True)
            os.set_blocking(child.stdout.fileno(), True)
            assert child.stdout.readline() == "closed\n"
    finally:
        child.stdin.close()
        child.wait(30)
        child.stdout.close()
    assert child.returncode == 0 and rounds >= 3
    assert not scan.found(markers, folders, []), "after"


def test_the_scan_finds_plaintext_where_there_is_some(site: Site, tmp_path: Path) -> None:
    spec = spec_of(site, "tiny")
    plain = world.BundleSpec(**{f.name: getattr(spec, f.name) for f in dataclasses.fields(world.BundleSpec)})
    markers = markers_of(spec)
    path = tmp_path / "plain.sealpack"
    path.write_bytes(plain.build())
    assert scan.found(markers, [tmp_path], []) >= {str(path)}
    with path.open("rb") as file:
        path.unlink()
        assert f"/proc/{os.getpid()}/fd/{file.fileno()}" in scan.found(markers, [tmp_path], [os.getpid()])
    descriptor = os.memfd_create("plain", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, spec.model)
        here = f"/proc/{os.getpid()}/fd/{descriptor}"
        assert here in scan.found(markers, [], [os.getpid()])
        secret_memory.seal(descriptor)
        assert here not in scan.found(markers, [], [os.getpid()])
    finally:
        os.close(descriptor)


def test_a_process_with_decrypted_weights_makes_no_core_dump(site: Site) -> None:
    ready(site)
    program = (
        "import ctypes, sys, sealpack.runtime\n"
        "dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "before = dumpable()\n"
        "with sealpack.runtime.open('acme/tiny', state=sys.argv[1], threads=1):\n"
        "    print(before, dumpable())\n"
    )
    command = [sys.executable, "-c", program, str(site.state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
