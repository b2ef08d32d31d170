"""Which machine this is: parts of its hardware, told to nobody in clear, and how many are still the same.

Source: specs/runtime-state.md, "Device identity". Everything is read below `machine.ROOT`, so that a folder
can stand for any machine. The machine id is never looked at: copies of one system image share it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import socket
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sealpack.format.activation import Activation, names_machine
from sealpack.format.errors import SealpackError
from sealpack.runtime import machine, tpm

DOMAIN = b"sealpack/fingerprint/v1\0"
REPAIR_DOMAIN = b"sealpack/fingerprint-repaired/v1\0"
ENOUGH = 60  # percent of the weight that can be compared
_MAX_MACS = 2

# What each part weighs, and the digit that stands for it. The first four differ from machine to machine, the
# others from model to model: alone they never add up to enough.
WEIGHTS = {"tpm": 30, "board": 25, "disk": 20, "mac": 20, "model": 5, "cpu": 5, "gpu": 5}
_DIGITS = dict(zip(WEIGHTS, "1234567", strict=True))
_KINDS = {digit: kind for kind, digit in _DIGITS.items()}

# What makers leave where a serial number should be.
_JUNK = re.compile(
    r"|[0 .:x-]*|[f:-]+|(to be )?filled.*|default( string)?|none|not (applicable|specified|available).*"
    r"|unknown|n/?a|system serial number|serial number|base board serial number|chassis serial number|invalid"
    r"|0?123456789.*|03000200-0400-0500-0006-000700080009|empty|oem|o\.e\.m\.|test",
    re.IGNORECASE,
)
_CPU_LINES = re.compile(
    r"^(vendor_id|cpu family|model|model name|stepping"
    r"|CPU implementer|CPU architecture|CPU variant|CPU part|CPU revision)\s*:\s*(.*)$",
    re.MULTILINE,
)
_ETHERNET = "1"
_PERMANENT = "0"  # addr_assign_type of an address the hardware came with
_SIOCETHTOOL, _ETHTOOL_GPERMADDR = 0x8946, 0x20

Hardware = Mapping[str, tuple[str, ...]]  # kind -> what was read; kinds that cannot be read are absent


def read(folder: Path) -> Hardware:
    """The parts of this machine; `folder` lies on the disk that counts."""
    found = {
        "tpm": _tpm(),
        "board": _first("sys/class/dmi/id/product_uuid", "sys/class/dmi/id/board_serial")
        or _first("sys/class/dmi/id/product_serial", "proc/device-tree/serial-number"),
        "disk": _disk(folder),
        "mac": tuple(sorted(_macs())),
        "model": _model(),
        "cpu": _cpu(),
        "gpu": _gpu(),
    }
    return {kind: values for kind, values in found.items() if values}


def _clean(text: str) -> str:
    """A value in one spelling; "" for one that says nothing."""
    value = " ".join(text.lower().split())
    return "" if _JUNK.fullmatch(value) else value


def _first(*names: str) -> tuple[str, ...]:
    return next(((value,) for name in names if (value := _clean(machine.told(name)))), ())


def _tpm() -> tuple[str, ...]:
    module = tpm.find()
    if module is None:
        return ()
    try:
        return (module.identity().hex(),)
    except tpm.TpmError:
        return ()


def _model() -> tuple[str, ...]:
    names = ("sys_vendor", "product_name", "board_vendor", "board_name")
    told = [_clean(machine.told(f"sys/class/dmi/id/{name}")) for name in names]
    return ("/".join(told),) if any(told) else _first("proc/device-tree/model")


def _cpu() -> tuple[str, ...]:
    first, _, _ = machine.told("proc/cpuinfo").partition("\n\n")
    lines = [f"{name}={' '.join(value.split())}" for name, value in _CPU_LINES.findall(first)]
    return ("/".join(lines),) if lines else ()


def _gpu() -> tuple[str, ...]:
    folder, cards = "sys/bus/pci/devices", []
    for name in _names(folder):
        if machine.told(f"{folder}/{name}/class").startswith("0x03"):
            ids = ("vendor", "device", "subsystem_vendor", "subsystem_device")
            cards.append(":".join(machine.told(f"{folder}/{name}/{part}") for part in ids))
    return ("/".join(sorted(cards)),) if cards else ()


def _names(folder: str) -> list[str]:
    try:
        return sorted(path.name for path in (machine.ROOT / folder).iterdir())
    except OSError:
        return []


def _macs() -> Iterator[str]:
    """Addresses that network hardware came with; nothing that software made, or that hangs on USB."""
    for name in _names("sys/class/net"):
        folder = f"sys/class/net/{name}"
        device = machine.ROOT / folder / "device"
        if not device.exists() or machine.told(f"{folder}/type") != _ETHERNET:
            continue  # bridges, tunnels, container links
        if (device / "subsystem").resolve().name == "usb":
            continue
        told = machine.told(f"{folder}/addr_assign_type") == _PERMANENT
        address = _clean(machine.told(f"{folder}/address") if told else permanent_address(name))
        if address:
            yield address


def permanent_address(name: str) -> str:
    """The address an interface came with, where another one was set; "" when the driver does not say."""
    answer = array.array("B", struct.pack("II", _ETHTOOL_GPERMADDR, 32) + bytes(32))
    request = struct.pack("16sP", name.encode()[:15], answer.buffer_info()[0]) + bytes(16)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        size = struct.unpack_from("I", answer, 4)[0]
        return ":".join(f"{byte:02x}" for byte in answer[8 : 8 + min(size, 32)])
    return ""


def _disk(folder: Path) -> tuple[str, ...]:
    """The serial number or name of the disk that holds `folder`."""
    try:
        number = folder.stat().st_dev
    except OSError:
        return ()
    where = f"{os.major(number)}:{os.minor(number)}"
    block = machine.ROOT / "sys/dev/block" / where
    if not block.exists():
        block = machine.ROOT / "sys/class/block" / _mounted(where)
    for _ in range(4):  # a file system on a volume on an encrypted disk on a partition
        block = block.resolve()
        if (block / "partition").exists():
            block = block.parent
        below = sorted(block.glob("slaves/*"))
        if not below:
            break
        block = below[0]
    names = ("wwid", "device/wwid", "serial", "device/serial", "device/cid")
    return _first(*(str((block / name).relative_to(machine.ROOT.resolve())) for name in names))


def _mounted(number: str) -> str:
    """The block device behind a file system that has a number of its own, such as btrfs; else a dot file."""
    for line in machine.told("proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2:3] == [number]:
            source = Path(rest.split(" ")[1])
            if source.is_relative_to("/dev"):
                return source.name
    return ".none"


def make(hardware: Hardware, secret: bytes, nonce: str) -> str:
    """The fingerprint for a request: keyed by the install's secret and the request's nonce.

    So nobody but this install can tell which hardware it is of, nor that two are of one machine.
    """
    parts = []
    for kind, values in hardware.items():
        parts += [_part(kind, value, secret, nonce) for value in values[:_MAX_MACS]]
    return "".join(sorted(parts))


def _part(kind: str, value: str, secret: bytes, nonce: str) -> str:
    key = hmac.digest(secret, DOMAIN + bytes.fromhex(nonce), "sha256")
    digest = hmac.digest(key, f"{kind}\0{value}".encode(), "sha256")
    return _DIGITS[kind] + digest.hex()[:7]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The accepted fingerprint beside the machine. Kinds of parts; `score` in percent of what is readable."""

    held: bool  # False: the accepted one has too few parts to hold anybody to it
    score: int
    changed: tuple[str, ...]
    hidden: tuple[str, ...]  # accepted, but not readable now
    weight: int  # of all accepted parts
    seen: str = ""  # what stands in place of the changed parts

    @property
    def readable(self) -> bool:
        """Whether at least half of what was accepted can be read, by weight."""
        hidden = sum(WEIGHTS[kind] for kind in self.hidden)
        return not self.hidden or 2 * hidden <= self.weight


def compare(accepted: str, nonce: str, hardware: Hardware, secret: bytes) -> Comparison:
    """How much of the accepted hardware is here. A kind is the same when one of its parts is."""
    expected: dict[str, set[str]] = {}
    for start in range(0, len(accepted), 8):
        kind = _KINDS.get(accepted[start])
        if kind is not None:
            expected.setdefault(kind, set()).add(accepted[start : start + 8])
    here = {
        kind: {_part(kind, value, secret, nonce) for value in hardware[kind]}
        for kind in expected
        if kind in hardware
    }
    changed = tuple(kind for kind in WEIGHTS if kind in here and not here[kind] & expected[kind])
    readable = sum(WEIGHTS[kind] for kind in here)
    same = readable - sum(WEIGHTS[kind] for kind in changed)
    return Comparison(
        held=names_machine(accepted),
        score=same * 100 // readable if readable else 0,
        changed=changed,
        hidden=tuple(kind for kind in WEIGHTS if kind in expected and kind not in here),
        weight=sum(WEIGHTS[kind] for kind in expected),
        seen="".join(part for kind in changed for part in sorted(here[kind])),
    )


def replace(
    db: sqlite3.Connection, activation: Activation, nonce: str, fingerprint: str, secret: bytes
) -> None:
    """From now on `fingerprint`, made for the request with `nonce`, is the accepted one.

    For a verified `repair` document of the activation's license and device; `secret` is that of the install.
    It counts for every activation that answers the same request as this one; a new request brings its own.
    """
    row = (activation.license_id, activation.nonce, nonce, fingerprint)
    db.execute(
        "INSERT INTO hardware VALUES(?,?,?,?,?) ON CONFLICT(license_id) DO UPDATE SET"
        " replaces=excluded.replaces, nonce=excluded.nonce, fingerprint=excluded.fingerprint,"
        " mac=excluded.mac",
        (*row, _mac(row, secret)),
    )


def _mac(row: tuple[str, ...], secret: bytes) -> bytes:
    return hmac.digest(secret, REPAIR_DOMAIN + "\0".join(row).encode(), hashlib.sha256)


def judge(
    db: sqlite3.Connection, activation: Activation, hardware: Hardware, secret: bytes
) -> Comparison | None:
    """The machine beside what its activation, or a repair of it, accepts; None when that says nothing.

    STATE_TAMPERED when the repair that is kept was changed.
    """
    nonce, accepted = activation.nonce, activation.fingerprint
    row = db.execute(
        "SELECT license_id, replaces, nonce, fingerprint, mac FROM hardware WHERE license_id=?",
        (activation.license_id,),
    ).fetchone()
    if row is not None and row[1] == activation.nonce:
        if not hmac.compare_digest(row[4], _mac(row[:4], secret)):
            raise SealpackError("STATE_TAMPERED", f"the repair of {activation.license_id} was changed")
        nonce, accepted = row[2], row[3]
    return None if accepted is None else compare(accepted, nonce, hardware, secret)


def is_new_drift(db: sqlite3.Connection, license_id: str, seen: Comparison) -> bool:
    """True the first time a license meets these parts in place of the accepted ones; it is remembered."""
    if not seen.changed:
        return False
    done = db.execute("INSERT OR IGNORE INTO drift VALUES(?,?)", (license_id, seen.seen))
    return done.rowcount == 1
