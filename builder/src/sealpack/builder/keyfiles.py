"""Private keys on a creator's disk: 0600, beside their public half, optionally under a passphrase.

Source: specs/keys.md, section "Files".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded
from sealpack.format.keys import ML_DSA, PrivateKey, PublicKey
from sealpack.format.trust import KeyEntry

PRIVATE_MODE = 0o600
_MAX_KEY_FILE = 64 * 1024


def write_pair(path: Path, key: PrivateKey, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write `path` (private) and `<stem>.pub.pem`; OUTPUT_EXISTS when either is there already."""
    public = public_path(path)
    for target in (path, public):
        if target.exists():
            raise SealpackError("OUTPUT_EXISTS", f"{target} already exists; keys are never replaced")
    atomic_write(path, key.to_pem(passphrase), mode=PRIVATE_MODE, replace=False)
    try:
        atomic_write(public, key.public.pem.encode("ascii"), replace=False)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, public


def write_with_mldsa(
    path: Path, key: PrivateKey, mldsa: PrivateKey, passphrase: bytes | None = None
) -> tuple[Path, Path, Path, Path]:
    """Write a key pair and, beside it, its ML-DSA key pair: all four files or none; OUTPUT_EXISTS."""
    written = write_pair(path, key, passphrase)
    try:
        return *written, *write_pair(mldsa_path(path), mldsa, passphrase)
    except BaseException:
        for made in written:
            made.unlink(missing_ok=True)
        raise


def mldsa_path(path: Path) -> Path:
    """Where the ML-DSA key beside the key file `path` stands: NAME.mldsa.pem, NAME.mldsa.pub.pem."""
    ending = ".pub.pem" if path.name.endswith(".pub.pem") else ".pem"
    return path.with_name(path.name.removesuffix(ending) + ".mldsa" + ending)


def public_path(path: Path) -> Path:
    """Where the public half of the private key file `path` stands."""
    return path.with_name(path.name.removesuffix(".pem") + ".pub.pem")


def load_public(path: Path) -> PublicKey:
    """A public key file; KEY_UNREADABLE names the file."""
    data = read_bounded(path, _MAX_KEY_FILE)
    try:
        return PublicKey.from_pem(data.decode("ascii"))
    except (UnicodeDecodeError, SealpackError):
        raise SealpackError("KEY_UNREADABLE", f"{path} is not a public key file") from None


def read_passphrase(path: Path | None) -> bytes | None:
    """The first line of a passphrase file; None without a file, KEY_UNREADABLE when it is empty."""
    if path is None:
        return None
    line = read_bounded(path, _MAX_KEY_FILE).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise SealpackError("KEY_UNREADABLE", f"passphrase file {path} is empty")
    return line


def load_private(path: Path, passphrase_file: Path | None = None) -> PrivateKey:
    """A private key file, with its passphrase from a file where one is given; KEY_UNREADABLE."""
    return PrivateKey.load(path, read_passphrase(passphrase_file))


def load_mldsa(
    given: Path | None, beside: Path, entry: KeyEntry | None, passphrase_file: Path | None = None
) -> PrivateKey | None:
    """The ML-DSA key to sign with: the file `given`, else the one beside the key file `beside`.

    The latter only where the keyring's `entry` lists an ML-DSA key, so that a file which happens to lie
    there changes nothing. None when there is none; KEY_UNREADABLE.
    """
    if given is None:
        if entry is None or entry.mldsa is None or not mldsa_path(beside).exists():
            return None
        given = mldsa_path(beside)
    key = load_private(given, passphrase_file)
    if key.scheme != ML_DSA:
        raise SealpackError("KEY_UNREADABLE", f"{given} is an {key.scheme} key, not {ML_DSA}")
    return key


def load_public_mldsa(beside: Path) -> PublicKey:
    """The public ML-DSA key that belongs to the key file `beside`; FILE_MISSING, KEY_UNREADABLE."""
    private = mldsa_path(beside)
    path = private if is_public(beside) else public_path(private)
    key = load_public(path)
    if key.scheme != ML_DSA:
        raise SealpackError("KEY_UNREADABLE", f"{path} is an {key.scheme} key, not {ML_DSA}")
    return key


def load_any(path: Path, passphrase_file: Path | None = None) -> PublicKey:
    """The public key of a public or a private key file."""
    return load_public(path) if is_public(path) else load_private(path, passphrase_file).public


def is_public(path: Path) -> bool:
    """Whether a key file holds a public key."""
    return b"PUBLIC KEY" in read_bounded(path, _MAX_KEY_FILE)


def load_with_any(path: Path, passphrase_files: Sequence[Path]) -> PrivateKey:
    """A private key file, with the first of the passphrases that opens it, or none; KEY_UNREADABLE."""
    failure: SealpackError | None = None
    for passphrase_file in (*passphrase_files, None):
        try:
            return load_private(path, passphrase_file)
        except SealpackError as error:
            if error.code != "KEY_UNREADABLE":
                raise
            failure = failure or error  # "the passphrase is wrong" says more than "one is needed"
    assert failure is not None
    raise failure
