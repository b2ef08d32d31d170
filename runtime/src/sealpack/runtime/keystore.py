"""Where the device's private keys are: sealed in a TPM where one can be used, else in files of mode 0600.

Source: specs/runtime-state.md, "Device identity". What a TPM sealed is a blob beside the place where the
file would be; on any other machine it opens nothing.
"""

from __future__ import annotations

from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.runtime import tpm
from sealpack.runtime.home import Home, write_once

FILE, TPM = "file", "tpm"
SEED_SIZE = 32  # of both keys
_MAX_BLOB = 4096


def holds(path: Path) -> bool:
    """Whether the key of that name was made, in whatever store."""
    return path.exists() or _sealed(path).exists()


def of(home: Home) -> str | None:
    """The store of the device key, `tpm` or `file`; None before it was made."""
    if _sealed(home.device_key).exists():
        return TPM
    return FILE if home.device_key.exists() else None


def keep(path: Path, seed: bytes, plain: bytes) -> None:
    """Store a new key: its seed in the TPM, else `plain`, its file form. Who stored first is who counts."""
    module = tpm.find()
    if module is not None:
        try:
            blob = module.seal(seed)
            if module.unseal(blob) == seed:  # a key that cannot be got back would be a lost device
                write_once(_sealed(path), blob)
                return
        except tpm.TpmError:
            pass  # it has a password, or is locked: then it is no store
    write_once(path, plain)


def unsealed(path: Path) -> bytes | None:
    """The seed that a TPM holds; None when the key is a file. DEVICE_KEY_MISSING, STATE_TAMPERED."""
    blob = _sealed(path)
    if not blob.exists():
        return None
    module = tpm.find()
    if module is None:
        raise _locked(path, "this machine has none that you may use")
    try:
        seed = module.unseal(read_bounded(blob, _MAX_BLOB))
    except tpm.TpmError as error:
        raise _locked(path, f"this machine's does not open it ({error})") from None
    if len(seed) != SEED_SIZE:
        raise SealpackError("STATE_TAMPERED", f"{blob} is not a key that was made here")
    return seed


def _sealed(path: Path) -> Path:
    return path.with_name(path.name + ".tpm")


def _locked(path: Path, why: str) -> SealpackError:
    return SealpackError(
        "DEVICE_KEY_MISSING",
        f"the key {path.name} is sealed in a TPM, and {why}",
        remedy="use the machine it was made on, as the same user; else begin with a new state directory: "
        "`sealpack activate request --state DIR`",
    )
