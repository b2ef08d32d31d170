"""Which machine this is: fingerprints, key stores, virtual machines and containers, and what cheats get."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support import world
from support.hardware import FakeTpm, Machine, network, software_tpm
from support.site import INPUT, Site, make_license

import sealpack.runtime
from sealpack.format import documents, records
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Devices
from sealpack.format.repair import Repair
from sealpack.runtime import anchors, device, fingerprint, keystore, log, machine, overview, rights, tpm
from sealpack.runtime.tpm import Tpm, TpmError

NONCE, SECRET = "00112233445566778899aabbccddeeff", b"k" * 32
IDENTIFYING = tuple(fingerprint.WEIGHTS)[:4]  # the parts that differ from machine to machine
KEY_FP = make_license(devices=Devices("key+fp"))
SAME = Machine()
FLEET = replace(
    SAME,
    uuid="4c4c4544-0051-4a10-8044-c7c04f564433",
    disk="naa.5002538f41c0aaaa",
    macs=("b0:7b:25:0a:0b:0c",),
)

Put = Callable[[Machine], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Stand on another machine."""
    count = iter(range(99))

    def stand(on: Machine) -> None:
        monkeypatch.setattr(machine, "ROOT", on.write(tmp_path / f"machine{next(count)}", tmp_path))

    monkeypatch.setattr(fingerprint, "permanent_address", lambda name: "")
    monkeypatch.delenv("container", raising=False)
    stand(SAME)
    return stand


def run(site: Site) -> tuple[str, ...]:
    """Call once; the warnings of opening."""
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        assert runtime.infer(INPUT).value
        return tuple(warning.message for warning in runtime.standing.warnings if warning.code == "HW_CHANGED")


def refused(site: Site) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        run(site)
    return caught.value


def drifts(site: Site, license_id: str = "L-1") -> int:
    """Drift events in the log."""
    with site.state() as state, state.read() as db:
        found = log.find(db, license_id)
        assert found is not None
        written = [records.parse_record(line) for line in log.leaves(db, found.log, 0, found.size)]
    return sum(r.kind == records.CLOCK and r.body["event"] == device.DRIFT for r in written)


def parts_of(text: str) -> str:
    """The kinds of a fingerprint's parts, in order."""
    return "".join(text[start] for start in range(0, len(text), 8))


# --- what is read -------------------------------------------------------------------------------------------


def test_the_parts_of_a_machine(put: Put, tmp_path: Path) -> None:
    found = fingerprint.read(tmp_path)
    assert set(found) == {"board", "disk", "mac", "model", "cpu", "gpu"}
    assert found["mac"] == ("b0:7b:25:01:02:03", "b0:7b:25:01:02:04"), "no bridge, no container link"
    assert found["model"] == ("dell inc./poweredge r350//",)
    assert found["cpu"] == (
        "vendor_id=GenuineIntel/cpu family=6/model=167/model name=Intel(R) Xeon(R) E-2388G/stepping=1",
    )
    assert parts_of(fingerprint.make(found, SECRET, NONCE)) == "2344567"


@pytest.mark.parametrize(
    "serial",
    (
        "",
        "Default string",
        "To Be Filled By O.E.M.",
        "None",
        "0",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",
        "System Serial Number",
        "Not Specified",
        "0123456789",
        "123456789",
        "...",
    ),
)
def test_what_makers_leave_in_place_of_a_serial_number_is_none(put: Put, tmp_path: Path, serial: str) -> None:
    put(replace(SAME, uuid=serial, serial="Default string"))
    assert "board" not in fingerprint.read(tmp_path)
    put(replace(SAME, uuid=serial, serial=" CN7016  34 "))
    assert fingerprint.read(tmp_path)["board"] == ("cn7016 34",)


def test_network_hardware(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that somebody set is not the permanent one; what hangs on USB moves with a pocket."""
    put(replace(SAME, macs=()))
    network(machine.ROOT, "eno1", "de:ad:be:ef:00:01", kind="3")
    network(machine.ROOT, "usb0", "b0:7b:25:99:99:99", usb=True)
    network(machine.ROOT, "eno2", "00:00:00:00:00:00")
    assert "mac" not in fingerprint.read(tmp_path)
    monkeypatch.setattr(fingerprint, "permanent_address", {"eno1": "b0:7b:25:01:02:03"}.get)
    assert fingerprint.read(tmp_path)["mac"] == ("b0:7b:25:01:02:03",)


def test_a_permanent_address_is_asked_of_the_driver() -> None:
    assert fingerprint.permanent_address("no-such-device") == ""
    assert fingerprint.permanent_address("lo") in ("", "00:00:00:00:00:00")


def test_the_disk_below_volumes_and_partitions(put: Put, tmp_path: Path) -> None:
    put(replace(SAME, disk=""))
    number = tmp_path.stat().st_dev
    where = machine.ROOT / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    disk, part = machine.ROOT / "sys/block/nvme0n1", machine.ROOT / "sys/block/nvme0n1/nvme0n1p2"
    (where / "slaves").mkdir(parents=True)
    part.mkdir(parents=True)
    (part / "partition").write_text("2\n")
    (disk / "wwid").write_text("eui.0025385b01415a2c\n")
    (where / "slaves" / "nvme0n1p2").symlink_to(part)
    assert fingerprint.read(tmp_path)["disk"] == ("eui.0025385b01415a2c",)


def test_the_disk_of_a_file_system_with_a_number_of_its_own(put: Put, tmp_path: Path) -> None:
    number = tmp_path.stat().st_dev
    where = f"{os.major(number)}:{os.minor(number)}"
    mounts = f"21 1 0:99 / /proc rw - proc proc rw\n22 1 {where} /home / rw - btrfs /dev/sdb2 rw"
    put(
        replace(
            SAME, disk="", files={"proc/self/mountinfo": mounts, "sys/class/block/sdb2/serial": "S4EVNX0R"}
        )
    )
    assert fingerprint.read(tmp_path)["disk"] == ("s4evnx0r",)
    put(replace(SAME, disk="", files={"proc/self/mountinfo": f"22 1 {where} / / rw - overlay overlay rw"}))
    assert "disk" not in fingerprint.read(tmp_path)


def test_a_board_without_dmi(put: Put, tmp_path: Path) -> None:
    files = {
        "proc/device-tree/serial-number": "10000000e5a4b2c1\0",
        "proc/device-tree/model": "Raspberry Pi 5\0",
    }
    put(Machine(uuid="", vendor="", product="", disk="", macs=(), cpu="", gpus=(), files=files))
    assert fingerprint.read(tmp_path) == {"board": ("10000000e5a4b2c1",), "model": ("raspberry pi 5",)}


# --- what is told -------------------------------------------------------------------------------------------


def test_nobody_can_link_two_fingerprints(put: Put, tmp_path: Path) -> None:
    """Another request or another install gives other digests for the same hardware."""
    found = fingerprint.read(tmp_path)
    made = [
        fingerprint.make(found, *key) for key in ((SECRET, NONCE), (SECRET, NONCE[::-1]), (b"x" * 32, NONCE))
    ]
    digests = [{text[start + 1 : start + 8] for start in range(0, len(text), 8)} for text in made]
    assert not digests[0] & digests[1] and not digests[0] & digests[2]
    assert fingerprint.make(found, SECRET, NONCE) == made[0], "the same question has the same answer"
    assert fingerprint.make({}, SECRET, NONCE) == ""


def test_the_example_of_the_specification() -> None:
    parts = {"board": (SAME.uuid,), "disk": (SAME.disk,), "mac": SAME.macs[:1]}
    assert fingerprint.make(parts, SECRET, NONCE) == "28af194d3a5672744f36d6a8"


ALL = dict.fromkeys(fingerprint.WEIGHTS, ("x",))


def compared(
    here: dict[str, tuple[str, ...]], accepted: dict[str, tuple[str, ...]]
) -> fingerprint.Comparison:
    return fingerprint.compare(fingerprint.make(accepted, SECRET, NONCE), NONCE, here, SECRET)


@pytest.mark.parametrize("kind", fingerprint.WEIGHTS)
def test_any_one_part_may_change(kind: str) -> None:
    found = compared(ALL | {kind: ("y",)}, ALL)
    assert found.held and found.readable and found.changed == (kind,)
    assert fingerprint.ENOUGH <= found.score < 100


@given(
    st.sets(st.sampled_from(IDENTIFYING), min_size=3),
    st.sets(st.sampled_from(("model", "cpu", "gpu")), min_size=2),
    st.data(),
)
def test_one_part_never_decides_where_enough_are_known(
    known: set[str], more: set[str], data: st.DataObject
) -> None:
    parts = dict.fromkeys(sorted(known | more), ("x",))
    kind = data.draw(st.sampled_from(sorted(parts)))
    assert compared(parts | {kind: ("y",)}, parts).score >= fingerprint.ENOUGH


@given(st.sets(st.sampled_from(sorted(fingerprint.WEIGHTS)), min_size=1))
def test_parts_that_cannot_be_read_count_neither_way(hidden: set[str]) -> None:
    here = {kind: values for kind, values in ALL.items() if kind not in hidden}
    found = compared(here, ALL)
    assert found.score == (100 if here else 0) and not found.changed
    weight = sum(fingerprint.WEIGHTS[kind] for kind in hidden)
    assert found.readable == (2 * weight <= sum(fingerprint.WEIGHTS.values()))


@given(st.sets(st.sampled_from(IDENTIFYING), min_size=2))
def test_machines_of_one_model_are_told_apart(known: set[str]) -> None:
    """Whatever two identifying parts are known: model, processor and graphics card alone are never enough."""
    parts = {kind: ("x",) for kind in ("model", "cpu", "gpu", *known)}
    found = compared({kind: ("y",) if kind in known else ("x",) for kind in parts}, parts)
    assert found.held and found.score < fingerprint.ENOUGH


def test_one_of_several_network_cards_is_enough_and_unknown_kinds_are_passed_over() -> None:
    accepted = fingerprint.make({"mac": ("a", "b"), "disk": ("d",)}, SECRET, NONCE) + "f0000000"
    found = fingerprint.compare(accepted, NONCE, {"mac": ("b", "z"), "disk": ("d",), "cpu": ("c",)}, SECRET)
    assert (found.score, found.changed, found.hidden) == (100, (), ())


# --- enforced -----------------------------------------------------------------------------------------------


def test_the_same_machine_runs_without_a_word(site: Site, put: Put) -> None:
    site.ready(KEY_FP)
    assert run(site) == () and drifts(site) == 0


def test_state_copied_to_another_host_of_the_same_model(site: Site, put: Put) -> None:
    """The fleet's template: same model, processor and card, and the same machine id."""
    site.ready(KEY_FP)
    put(replace(FLEET, files={"etc/machine-id": "c0ffee"}))
    error = refused(site)
    assert error.code == "HW_CHANGED"
    assert "18 % of the hardware is what was activated, 60 % is needed" in error.message
    assert "mainboard, disk, network card" in error.message
    assert "repair file" in error.remedy and "help@acme.example" in error.remedy
    with site.state() as state:
        (entry,) = overview.gather(state)["licenses"][0]["standing"]
    assert (entry["may_run"], entry["code"]) == (False, "HW_CHANGED")


def test_binding_to_the_key_alone_asks_for_no_hardware(site: Site, put: Put) -> None:
    site.ready(make_license(devices=Devices("key")))
    put(FLEET)
    assert run(site) == ()


def test_a_new_disk_runs_on_with_one_event(site: Site, put: Put) -> None:
    site.ready(KEY_FP)
    put(replace(SAME, disk="naa.5000c500a1b2c3d4"))
    (warning,) = run(site)
    assert "75 % of the hardware is what was activated" in warning and "disk" in warning
    run(site)
    assert drifts(site) == 1
    put(SAME)
    assert run(site) == () and drifts(site) == 1
    put(replace(SAME, disk="naa.5000c500a1b2c3d4"))
    run(site)
    assert drifts(site) == 1, "remembered"
    put(replace(SAME, disk="naa.5000c500ffffffff"))
    run(site)
    assert drifts(site) == 2, "another one"


def test_graphics_card_and_processor_swapped(site: Site, put: Put) -> None:
    site.ready(KEY_FP)
    put(replace(SAME, gpus=("0x10de:0x2684",), cpu="191"))
    (warning,) = run(site)
    assert "87 %" in warning and "processor, graphics card" in warning


def test_memory_is_no_part(site: Site, put: Put) -> None:
    put(replace(SAME, files={"proc/meminfo": "MemTotal: 65536000 kB"}))
    site.ready(KEY_FP)
    put(replace(SAME, files={"proc/meminfo": "MemTotal: 131072000 kB"}))
    assert run(site) == () and drifts(site) == 0


def test_a_machine_that_hides_its_parts_is_not_believed(site: Site, put: Put) -> None:
    """Else an empty /sys would open every copy. What cannot be read, up to half, does no harm."""
    site.ready(KEY_FP)
    put(Machine(uuid="", vendor="", product="", disk="", macs=(), cpu="", gpus=()))
    error = refused(site)
    assert error.code == "HW_CHANGED" and "cannot be read: mainboard, disk, network card" in error.message
    put(replace(SAME, uuid=""))
    assert run(site) == ()
    put(replace(SAME, macs=(), gpus=()))
    assert run(site) == ()
    put(replace(FLEET, uuid="", macs=()))
    assert refused(site).code == "HW_CHANGED"


def test_too_few_parts_at_activation_hold_nobody(site: Site, put: Put) -> None:
    """A container without its own disk: one network card is all that tells it from others."""
    put(replace(SAME, uuid="", disk=""))
    site.ready(KEY_FP)
    put(replace(SAME, uuid="", disk="", macs=("b0:7b:25:0a:0b:0c",)))
    (warning,) = run(site)
    assert "too few parts" in warning and drifts(site) == 1


def test_an_activation_without_a_fingerprint_is_held_to_its_key(site: Site, put: Put) -> None:
    """Of a runtime, or an issuer, from before there were any."""
    site.pin().install()
    site.take(site.reply(replace(site.request(), fingerprint=None), KEY_FP))
    put(FLEET)
    assert run(site) == () and drifts(site) == 0


def test_what_an_attacker_writes_into_a_request_counts_for_his_device_only(site: Site, put: Put) -> None:
    """A forged fingerprint is signed by the device key as any other, and binds that device to it."""
    site.pin().install()
    forged = fingerprint.make({"board": ("none",), "disk": ("such",)}, SECRET, NONCE)
    asked = site.request()
    site.take(site.reply(replace(asked, fingerprint=forged), KEY_FP))
    assert refused(site).code == "HW_CHANGED"


def test_two_devices_under_one_license(site: Site, put: Put, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", site.models, site.trust)
    other.folder.mkdir()
    site.ready(KEY_FP)
    put(FLEET)
    other.ready(KEY_FP)
    assert run(other) == ()
    put(SAME)
    assert run(site) == () and refused(other).code == "HW_CHANGED"


@pytest.mark.parametrize(("before", "after"), [("key", "key+fp"), ("key+fp", "key"), ("none", "key+fp")])
def test_the_binding_changes_with_a_renewal(site: Site, put: Put, before: str, after: str) -> None:
    site.ready(make_license(devices=Devices(before)))
    run(site)
    site.activate(make_license(devices=Devices(after), seq=2))
    assert run(site) == ()
    put(FLEET)
    if after == "key":
        assert run(site) == ()
    else:
        assert refused(site).code == "HW_CHANGED"


def test_a_repair_puts_another_fingerprint_in_place(site: Site, put: Put) -> None:
    site.ready(KEY_FP)
    put(FLEET)
    asked = site.request()
    assert asked.fingerprint is not None and refused(site).code == "HW_CHANGED"
    with site.state() as state:
        with state.write() as db:
            activation = rights.read(db, "L-1", anchors.current(db)).activation
            assert activation is not None
            fingerprint.replace(db, activation, asked.nonce, asked.fingerprint, site.home.secret())
        assert run(site) == ()
        put(SAME)
        assert refused(site).code == "HW_CHANGED", "the old machine is out"
        with state.write() as db:
            db.execute("UPDATE hardware SET nonce=?", (activation.nonce,))
    assert refused(site).code == "STATE_TAMPERED"
    site.activate(replace(KEY_FP, seq=2))
    assert run(site) == (), "a new activation brings its own"


def test_a_repair_file_opens_the_machine_again(site: Site, put: Put) -> None:
    site.ready(KEY_FP)
    put(FLEET)
    assert refused(site).code == "HW_CHANGED"
    asked = site.request()
    made = Repair("L-1", asked.device_id, asked.digest, asked.nonce, world.T0, fingerprint=asked.fingerprint)
    site.take(Parcel((documents.seal("repair", made.to_dict(), world.LICENSER),)))
    assert run(site) == ()


# --- virtual machines and containers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({"vendor": "QEMU"}, "sys_vendor is QEMU"),
        (
            {"vendor": "Microsoft Corporation", "product": "Virtual Machine"},
            "product_name is Virtual Machine",
        ),
        ({"files": {"sys/class/dmi/id/bios_vendor": "innotek GmbH"}}, "bios_vendor is innotek GmbH"),
        ({"files": {"sys/hypervisor/type": "xen"}}, "/sys/hypervisor/type is xen"),
        ({"flags": " hypervisor lahf_lm"}, "the processor reports a hypervisor"),
        ({}, ""),
        ({"vendor": "Microsoft Corporation", "product": "Surface Pro 9"}, ""),
        ({"vendor": "Xen", "files": {"proc/xen/capabilities": "control_d"}}, ""),
    ],
)
def test_a_virtual_machine_is_explained(put: Put, members: dict[str, Any], shown: str) -> None:
    put(replace(SAME, **members))
    assert machine.in_virtual_machine() == shown


ROOT_MOUNT = "519 488 0:{} / / rw,relatime - overlay overlay rw,upperdir={}/diff"


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        (".dockerenv", "", "/.dockerenv"),
        ("run/.containerenv", "", "/run/.containerenv"),
        ("run/systemd/container", "systemd-nspawn", "/run/systemd/container says systemd-nspawn"),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1", "/proc/1/cgroup names kubepods"),
        (
            "proc/1/mountinfo",
            ROOT_MOUNT.format(44, "/var/lib/docker/overlay2/a"),
            "the root file system is one of docker",
        ),
        (
            "proc/1/mountinfo",
            ROOT_MOUNT.format(44, "/var/lib/containers/storage/overlay/a"),
            "the root file system is one of containers/storage",
        ),
        ("proc/1/cgroup", "0::/init.scope", ""),
        ("proc/1/mountinfo", ROOT_MOUNT.format(44, "/media/root-rw"), ""),
        ("proc/1/mountinfo", "40 1 8:1 / /var/lib/docker rw - ext4 /dev/sda1 rw", ""),
    ],
)
def test_a_container_is_explained(put: Put, name: str, text: str, shown: str) -> None:
    """Also what is none: a host that runs some, a system whose root is of layers."""
    put(replace(SAME, files={name: text}))
    assert machine.in_container() == shown


def test_a_container_says_so_by_a_variable(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("container", "lxc")
    assert machine.in_container() == "the variable container is 'lxc'"


def test_denials_say_what_was_seen(site: Site, put: Put) -> None:
    site.ready(make_license(devices=Devices("key", vm=False, container=False)))
    put(replace(SAME, vendor="QEMU", product="Standard PC", files={".dockerenv": ""}))
    error = refused(site)
    assert error.code == "VM_DENIED" and "sys_vendor is QEMU" in error.message
    put(replace(SAME, files={".dockerenv": ""}))
    error = refused(site)
    assert error.code == "CONTAINER_DENIED" and "/.dockerenv" in error.message
    put(SAME)
    assert run(site) == ()


# --- key stores ---------------------------------------------------------------------------------------------

needs_swtpm = pytest.mark.skipif(shutil.which("swtpm") is None, reason="needs the package swtpm")


@pytest.fixture(params=["fake", pytest.param("swtpm", marks=needs_swtpm)])
def modules(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tpm, Tpm]]:
    """Two modules of one kind."""
    if request.param == "fake":
        yield FakeTpm(), FakeTpm()
    else:
        with software_tpm(tmp_path / "tpm1") as one, software_tpm(tmp_path / "tpm2") as two:
            yield one, two


def test_a_module_keeps_the_protocol(modules: tuple[Tpm, Tpm]) -> None:
    one, two = modules
    blob = one.seal(b"s" * 32)
    assert b"s" * 8 not in blob and one.unseal(blob) == b"s" * 32
    broken = blob[:40] + bytes([blob[40] ^ 1]) + blob[41:]
    for module, data in ((two, blob), (one, broken), (one, blob[:20]), (one, b"")):
        with pytest.raises(TpmError):
            module.unseal(data)
    assert one.unseal(one.seal(b"t" * 128)) == b"t" * 128
    assert one.identity() == one.identity() != two.identity()
    assert [one.counter(), one.increment(), one.increment(), one.counter(), two.counter()] == [0, 1, 2, 2, 0]
    assert [one.increment(tpm.COUNTER + 1), one.counter()] == [one.counter(tpm.COUNTER + 1), 2]
    for _ in range(8):  # nothing is left behind in the module
        assert one.unseal(blob) == b"s" * 32


@needs_swtpm
def test_a_module_keeps_its_word_over_a_restart(tmp_path: Path) -> None:
    with software_tpm(tmp_path / "tpm") as module:
        blob, name, count = module.seal(b"s" * 32), module.identity(), module.increment()
    with software_tpm(tmp_path / "tpm") as module:
        assert module.unseal(blob) == b"s" * 32 and module.identity() == name
        assert (module.counter(), module.increment()) == (count, count + 1)


class Says:
    """A transport with one answer."""

    def __init__(self, answer: bytes | OSError) -> None:
        self.answer = answer

    def send(self, command: bytes) -> bytes:
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OSError(5, "Input/output error"), "does not answer: Input/output error"),
        (b"\x80\x02", "answers with 2 bytes"),
        (bytes(6) + b"\0\0\x09\x22", "refuses command 0x131 with 0x922"),
        (bytes(10), "cut short"),
        (bytes(18) + b"\xff\xff", "cut short"),
    ],
)
def test_a_module_that_fails(answer: bytes | OSError, message: str) -> None:
    with pytest.raises(TpmError, match=message):
        tpm.Tpm2(Says(answer)).identity()


def test_what_a_module_cannot_seal_is_refused() -> None:
    for size in (0, tpm.MAX_SECRET + 1):
        with pytest.raises(ValueError, match="cannot be sealed"):
            tpm.Tpm2(Says(b"")).seal(bytes(size))


def test_a_device_file_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert tpm.find() is None
    path = tmp_path / tpm.DEVICE
    path.parent.mkdir()
    path.write_bytes(b"")
    assert isinstance(tpm.find(), tpm.Tpm2)
    assert tpm.DeviceFile(path).send(b"command") == b"" and path.read_bytes() == b"command"


Insert = Callable[[Tpm | None], None]


@pytest.fixture
def insert(put: Put, monkeypatch: pytest.MonkeyPatch) -> Insert:
    """Give the machine a module, or none."""
    return lambda module: monkeypatch.setattr(tpm, "find", lambda: module)


TPM = make_license(devices=Devices("tpm"))


def test_keys_are_sealed_where_there_is_a_module(
    site: Site, insert: Insert, modules: tuple[Tpm, Tpm]
) -> None:
    insert(modules[0])
    site.pin()
    asked = site.request()
    assert asked.key_store == "tpm" and asked.fingerprint is not None and asked.fingerprint[0] == "1"
    assert not site.home.device_key.exists() and not site.home.hpke_key.exists()
    names = {path.name: path for path in site.state_dir.iterdir()}
    for name in ("device.key.tpm", "device.hpke.tpm"):
        assert names[name].stat().st_mode & 0o777 == 0o600
    assert (
        device.key(site.home) == device.key(site.home)
        and device.name(device.key(site.home)) == asked.device_id
    )
    assert device.hpke_key(site.home).public == asked.hpke_key
    with site.state() as state:
        status = overview.gather(state)
    assert status["key_store"] == "tpm" and "sealed in the TPM" in overview.to_text(status)


def test_state_copied_away_from_its_module(
    site: Site, insert: Insert, modules: tuple[Tpm, Tpm], tmp_path: Path
) -> None:
    insert(modules[0])
    site.ready(TPM)
    assert run(site) == ()
    for module in (modules[1], None):
        insert(module)
        error = refused(site)
        assert error.code == "DEVICE_KEY_MISSING" and "sealed in a TPM" in error.message
        with pytest.raises(SealpackError, match="sealed in a TPM"):
            device.hpke_key(site.home)
        with pytest.raises(SealpackError) as caught:
            site.request()  # no new key takes the place of the one that is locked
        assert caught.value.code == "DEVICE_KEY_MISSING"
    insert(modules[0])
    assert run(site) == ()


def test_a_key_that_was_taken_out_of_its_module(site: Site, insert: Insert) -> None:
    """Who owns the machine can unseal: sealed under another module, or in a file, it is still refused."""
    first, second = FakeTpm(), FakeTpm()
    insert(first)
    site.ready(TPM)
    sealed = site.state_dir / "device.key.tpm"
    seed = first.unseal(sealed.read_bytes())
    sealed.write_bytes(second.seal(seed))
    insert(second)
    error = refused(site)
    assert error.code == "HW_CHANGED" and error.message.endswith("other: TPM")
    sealed.unlink()
    site.home.device_key.write_bytes(PrivateKey.from_seed(seed).to_pem())
    insert(first)
    error = refused(site)
    assert error.code == "HW_CHANGED" and "in a file" in error.message


def test_a_license_bound_to_a_module_needs_one(site: Site, insert: Insert) -> None:
    insert(None)
    site.pin()
    asked = site.request()
    assert asked.key_store == "file"
    with pytest.raises(SealpackError) as caught:
        site.take(site.reply(asked, TPM))
    assert caught.value.code == "DOC_CRIT" and "keys of this machine are in files" in caught.value.message
    insert(FakeTpm())
    with pytest.raises(SealpackError):  # its key was made before
        site.take(site.reply(asked, TPM))


class Moody(FakeTpm):
    """Refuses to seal, or gives back something else."""

    def __init__(self, seals: bool) -> None:
        super().__init__()
        self.seals = seals

    def seal(self, secret: bytes) -> bytes:
        if not self.seals:
            raise TpmError("the TPM refuses command 0x153 with 0x9a2")
        return super().seal(secret)

    def unseal(self, blob: bytes) -> bytes:
        return b"?"

    def identity(self) -> bytes:
        raise TpmError("the TPM refuses command 0x131 with 0x9a2")


@pytest.mark.parametrize("seals", [True, False])
def test_a_module_that_is_locked_is_no_store(site: Site, insert: Insert, seals: bool) -> None:
    insert(Moody(seals))
    asked = site.pin().request()
    assert asked.key_store == "file" and asked.fingerprint is not None and asked.fingerprint[0] != "1"
    with site.state() as state:
        assert "files (0600)" in overview.to_text(overview.gather(state))


def test_a_sealed_key_of_another_size(site: Site, insert: Insert) -> None:
    module = FakeTpm()
    insert(module)
    site.pin().request()
    (site.state_dir / "device.key.tpm").write_bytes(module.seal(b"short"))
    with pytest.raises(SealpackError) as caught:
        device.key(site.home)
    assert caught.value.code == "STATE_TAMPERED"


def test_keys_made_before_stay_files(site: Site, insert: Insert) -> None:
    insert(None)
    before = site.pin().request()
    insert(FakeTpm())
    after = site.request()
    assert (after.device_id, after.key_store) == (before.device_id, "file")
    assert keystore.of(site.home) == "file" and after.fingerprint is not None and after.fingerprint[0] == "1"
