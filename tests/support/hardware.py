"""A machine made of files: what /sys and /proc say there, and modules that seal keys."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sealpack.runtime.tpm import COUNTER, Tpm2, TpmError

CPU = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: {model}
model name\t: Intel(R) Xeon(R) E-2388G
stepping\t: 1
flags\t\t: fpu sse4_2{flags}

processor\t: 1
"""


@dataclass(kw_only=True)
class Machine:
    """Readable hardware of one machine; "" or () for what it has not, or does not tell."""

    uuid: str = "4c4c4544-0033-3510-8052-b4c04f4d5931"
    serial: str = ""
    vendor: str = "Dell Inc."
    product: str = "PowerEdge R350"
    disk: str = "naa.5002538f41c0ffee"
    macs: tuple[str, ...] = ("b0:7b:25:01:02:03", "b0:7b:25:01:02:04")
    cpu: str = "167"
    gpus: tuple[str, ...] = ("0x10de:0x1eb8",)
    flags: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path, state: Path) -> Path:
        """Lay the machine out under a new folder `root`; its disk is the one that holds `state`."""
        for name, text in {**self._board(), **self._disk(state), **self._cards(), **self.files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n" if text else "")
        for number, mac in enumerate(self.macs):
            network(root, f"eno{number}", mac)
        network(root, "docker0", "02:42:ac:11:00:01", device=False)
        network(root, "veth12ab", "02:42:ac:11:00:02", device=False)
        return root

    def _board(self) -> dict[str, str]:
        folder = "sys/class/dmi/id"
        told = {
            "product_uuid": self.uuid,
            "board_serial": self.serial,
            "sys_vendor": self.vendor,
            "product_name": self.product,
        }
        found = {f"{folder}/{name}": text for name, text in told.items() if text}
        return found | ({"proc/cpuinfo": CPU.format(model=self.cpu, flags=self.flags)} if self.cpu else {})

    def _disk(self, state: Path) -> dict[str, str]:
        number = state.stat().st_dev
        folder = f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
        return {f"{folder}/device/wwid": self.disk} if self.disk else {}

    def _cards(self) -> dict[str, str]:
        found = {"sys/bus/pci/devices/0000:00:1f.0/class": "0x060100"}
        for number, ids in enumerate(self.gpus):
            folder = f"sys/bus/pci/devices/0000:{number + 1:02}:00.0"
            vendor, _, device = ids.partition(":")
            found |= {
                f"{folder}/class": "0x030200",
                f"{folder}/vendor": vendor,
                f"{folder}/device": device,
            }
        return found


def network(
    root: Path, name: str, mac: str, *, device: bool = True, kind: str = "0", usb: bool = False
) -> None:
    """One network interface; `kind` is its addr_assign_type."""
    folder = root / "sys/class/net" / name
    folder.mkdir(parents=True)
    for member, text in (("address", mac), ("addr_assign_type", kind), ("type", "1")):
        (folder / member).write_text(f"{text}\n")
    if device:
        bus = root / "sys/bus" / ("usb" if usb else "pci")
        bus.mkdir(parents=True, exist_ok=True)
        (folder / "device").mkdir()
        (folder / "device" / "subsystem").symlink_to(bus)


class FakeTpm:
    """A module that lives as long as the test; what it seals, no other one opens."""

    def __init__(self) -> None:
        self._key, self._counts = secrets.token_bytes(32), dict[int, int]()

    def seal(self, secret: bytes) -> bytes:
        stream = hashlib.shake_256(self._key).digest(len(secret))
        hidden = bytes(a ^ b for a, b in zip(secret, stream, strict=True))
        return hidden + hmac.digest(self._key, hidden, "sha256")

    def unseal(self, blob: bytes) -> bytes:
        hidden, tag = blob[:-32], blob[-32:]
        if not hmac.compare_digest(hmac.digest(self._key, hidden, "sha256"), tag):
            raise TpmError("the TPM refuses command 0x157 with 0x1df")
        stream = hashlib.shake_256(self._key).digest(len(hidden))
        return bytes(a ^ b for a, b in zip(hidden, stream, strict=True))

    def identity(self) -> bytes:
        return hashlib.sha256(b"endorsement" + self._key).digest()

    def counter(self, index: int = COUNTER) -> int:
        return self._counts.get(index, 0)

    def increment(self, index: int = COUNTER) -> int:
        self._counts[index] = self.counter(index) + 1
        return self._counts[index]


class SocketTransport:
    """Commands to a swtpm over its socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 30
        while self._socket.connect_ex(str(path)):  # it has just been started
            if time.monotonic() > deadline:
                self._socket.close()
                raise TimeoutError(f"no swtpm at {path}")
            time.sleep(0.02)

    def send(self, command: bytes) -> bytes:
        self._socket.sendall(command)
        return self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def software_tpm(folder: Path) -> Iterator[Tpm2]:
    """A TPM 2.0 emulator that keeps its state in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / "s"
    where = ("--tpmstate", f"dir={folder}", "--server", f"type=unixio,path={path}")
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", *where, "--flags", "not-need-init,startup-clear"]
    )
    try:
        transport = SocketTransport(path)
        try:
            yield Tpm2(transport)
        finally:
            transport.close()
    finally:
        process.terminate()
        process.wait()
