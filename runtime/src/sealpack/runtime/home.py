"""The state directory: where it is, and whether it is safe to keep secrets and counters in.

Source: specs/runtime-state.md, "Directory". It belongs to the user who runs the runtime, is no link,
and lies on a local file system: locks and synced writes are promises that network file systems break.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, io_error
from sealpack.runtime import machine

ENVIRONMENT = "SEALPACK_STATE"
MARKS_ENVIRONMENT = "SEALPACK_MARKS"
_SECRET_BYTES = 32
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(
    r"(nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|glusterfs|lustre|beegfs|gpfs|orangefs|davfs|9p|vboxsf)"
    r"|fuse\.(ceph|glusterfs|sshfs|rclone|s3fs|davfs2|vmhgfs-fuse)"
)


@dataclass(frozen=True, slots=True)
class Home:
    """A state directory that was checked. Every folder in it is 0700, every file 0600 or less."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.path / "state.db"

    @property
    def store(self) -> Path:
        """The runtime's own bundle copies."""
        return self.path / "store"

    @property
    def owners(self) -> Path:
        """Lock files of the processes that hold reservations."""
        return self.path / "owners"

    @property
    def rates(self) -> Path:
        """What calls of a license share that need not survive a reboot."""
        return self.path / "rates"

    @property
    def device_key(self) -> Path:
        """The device's private key."""
        return self.path / "device.key"

    @property
    def hpke_key(self) -> Path:
        """The seed of the device's key for wrapped keys."""
        return self.path / "device.hpke"

    def secret(self) -> bytes:
        """The per-install secret that authenticates store records; made on first use."""
        path = self.path / "secret"
        if not path.exists():
            write_once(path, secrets.token_bytes(_SECRET_BYTES))
        try:
            value = path.read_bytes()
        except OSError as error:
            raise io_error(error, path, "read") from None
        if len(value) != _SECRET_BYTES:
            raise SealpackError("STATE_TAMPERED", f"{path} is {len(value)} bytes, not {_SECRET_BYTES}")
        return value


def write_once(path: Path, secret: bytes) -> None:
    """Write a private file unless another process was first: then its content is the one that counts."""
    try:
        atomic_write(path, secret, mode=0o600, replace=False)
    except SealpackError as error:
        if error.code != "OUTPUT_EXISTS":
            raise


def default_path() -> Path:
    """`SEALPACK_STATE`, else the user's data directory."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    try:
        import platformdirs
    except ModuleNotFoundError:
        raise SealpackError(
            "EXTRA_MISSING",
            "the default state directory needs platformdirs, which is not installed",
            remedy="pip install 'sealpack[runtime]', or name a directory with --state",
        ) from None
    return Path(platformdirs.user_data_dir("sealpack"))


def marks_path() -> Path | None:
    """Where high-water marks are kept, away from the state: `SEALPACK_MARKS`, else in the user's own.

    None where there is no such place.
    """
    named = os.environ.get(MARKS_ENVIRONMENT)
    if named:
        return Path(named)
    try:
        import platformdirs
    except ModuleNotFoundError:
        return None
    return Path(platformdirs.user_state_dir("sealpack")) / "marks"


def open_home(path: str | os.PathLike[str] | None = None, *, create: bool = True) -> Home:
    """The state directory, made when missing and `create`; STATE_MISSING, STATE_UNSAFE, STORE_*."""
    if path is not None and not os.fspath(path):
        raise SealpackError("USAGE", "the name of the state directory is empty")
    home = Home(Path(path) if path is not None else default_path())
    if not home.path.exists() and not home.path.is_symlink():
        if not create:
            first = "`sealpack install BUNDLE`" if machine.frozen() else "`sealpack trust pin trust.json`"
            raise SealpackError(
                "STATE_MISSING",
                f"there is no state in {home.path}",
                remedy=f"run {first} first, or name the right directory with --state",
            )
        _make(home.path)
    _check(home.path)
    for folder in (home.store, home.owners, home.rates):
        if create and not folder.exists():
            _make(folder)
        if folder.is_symlink():
            raise SealpackError("STATE_UNSAFE", f"{folder} is a link")
    database = home.database.name
    files = (database, f"{database}-wal", f"{database}-shm", "device.key", "device.hpke", "secret")
    for name in files:
        _require_plain(home.path / name)
    return home


def _require_plain(path: Path) -> None:
    """A link may lead to another file system, and a pipe would be waited for: STATE_UNSAFE."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise io_error(error, path, "read") from None
    if not stat.S_ISREG(mode):
        raise SealpackError("STATE_UNSAFE", f"{path} is not a regular file")


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise io_error(error, path, "write") from None


def _check(path: Path) -> None:
    if path.is_symlink():
        raise SealpackError("STATE_UNSAFE", f"{path} is a link")
    try:
        found = path.stat()
    except OSError as error:
        raise io_error(error, path, "read") from None
    if not stat.S_ISDIR(found.st_mode):
        raise SealpackError("STATE_UNSAFE", f"{path} is not a directory")
    if found.st_uid != os.geteuid():
        raise SealpackError("STATE_UNSAFE", f"{path} belongs to user {found.st_uid}, not to you")
    if found.st_mode & 0o022:
        raise SealpackError("STATE_UNSAFE", f"{path} can be written by other users", remedy="chmod 700 it")
    kind = file_system(path)
    if _NETWORK.fullmatch(kind):
        raise SealpackError("STATE_UNSAFE", f"{path} lies on a network file system ({kind})")


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system `path` lies on, from the mount table; "" where there is none."""
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    target = path.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_unescape(fields.split(" ")[4]))
        # A later line covers an earlier one at the same point.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
