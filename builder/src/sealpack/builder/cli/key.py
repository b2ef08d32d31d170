"""`sealpack key`: make and look at signing keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.keys import PrivateKey, PublicKey


@click.group(short_help="Make and look at signing keys.")
def key() -> None:
    """Make and look at signing keys."""


@key.command(short_help="Make a key pair.")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option(
    "--scheme",
    type=click.Choice(("ecdsa-p256-sha256", "ed25519", "ml-dsa-65")),
    default="ecdsa-p256-sha256",
    show_default=True,
    help="ecdsa-p256-sha256 for root, bundle and license keys, ml-dsa-65 for a key that signs beside one of "
    "these; ed25519 for settlement and witness.",
)
@click.option("--with-mldsa", is_flag=True, help="Make the ML-DSA-65 key that signs beside it too.")
@click.option(
    "--token", "token_uri", metavar="URI", help="Make it on this PKCS#11 token; PATH is its public key file."
)
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase and encrypt the key file.")
@support.passphrase_option
@support.format_option
def new(
    path: str,
    scheme: str,
    with_mldsa: bool,
    token_uri: str | None,
    encrypt: bool,
    passphrase_file: str | None,
    fmt: str,
) -> None:
    """Make a key: PATH (private, mode 0600) and its public half beside it, NAME.pub.pem.

    With --with-mldsa a post-quantum key for a second signature too: NAME.mldsa.pem and NAME.mldsa.pub.pem,
    under the same passphrase. With --token pkcs11:token=NAME;object=LABEL the private key is made on that
    token and can never be read out of it; PATH gets the public half. The PIN comes from the file named by
    pin-source in the URI, from SEALPACK_PIN, or from the terminal.
    """
    from sealpack.builder import keyfiles
    from sealpack.format.keys import ECDSA, ML_DSA, PrivateKey

    if token_uri is not None:
        if scheme != ECDSA or with_mldsa or encrypt:
            raise SealpackError("USAGE", f"a key on a token is an {ECDSA} key, protected by the token's PIN")
        facts = _made_on_token(token_uri, Path(path))
        support.emit(facts, _lines(facts), fmt)
        return
    if with_mldsa and scheme != ECDSA:
        raise SealpackError("USAGE", f"an ML-DSA key stands beside an {ECDSA} key, not beside {scheme}")
    passphrase = support.passphrase(
        passphrase_file, prompt="Passphrase for the key", confirm=True, required=encrypt
    )
    made = PrivateKey.generate(scheme)
    if not with_mldsa:
        facts = _made(made, *keyfiles.write_pair(Path(path), made, passphrase))
        support.emit(facts, _lines(facts), fmt)
        return
    second = PrivateKey.generate(ML_DSA)
    private, public, *beside = keyfiles.write_with_mldsa(Path(path), made, second, passphrase)
    facts, more = _made(made, private, public), _made(second, *beside)
    support.emit(facts | {"mldsa": more}, f"{_lines(facts)}\n\n{_lines(more)}", fmt)


@key.command(short_help="Print a public key's id and fingerprint words.")
@click.argument("path", type=click.Path(dir_okay=False))
@support.passphrase_option
@support.format_option
def show(path: str, passphrase_file: str | None, fmt: str) -> None:
    """Print scheme, key id and fingerprint words of the public or private key file PATH.

    PATH may be a pkcs11: URI: the public half is read from the token, without a PIN.
    """
    from sealpack.builder import keyfiles

    found = keyfiles.load_any(path, Path(passphrase_file) if passphrase_file else None)
    facts = _facts(found)
    support.emit(facts | {"pem": found.pem}, _lines(facts), fmt)


def _made_on_token(uri: str, path: Path) -> dict[str, Any]:
    from sealpack.builder import token
    from sealpack.builder.key_uri import KeyUri
    from sealpack.format.files import atomic_write

    if path.exists():
        raise SealpackError(
            "OUTPUT_EXISTS", f"{path} already exists; keys are never replaced", remedy="choose another name"
        )
    named = KeyUri.parse(uri)
    with token.generate(named) as public:
        atomic_write(path, public.pem.encode("ascii"), replace=False)
    return _facts(public) | {"private": str(named), "public": str(path)}


def _made(key: PrivateKey, private: Path, public: Path) -> dict[str, Any]:
    return _facts(key.public) | {"private": str(private), "public": str(public)}


def _facts(public: PublicKey) -> dict[str, Any]:
    from sealpack.format.words import fingerprint_words

    return {
        "schema": "sealpack/key-info/v1",
        "scheme": public.scheme,
        "keyid": public.keyid,
        "words": fingerprint_words(public.keyid),
    }


def _lines(facts: dict[str, Any]) -> str:
    names = ("private", "public", "scheme", "keyid", "words")
    return "\n".join(f"{name:<8} {facts[name]}" for name in names if name in facts)
