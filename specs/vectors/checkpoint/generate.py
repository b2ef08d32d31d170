"""Write the checkpoint vectors: `python specs/vectors/checkpoint/generate.py [FOLDER]`.

Each case is `case.json` and the `note` it talks about. A reader opens the note with every key in `keys`
(PEM, by name); where `cosigner` is given it also opens that cosignature.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from sealpack.format.keys import PrivateKey
from sealpack.format.merkle import leaf_hash, root_of
from sealpack.format.note import Checkpoint, cosign, sign_checkpoint

DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
DEVICE_2 = PrivateKey.from_seed(b"sealpack test vector device key2")
STRANGER = PrivateKey.from_seed(b"sealpack test vector other key!!")
WITNESS = PrivateKey.from_seed(b"sealpack test vector witness key")
WITNESS_NAME = "settlement.test.example/witness"
TIME = 1_790_000_000
ORIGIN = "sealpack/usage/test-license/dev-0123456789abcdef0123456789abcdef/0"
POINT = Checkpoint(ORIGIN, 3, root_of([leaf_hash(b"%d" % n) for n in range(3)]))


def noted(text: str, key: PrivateKey = DEVICE) -> bytes:
    """Sign any text the way a checkpoint is signed."""
    whole = sign_checkpoint(POINT, key)
    name_and_id = whole.split("— ".encode())[1].decode().split(" ")
    blob = base64.b64decode(name_and_id[1])[:4] + key.sign(text.encode())
    return f"{text}\n— {name_and_id[0]} {base64.b64encode(blob).decode()}\n".encode()


def cases() -> dict[str, tuple[dict[str, Any], bytes]]:
    """Return (case.json, note) by folder name."""
    made: dict[str, tuple[dict[str, Any], bytes]] = {}
    good = sign_checkpoint(POINT, DEVICE)
    text = POINT.text
    origin, size, root = text.splitlines()

    def add(name: str, description: str, expect: str, note: bytes, *keys: PrivateKey, **more: Any) -> None:
        pems = [key.public.pem for key in keys or (DEVICE,)]
        made[name] = ({"description": description, "expect": expect, "keys": pems, **more}, note)

    def bad(name: str, description: str, note: bytes, *keys: PrivateKey, **more: Any) -> None:
        add(name, description, "CHECKPOINT_INVALID", note, *keys, **more)

    point = {"origin": POINT.origin, "size": POINT.size, "root": POINT.root.hex()}
    add("good", "A device's checkpoint.", "ok", good, checkpoint=point)
    add(
        "two-keys",
        "A checkpoint over a key rotation.",
        "ok",
        sign_checkpoint(POINT, DEVICE, DEVICE_2),
        DEVICE,
        DEVICE_2,
    )
    add("unknown-signature-ignored", "A stranger signed too.", "ok", sign_checkpoint(POINT, STRANGER, DEVICE))
    cosigned = cosign(good, WITNESS_NAME, WITNESS, TIME)
    cosigner = {"name": WITNESS_NAME, "key": WITNESS.public.pem, "time": TIME}
    add("cosigned", "With settlement's cosignature.", "ok", cosigned, cosigner=cosigner)

    bad("wrong-key", "Signed by another key.", sign_checkpoint(POINT, STRANGER))
    bad("second-key-missing", "A rotation that only the old key signed.", good, DEVICE, DEVICE_2)
    bad("signature-flipped", "One bit of the signature.", _flip_signature(good))
    bad("size-changed", "The signed size was changed.", good.replace(b"\n3\n", b"\n4\n"))
    bad(
        "root-changed",
        "The signed root was changed.",
        good.replace(root.encode(), base64.b64encode(bytes(32))),
    )
    bad("no-signature", "Text without a signature block.", text.encode())
    bad("empty-signature-block", "A blank line and nothing after it.", text.encode() + b"\n")
    bad("signed-twice", "The same signature line twice.", good + good.split(b"\n\n")[1])
    bad("crlf", "Line ends of another system.", good.replace(b"\n", b"\r\n"))
    bad("last-newline-missing", "The last line is not ended.", good[:-1])
    bad("hyphen-for-dash", "A hyphen where the em dash belongs.", good.replace("—".encode(), b"-"))
    bad("size-leading-zero", "03 for 3, signed.", noted(f"{origin}\n03\n{root}\n"))
    bad("size-negative", "-3, signed.", noted(f"{origin}\n-3\n{root}\n"))
    bad("size-above-2-53", "2^53, signed.", noted(f"{origin}\n9007199254740992\n{root}\n"))
    bad("root-url-safe", "The other base64 alphabet, signed.", noted(f"{origin}\n{size}\n{'_' * 43}=\n"))
    bad(
        "root-short",
        "A root of 31 bytes, signed.",
        noted(f"{origin}\n{size}\n{base64.b64encode(bytes(31)).decode()}\n"),
    )
    bad("extension-line", "A fourth line, signed.", noted(f"{text}more\n"))
    bad("other-origin", "The key name is not the origin.", noted(f"sealpack/usage/other/0\n{size}\n{root}\n"))
    bad("cosignature-time-changed", "Its time was changed.", _change_time(cosigned), cosigner=cosigner)
    bad("cosignature-missing", "No cosignature at all.", good, cosigner=cosigner)
    bad(
        "cosignature-by-another",
        "Another witness of that name.",
        cosign(good, WITNESS_NAME, STRANGER, TIME),
        cosigner=cosigner,
    )
    return made


def _flip_signature(note: bytes) -> bytes:
    head, _, line = note.decode().rpartition(" ")
    blob = bytearray(base64.b64decode(line))
    blob[-1] ^= 1
    return f"{head} {base64.b64encode(blob).decode()}\n".encode()


def _change_time(note: bytes) -> bytes:
    head, _, line = note.decode().rpartition(" ")
    blob = bytearray(base64.b64decode(line))
    blob[11] ^= 1  # last byte of the time, behind the key id
    return f"{head} {base64.b64encode(blob).decode()}\n".encode()


def main(folder: Path) -> None:
    """Write one folder per case."""
    for name, (case, note) in cases().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "case.json").write_text(json.dumps(case, indent=2) + "\n")
        (folder / name / "note").write_bytes(note)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
