"""A trusted platform module: seals the device's keys, names the machine, and counts what cannot go back.

Source: specs/runtime-state.md, "Device identity"; TPM 2.0 Library, parts 2 and 3. A few commands are
written out here, so neither libraries nor tools are needed. The hierarchies' passwords are taken to be
empty, as they are unless somebody set them, and nothing is bound to measured boot: an update of the
firmware must not lock an honest device out. Nobody looks whether the module is a real one: who owns the
machine can put a program in its place.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Protocol

from sealpack.runtime import machine

DEVICE = "dev/tpmrm0"  # the kernel's resource manager, below machine.ROOT
COUNTER = 0x0181_5EA1  # an index of the owner's range
MAX_SECRET = 128  # bytes that can be sealed
_MAX_RESPONSE = 4096

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_PASSWORD = struct.pack(">IIHBH", 9, 0x4000_0009, 0, 0, 0)  # one session: the empty password
_OWNER, _ENDORSEMENT = 0x4000_0001, 0x4000_000B
_CREATE_PRIMARY, _CREATE, _LOAD, _UNSEAL, _FLUSH = 0x131, 0x153, 0x157, 0x15E, 0x165
_NV_DEFINE, _NV_INCREMENT, _NV_READ, _NV_READ_PUBLIC = 0x12A, 0x134, 0x14E, 0x169
_SHA256, _NULL, _AES, _CFB, _P256, _ECC, _KEYED_HASH = 0x0B, 0x10, 0x06, 0x43, 0x03, 0x23, 0x08
# Of the endorsement key profile: who may use that key. It is only looked at here.
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
# fixedTPM, fixedParent, sensitiveDataOrigin, restricted, decrypt; the user's own with noDA, or by policy
_SRK_ATTRIBUTES, _EK_ATTRIBUTES, _SEALED_ATTRIBUTES = 0x30472, 0x300B2, 0x452
_COUNTER_ATTRIBUTES = 0x0206_0016  # counter; owner and own password read and write; no lock-out


class TpmError(Exception):
    """The module refused, or is not there any more; says why."""


class Tpm(Protocol):
    """What the runtime asks of a module; every method raises :class:`TpmError`."""

    def seal(self, secret: bytes) -> bytes:
        """A blob that only this module opens, for at most 128 bytes."""
        ...

    def unseal(self, blob: bytes) -> bytes:
        """What was sealed here."""
        ...

    def identity(self) -> bytes:
        """The public endorsement key: another one in each module, the same for its whole life."""
        ...

    def counter(self, index: int = COUNTER) -> int:
        """A number that only grows, 0 when nobody counted yet."""
        ...

    def increment(self, index: int = COUNTER) -> int:
        """Count one up, durably, and return it. Modules bear some 100,000 of these: not once a call."""
        ...


class Transport(Protocol):
    """Carries one command and its response."""

    def send(self, command: bytes) -> bytes:
        """OSError when it cannot."""
        ...


class DeviceFile:
    """The kernel's device, which keeps what several programs do with the module apart."""

    def __init__(self, path: Path) -> None:
        """OSError when it is not there or not ours to use."""
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def send(self, command: bytes) -> bytes:
        """Write, then read."""
        os.write(self._file, command)
        return os.read(self._file, _MAX_RESPONSE)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            os.close(file)


def find() -> Tpm | None:
    """This machine's module, or None when there is none that this user may use."""
    try:
        return Tpm2(DeviceFile(machine.ROOT / DEVICE))
    except OSError:
        return None


class Tpm2:
    """A TPM 2.0 module behind a transport."""

    def __init__(self, transport: Transport) -> None:
        """Nothing is sent yet."""
        self._transport = transport

    def seal(self, secret: bytes) -> bytes:
        """See :class:`Tpm`."""
        if not 0 < len(secret) <= MAX_SECRET:
            raise ValueError(f"{len(secret)} bytes cannot be sealed")
        template = struct.pack(">HHIHHH", _KEYED_HASH, _SHA256, _SEALED_ATTRIBUTES, 0, _NULL, 0)
        sensitive = struct.pack(">H", 0) + _sized(secret)
        parent = self._storage_key()
        try:
            command = _sized(sensitive) + _sized(template) + struct.pack(">HI", 0, 0)
            response = self._run(_CREATE, struct.pack(">I", parent), command)[4:]
        finally:
            self._flush(parent)
        private, rest = _take(response)
        public, _ = _take(rest)
        return _sized(private) + _sized(public)

    def unseal(self, blob: bytes) -> bytes:
        """See :class:`Tpm`."""
        parent = self._storage_key()
        try:
            loaded = self._run(_LOAD, struct.pack(">I", parent), blob)
        finally:
            self._flush(parent)
        handle = int.from_bytes(loaded[:4])
        try:
            return _take(self._run(_UNSEAL, struct.pack(">I", handle))[4:])[0]
        finally:
            self._flush(handle)

    def identity(self) -> bytes:
        """See :class:`Tpm`. The elliptic curve key: modules make it in a fraction of a second."""
        unique = _sized(bytes(32)) * 2
        handle, public = self._primary(_ENDORSEMENT, _EK_ATTRIBUTES, _EK_POLICY, unique)
        self._flush(handle)
        return public

    def counter(self, index: int = COUNTER) -> int:
        """See :class:`Tpm`."""
        if not self._is_defined(index):
            return 0
        command = struct.pack(">HH", 8, 0)
        try:
            value, _ = _take(self._run(_NV_READ, struct.pack(">II", index, index), command)[4:])
        except TpmError as error:
            if str(error).endswith("0x14a"):  # defined, but nobody counted yet
                return 0
            raise
        return int.from_bytes(value)

    def increment(self, index: int = COUNTER) -> int:
        """See :class:`Tpm`."""
        if not self._is_defined(index):
            public = struct.pack(">IHIHH", index, _SHA256, _COUNTER_ATTRIBUTES, 0, 8)
            self._run(_NV_DEFINE, struct.pack(">I", _OWNER), struct.pack(">H", 0) + _sized(public))
        self._run(_NV_INCREMENT, struct.pack(">II", index, index))
        return self.counter(index)

    def _is_defined(self, index: int) -> bool:
        try:
            self._run(_NV_READ_PUBLIC, struct.pack(">I", index), sessions=False)
        except TpmError as error:
            if str(error).endswith("0x18b"):  # TPM_RC_HANDLE, first handle
                return False
            raise
        return True

    def _storage_key(self) -> int:
        """The handle of the storage key, which a module makes the same each time."""
        return self._primary(_OWNER, _SRK_ATTRIBUTES, b"", struct.pack(">HH", 0, 0))[0]

    def _primary(self, hierarchy: int, attributes: int, policy: bytes, unique: bytes) -> tuple[int, bytes]:
        """Make a primary P-256 key; its handle and its public area."""
        template = struct.pack(">HHI", _ECC, _SHA256, attributes) + _sized(policy)
        template += struct.pack(">HHHHHH", _AES, 128, _CFB, _NULL, _P256, _NULL) + unique
        sensitive = _sized(struct.pack(">HH", 0, 0))
        command = sensitive + _sized(template) + struct.pack(">HI", 0, 0)
        response = self._run(_CREATE_PRIMARY, struct.pack(">I", hierarchy), command)
        return int.from_bytes(response[:4]), _take(response[8:])[0]

    def _flush(self, handle: int) -> None:
        self._run(_FLUSH, struct.pack(">I", handle), sessions=False)

    def _run(self, code: int, handles: bytes, parameters: bytes = b"", *, sessions: bool = True) -> bytes:
        """One command; what follows the header of its response: a handle comes before sized bytes."""
        body = handles + (_PASSWORD if sessions else b"") + parameters
        tag = _SESSIONS if sessions else _NO_SESSIONS
        try:
            response = self._transport.send(struct.pack(">HII", tag, 10 + len(body), code) + body)
        except OSError as error:
            raise TpmError(f"the TPM does not answer: {error.strerror or error}") from None
        if len(response) < 10:
            raise TpmError(f"the TPM answers with {len(response)} bytes")
        result = int.from_bytes(response[6:10])
        if result:
            raise TpmError(f"the TPM refuses command {code:#x} with {result:#x}")
        return response[10:]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """The sized bytes at the beginning, and the rest."""
    size = int.from_bytes(data[:2])
    if len(data) < 2 + size:
        raise TpmError("the TPM's answer is cut short")
    return data[2 : 2 + size], data[2 + size :]
