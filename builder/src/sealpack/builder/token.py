"""Signing keys that never leave a hardware token: PKCS#11, ECDSA P-256.

Source: specs/keys.md, section "Tokens". The message is hashed here and the token signs the digest with
CKM_ECDSA, which every token with P-256 keys offers. Each signature is verified before it is handed on.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sealpack.builder.key_uri import KeyUri
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.keys import ECDSA, PublicKey

if TYPE_CHECKING:
    from pkcs11 import Session, Token

PIN_VARIABLE = "SEALPACK_PIN"
MODULE_VARIABLE = "SEALPACK_PKCS11_MODULE"
_P256 = bytes.fromhex("06082a8648ce3d030107")  # DER of the curve's object identifier
_POINT_BYTES = 65
_SCALAR_BYTES = 32
_MAX_PIN_FILE = 4096


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A :class:`~sealpack.format.keys.Signer` whose private key stays on its token."""

    public: PublicKey
    uri: KeyUri
    _key: Any = field(repr=False, compare=False)
    _pin: str | None = field(repr=False, compare=False)

    @property
    def scheme(self) -> str:
        """The scheme of the key: always ecdsa-p256-sha256."""
        return self.public.scheme

    @property
    def keyid(self) -> str:
        """The keyid of the public half."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """A DER signature, with the token's own random nonce; KEY_TOKEN_FAILED, KEY_TOKEN_FAULTY."""
        from pkcs11 import Mechanism

        with _errors(self.uri):
            raw = self._key.sign(hashlib.sha256(message).digest(), mechanism=Mechanism.ECDSA, pin=self._pin)
        try:
            if len(raw) != 2 * _SCALAR_BYTES:
                raise SealpackError("SIG_MALFORMED", f"{len(raw)} bytes instead of {2 * _SCALAR_BYTES}")
            r, s = (int.from_bytes(part) for part in (raw[:_SCALAR_BYTES], raw[_SCALAR_BYTES:]))
            signature = encode_dss_signature(r, s)
            self.public.verify(signature, message)
        except SealpackError as error:
            raise SealpackError(
                "KEY_TOKEN_FAULTY", f"what {self.uri} signed does not verify: {error.message}"
            ) from None
        return signature


def load(uri: KeyUri) -> TokenKey:
    """Log in and open the one private key that `uri` names.

    KEY_TOKEN_MODULE, _MISSING, _AMBIGUOUS, _PIN, _LOCKED, _OBJECT, _KIND, _FAILED; EXTRA_MISSING.
    """
    _require_library()
    with _errors(uri):
        session, pin = _log_in(uri, rw=False)
        key = _one_key(session, uri)
        public = _public_half(session, key, uri)
        again = pin if _flag(key, "ALWAYS_AUTHENTICATE", False) else None
        return TokenKey(public, uri, key, again)


def load_public(uri: KeyUri) -> PublicKey:
    """The public half of the key that `uri` names, without logging in; errors as :func:`load`."""
    _require_library()
    from pkcs11 import ObjectClass

    with _errors(uri), _token(uri).open() as session:
        found = {key.pem: key for key in map(_public_key, _objects(session, uri, ObjectClass.PUBLIC_KEY))}
        if len(found) > 1:
            raise SealpackError("KEY_TOKEN_AMBIGUOUS", f"{len(found)} keys fit {uri}: name object or id")
        if not found:
            raise _no_object(uri)
        return next(iter(found.values()))


@contextmanager
def generate(uri: KeyUri) -> Iterator[PublicKey]:
    """Make a P-256 key on the token, sensitive and not extractable, and give its public half.

    OUTPUT_EXISTS when an object has this label or id already. The key is removed again when the block
    fails: whoever could not write the public half down has no use for it.
    """
    _require_library()
    from pkcs11 import Attribute, KeyType, Mechanism, PKCS11Error

    if uri.object is None:
        raise SealpackError("KEY_URI", "a new key needs a label: object=NAME in its URI")
    with _errors(uri):
        session, _ = _log_in(uri, rw=True)
        _refuse_existing(session, uri)
        curve = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
        hidden = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.DERIVE: False}
        pair = curve.generate_keypair(
            store=True,
            label=uri.object,
            id=uri.id or secrets.token_bytes(8),
            mechanism=Mechanism.EC_KEY_PAIR_GEN,
            public_template={Attribute.DERIVE: False},
            private_template=hidden,
        )
    try:
        with _errors(uri):
            if _flag(pair[1], "EXTRACTABLE", True) or not _flag(pair[1], "SENSITIVE", False):
                raise SealpackError("KEY_TOKEN_FAULTY", "the token made a key that can be read out")
            public = _public_key(pair[0])
        yield public
    except BaseException:
        for part in pair:
            try:
                part.destroy()
            except PKCS11Error:
                continue
        raise


def _refuse_existing(session: Session, uri: KeyUri) -> None:
    from pkcs11 import Attribute

    asked: list[dict[Attribute, Any]] = [{Attribute.LABEL: uri.object}]
    asked += [{Attribute.ID: uri.id}] if uri.id else []
    if any(list(session.get_objects(attributes)) for attributes in asked):
        raise SealpackError(
            "OUTPUT_EXISTS",
            f"the token has an object named {uri} already; keys are never replaced",
            remedy="choose another label (object) or id",
        )


def _token(uri: KeyUri) -> Token:
    from pkcs11 import TokenFlag

    fitting = [token for token in _tokens(uri) if token.flags & TokenFlag.TOKEN_INITIALIZED]
    for name, of in (
        ("token", lambda t: t.label),
        ("serial", lambda t: bytes(t.serial).decode("utf-8", "replace").rstrip("\0 ")),
        ("manufacturer", lambda t: t.manufacturer_id),
        ("model", lambda t: t.model),
    ):
        if (wanted := getattr(uri, name)) is not None:
            fitting = [token for token in fitting if of(token) == wanted]
    if not fitting:
        raise SealpackError("KEY_TOKEN_MISSING", f"no token fits {uri}")
    if len(fitting) > 1:
        raise SealpackError("KEY_TOKEN_AMBIGUOUS", f"{len(fitting)} tokens fit {uri}: name token or serial")
    return fitting[0]


def _tokens(uri: KeyUri) -> list[Token]:
    import pkcs11

    path = uri.module_path or (Path(os.environ[MODULE_VARIABLE]) if os.environ.get(MODULE_VARIABLE) else None)
    if path is None:
        raise SealpackError(
            "KEY_TOKEN_MODULE", f"no PKCS#11 module: give module-path in the URI, or {MODULE_VARIABLE}"
        )
    if not path.is_absolute():
        raise SealpackError("KEY_TOKEN_MODULE", f"{MODULE_VARIABLE} is not an absolute file name")
    try:
        library = pkcs11.lib(str(path))
    except RuntimeError as error:
        raise SealpackError(
            "KEY_TOKEN_MODULE", f"cannot load PKCS#11 module {path}: {error or type(error).__name__}"
        ) from None
    return [slot.get_token() for slot in library.get_slots(token_present=True)]


def _log_in(uri: KeyUri, *, rw: bool) -> tuple[Session, str | None]:
    """An open session as the token's user, and the PIN unless it is typed on the reader."""
    from pkcs11 import PROTECTED_AUTH, TokenFlag, UserAlreadyLoggedIn

    token = _token(uri)
    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise _locked(uri)
    pin = _pin(uri, pad=bool(token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH))
    try:
        return token.open(rw=rw, user_pin=PROTECTED_AUTH if pin is None else pin), pin
    except UserAlreadyLoggedIn:  # a second key of one token
        return token.open(rw=rw), pin


def _pin(uri: KeyUri, *, pad: bool) -> str | None:
    """The PIN of pin-source, of SEALPACK_PIN or of the terminal; None where the reader has a pad."""
    if uri.pin_source is not None:
        line = read_bounded(uri.pin_source, _MAX_PIN_FILE).split(b"\n", 1)[0].rstrip(b"\r")
        try:
            pin = line.decode("utf-8")
        except UnicodeDecodeError:
            raise SealpackError("KEY_TOKEN_PIN", f"{uri.pin_source} holds no PIN") from None
    elif os.environ.get(PIN_VARIABLE):
        pin = os.environ[PIN_VARIABLE]
    elif pad:
        return None
    elif sys.stdin is not None and sys.stdin.isatty():
        pin = getpass.getpass(f"PIN of {uri}: ")
    else:
        pin = ""
    if not pin:
        raise SealpackError("KEY_TOKEN_PIN", f"the PIN of {uri} is needed: give pin-source or {PIN_VARIABLE}")
    return pin


def _objects(session: Session, uri: KeyUri, kind: Any) -> list[Any]:
    from pkcs11 import Attribute

    wanted = {Attribute.CLASS: kind}
    if uri.object is not None:
        wanted[Attribute.LABEL] = uri.object
    if uri.id is not None:
        wanted[Attribute.ID] = uri.id
    return list(session.get_objects(wanted))


def _one_key(session: Session, uri: KeyUri) -> Any:
    """The one private key: P-256, allowed to sign."""
    from pkcs11 import Attribute, KeyType, ObjectClass

    found = _objects(session, uri, ObjectClass.PRIVATE_KEY)
    if not found:
        raise _no_object(uri)
    if len(found) > 1:
        raise SealpackError("KEY_TOKEN_AMBIGUOUS", f"{len(found)} private keys fit {uri}: name object or id")
    key = found[0]
    if key.key_type != KeyType.EC or bytes(key[Attribute.EC_PARAMS]) != _P256:
        raise _not_p256(uri)
    if not _flag(key, "SIGN", False):
        raise SealpackError("KEY_TOKEN_KIND", f"key {uri} is not allowed to sign")
    return key


def _public_half(session: Session, private: Any, uri: KeyUri) -> PublicKey:
    """From the public key object or certificate with the private key's id; signatures prove it right."""
    from pkcs11 import Attribute, ObjectClass

    shared = Attribute.ID if private[Attribute.ID] else Attribute.LABEL
    same: dict[Attribute, Any] = {shared: private[shared]}
    for key in session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **same}):
        return _public_key(key)
    for certificate in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE, **same}):
        try:
            held = x509.load_der_x509_certificate(bytes(certificate[Attribute.VALUE])).public_key()
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(held, ec.EllipticCurvePublicKey) and isinstance(held.curve, ec.SECP256R1):
            return _from_point(_uncompressed(held))
    raise SealpackError(
        "KEY_TOKEN_OBJECT",
        f"the token has neither public key nor certificate for {uri}",
        remedy="store the public key on the token too, with the private key's id",
    )


def _public_key(key: Any) -> PublicKey:
    from pkcs11 import Attribute, KeyType

    if key.key_type != KeyType.EC or bytes(key[Attribute.EC_PARAMS]) != _P256:
        raise _not_p256(None)
    point = bytes(key[Attribute.EC_POINT])
    # The standard asks for a DER OCTET STRING around the point; some tokens give the bare point.
    return _from_point(point[2:] if point[:2] == bytes((4, _POINT_BYTES)) else point)


def _from_point(point: bytes) -> PublicKey:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise SealpackError("KEY_TOKEN_KIND", "the token's public key is not a point of P-256") from None
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    found = PublicKey.from_pem(key.public_bytes(serialization.Encoding.PEM, info).decode("ascii"))
    assert found.scheme == ECDSA
    return found


def _uncompressed(key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_bytes(serialization.Encoding.X962, form)


def _flag(key: Any, name: str, default: bool) -> bool:
    """A yes-or-no attribute; `default` where the token does not know it."""
    from pkcs11 import Attribute, AttributeTypeInvalid

    try:
        return bool(key[Attribute[name]])
    except AttributeTypeInvalid:
        return default


def _require_library() -> None:
    if importlib.util.find_spec("pkcs11") is None:
        raise SealpackError(
            "EXTRA_MISSING",
            "keys on tokens need python-pkcs11, which is not installed",
            remedy="pip install 'sealpack[pkcs11]'",
        )


@contextmanager
def _errors(uri: KeyUri) -> Iterator[None]:
    """Turn the module's errors into codes."""
    import pkcs11

    try:
        yield
    except pkcs11.PinLocked:
        raise _locked(uri) from None
    except (
        pkcs11.PinIncorrect,
        pkcs11.PinInvalid,
        pkcs11.PinLenRange,
        pkcs11.PinExpired,
        pkcs11.UserPinNotInitialized,
        pkcs11.FunctionCancelled,
    ) as error:
        raise SealpackError("KEY_TOKEN_PIN", f"{uri} refuses the PIN: {type(error).__name__}") from None
    except pkcs11.MechanismInvalid:
        raise SealpackError("KEY_TOKEN_KIND", f"the token of {uri} cannot do ECDSA on P-256") from None
    except pkcs11.PKCS11Error as error:
        said = " ".join(filter(None, (type(error).__name__, str(error))))
        raise SealpackError("KEY_TOKEN_FAILED", f"the token of {uri} failed: {said}") from None


def _locked(uri: KeyUri) -> SealpackError:
    return SealpackError("KEY_TOKEN_LOCKED", f"the PIN of {uri} is locked")


def _no_object(uri: KeyUri) -> SealpackError:
    return SealpackError("KEY_TOKEN_OBJECT", f"the token has no key that fits {uri}")


def _not_p256(uri: KeyUri | None) -> SealpackError:
    return SealpackError("KEY_TOKEN_KIND", f"key {uri or 'on the token'} is not an ECDSA P-256 key")
