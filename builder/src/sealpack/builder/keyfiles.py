"""A creator's keys: files (0600, beside their public half, optionally under a passphrase), or on a token.

Source: specs/keys.md, sections "Files" and "Tokens". A key argument is a file name or a `pkcs11:` URI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sealpack.builder.key_uri import KeyUri, is_uri
from sealpack.format.dsse import b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded
from sealpack.format.hybrid import HybridPrivateKey, HybridPublicKey
from sealpack.format.keys import ML_DSA, PrivateKey, PublicKey, Signer
from sealpack.format.trust import KeyEntry

KeyRef = str | Path  # a file, or (only as str) a pkcs11: URI
PRIVATE_MODE = 0o600
_MAX_KEY_FILE = 64 * 1024

T = TypeVar("T")


def write_pair(path: Path, key: PrivateKey, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write `path` (private) and `<stem>.pub.pem`; OUTPUT_EXISTS when either is there already."""
    return _write_halves(path, key.to_pem(passphrase), public_path(path), key.public.pem.encode("ascii"))


def _write_halves(path: Path, private: bytes, public_path: Path, public: bytes) -> tuple[Path, Path]:
    """Both files of a key or none; OUTPUT_EXISTS when either is there already."""
    for target in (path, public_path):
        if target.exists():
            raise SealpackError(
                "OUTPUT_EXISTS",
                f"{target} already exists; keys are never replaced",
                remedy="choose another name",
            )
    atomic_write(path, private, mode=PRIVATE_MODE, replace=False)
    try:
        atomic_write(public_path, public, replace=False)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, public_path


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


def write_hybrid(path: Path, key: HybridPrivateKey) -> tuple[Path, Path]:
    """Write the seed of a hybrid key to `path`, and its public half beside it, each as one line of base64.

    OUTPUT_EXISTS when either is there already.
    """
    private, public = (b64encode(data).encode() + b"\n" for data in (key.seed, key.public.data))
    return _write_halves(path, private, path.with_name(path.name + ".pub"), public)


def load_hybrid(path: Path) -> HybridPrivateKey:
    """The hybrid key in a file; KEY_UNREADABLE."""
    return _hybrid(path, HybridPrivateKey.from_seed)


def load_hybrid_public(path: Path) -> HybridPublicKey:
    """The public half of one; KEY_UNREADABLE."""
    return _hybrid(path, HybridPublicKey.from_bytes)


def _hybrid(path: Path, read: Callable[[bytes], T]) -> T:
    data = read_bounded(path, _MAX_KEY_FILE)
    try:
        return read(b64decode(data.decode("ascii").rstrip("\n"), str(path)))
    except (UnicodeDecodeError, SealpackError):
        raise SealpackError("KEY_UNREADABLE", f"{path} is no hybrid key file of this kind") from None


def mldsa_path(path: Path) -> Path:
    """Where the ML-DSA key beside the key file `path` stands: NAME.mldsa.pem, NAME.mldsa.pub.pem."""
    ending = ".pub.pem" if path.name.endswith(".pub.pem") else ".pem"
    return path.with_name(path.name.removesuffix(ending) + ".mldsa" + ending)


def public_path(path: Path) -> Path:
    """Where the public half of the private key file `path` stands."""
    return path.with_name(path.name.removesuffix(".pem") + ".pub.pem")


def load_public(ref: KeyRef) -> PublicKey:
    """A public key file (KEY_UNREADABLE names it), or the public half of a key on a token."""
    if is_uri(ref):
        from sealpack.builder import token

        return token.load_public(KeyUri.parse(str(ref)))
    data = read_bounded(ref, _MAX_KEY_FILE)
    try:
        return PublicKey.from_pem(data.decode("ascii"))
    except (UnicodeDecodeError, SealpackError):
        raise SealpackError("KEY_UNREADABLE", f"{ref} is not a public key file") from None


def read_passphrase(path: Path | None) -> bytes | None:
    """The first line of a passphrase file; None without a file, KEY_UNREADABLE when it is empty."""
    if path is None:
        return None
    line = read_bounded(path, _MAX_KEY_FILE).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise SealpackError("KEY_UNREADABLE", f"passphrase file {path} is empty")
    return line


def load_signer(ref: KeyRef, passphrase_file: Path | None = None) -> Signer:
    """The key to sign with: a private key file, or a key on a token, whose PIN no passphrase file holds.

    KEY_UNREADABLE, and the codes of :func:`sealpack.builder.token.load`.
    """
    if is_uri(ref):
        from sealpack.builder import token

        return token.load(KeyUri.parse(str(ref)))
    return load_private(Path(ref), passphrase_file)


def load_private(path: Path, passphrase_file: Path | None = None) -> PrivateKey:
    """A private key file, with its passphrase from a file where one is given; KEY_UNREADABLE."""
    return PrivateKey.load(path, read_passphrase(passphrase_file))


def load_mldsa(
    given: Path | None, beside: KeyRef, entry: KeyEntry | None, passphrase_file: Path | None = None
) -> PrivateKey | None:
    """The ML-DSA key to sign with: the file `given`, else the one beside the key file `beside`.

    The latter only where the keyring's `entry` lists an ML-DSA key, so that a file which happens to lie
    there changes nothing. None when there is none; KEY_UNREADABLE.
    """
    if given is None:
        if entry is None or entry.mldsa is None or is_uri(beside) or not mldsa_path(Path(beside)).exists():
            return None
        given = mldsa_path(Path(beside))
    key = load_private(given, passphrase_file)
    if key.scheme != ML_DSA:
        raise SealpackError("KEY_UNREADABLE", f"{given} is an {key.scheme} key, not {ML_DSA}")
    return key


def mldsa_beside(ref: KeyRef) -> Path:
    """:func:`mldsa_path` of a key file; USAGE for a key on a token, which has no file beside it."""
    if is_uri(ref):
        raise SealpackError("USAGE", "--mldsa takes key files: no ML-DSA key stands beside a key on a token")
    return mldsa_path(Path(ref))


def load_public_mldsa(beside: KeyRef) -> PublicKey:
    """The public ML-DSA key that belongs to the key file `beside`; FILE_MISSING, KEY_UNREADABLE, USAGE."""
    private = mldsa_beside(beside)
    path = private if is_public(beside) else public_path(private)
    key = load_public(path)
    if key.scheme != ML_DSA:
        raise SealpackError("KEY_UNREADABLE", f"{path} is an {key.scheme} key, not {ML_DSA}")
    return key


def load_any(ref: KeyRef, passphrase_file: Path | None = None) -> PublicKey:
    """The public key of a public or a private key file, or of a key on a token."""
    if is_uri(ref) or is_public(ref):
        return load_public(ref)
    return load_private(Path(ref), passphrase_file).public


def is_public(ref: KeyRef) -> bool:
    """Whether a key file holds a public key; a key on a token is a private one."""
    return not is_uri(ref) and b"PUBLIC KEY" in read_bounded(ref, _MAX_KEY_FILE)


def load_with_any(ref: KeyRef, passphrase_files: Sequence[Path]) -> Signer:
    """:func:`load_signer`; a private key file with the first of the passphrases that opens it, or none."""
    failure: SealpackError | None = None
    for passphrase_file in (*passphrase_files, None):
        try:
            return load_signer(ref, passphrase_file)
        except SealpackError as error:
            if error.code != "KEY_UNREADABLE":
                raise
            failure = failure or error  # "the passphrase is wrong" says more than "one is needed"
    assert failure is not None
    raise failure
