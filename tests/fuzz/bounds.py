"""The dearest inputs of every reader, and what one of them costs in a process with hard limits.

usage: python tests/fuzz/bounds.py READER SIZE

A *shape* makes an input of about SIZE bytes that is as expensive as the form allows: many tiny values, deep
nesting, one long name above many values, doubled names, huge counts over little data. :func:`steps` counts
calls and returns of Python and C functions (the same on every machine), :func:`memory` the peak of what is
allocated while reading. The command reads every shape of a reader under RLIMIT_AS and RLIMIT_CPU.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import resource
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from support import rawzip, world

from fuzz import containers, documents, logs, models
from sealpack.format import canonical, statement
from sealpack.format.container import MIMETYPE, BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import read_gguf_header
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.onnx_header import read_onnx_header
from sealpack.format.statement import Statement
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import verify_usage
from sealpack.verifier import content

CPU_SECONDS = 120  # a guard against hanging, not a measurement
MEMORY_FLOOR = 512 << 20  # the interpreter, its libraries, and the fixed buffers of specs/limits.md

Read = Callable[[bytes], Any]
Make = Callable[[int], bytes]

# --- JSON: what any document reader must bear -------------------------------------------------------------


def empties(size: int) -> bytes:
    """The most objects for the bytes: `[[],[],...]`."""
    return b"[" + b",".join([b"[]"] * (size // 3)) + b"]"


def maps(size: int) -> bytes:
    """As many empty objects."""
    return b"[" + b",".join([b"{}"] * (size // 3)) + b"]"


def numbers(size: int) -> bytes:
    """The most numbers that are no small constants."""
    return b"[" + b",".join([b"777"] * (size // 4)) + b"]"


def long_name(size: int) -> bytes:
    """One very long name above very many values: costs a square where places are spelled out."""
    return b'{"' + b"k" * (size // 2) + b'":[' + b",".join([b"1"] * (size // 4)) + b"]}"


def long_names(size: int) -> bytes:
    """As many levels as allowed, each with a long name, above very many values."""
    names = b"".join(b'{"' + b"k" * (size // 40) + b'":' for _ in range(14))
    return names + b"[" + b",".join([b"1"] * (size // 4)) + b"]" + b"}" * 14


def members(size: int) -> bytes:
    """The most members of one object."""
    return b"{" + b",".join(b'"%06x":1' % n for n in range(size // 11)) + b"}"


def same_name(size: int) -> bytes:
    """One name again and again."""
    return b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}"


def deep(size: int) -> bytes:
    """Nothing but opening brackets."""
    return b"[" * size


def escapes(size: int) -> bytes:
    """One string of escapes."""
    return b'"' + b"\\u0001" * (size // 6) + b'"'


def wide(size: int) -> bytes:
    """A string that Python holds in four bytes a character because of its last one."""
    return b'"' + b"a" * size + "\U0001f600".encode() + b'"'


def digits(size: int) -> bytes:
    """One number of very many digits."""
    return b"9" * size


JSON: dict[str, Make] = {
    make.__name__: make
    for make in (
        empties,
        maps,
        numbers,
        long_name,
        long_names,
        members,
        same_name,
        deep,
        escapes,
        wide,
        digits,
    )
}


def _json(limit: int) -> Read:
    return lambda data: canonical.loads(data, max_bytes=limit)


# --- documents --------------------------------------------------------------------------------------------


def many_signatures(size: int) -> bytes:
    """A root's envelope with copies of one wrong signature."""
    envelope = world.make_root()
    wrong = {"keyid": envelope.signatures[0].keyid, "sig": documents.dsse.b64encode(b"0" * 70)}
    value = envelope.to_dict() | {"signatures": [wrong] * (size // 190)}
    return canonical.dumps(value)


def many_documents(size: int) -> bytes:
    """A parcel of copies of a small document."""
    one = world.make_root().to_bytes()
    body = b",".join([one] * (size // len(one)))
    return b'{"documents":[' + body + b'],"schema":"sealpack/parcel/v1"}'


def many_resources(size: int) -> bytes:
    """A statement of very many files."""
    names = {f"f{n:07}/x": hashlib.sha256(b"").hexdigest() for n in range(size // 125)}
    return Statement(names, "acme/tiny", 1, "00" * 32, world.T0).to_bytes()


def many_files(size: int) -> bytes:
    """A manifest of very many files."""
    value = json.loads(world.BundleSpec().members()["manifest.json"])
    row = {"media_type": "a/b", "role": "asset", "sha256": "00" * 32, "size": 1}
    value["files"] += [row | {"name": f"z{n:07}"} for n in range(size // 130)]
    return canonical.dumps(value)


def many_keys(size: int) -> bytes:
    """A trust file whose keyring repeats one key."""
    entry = world.key_entry(world.CREATOR, ["bundle"])
    keyring = world.make_keyring(1, [entry] * (size // 800))
    parts = (world.make_root(), keyring, world.make_revocations())
    kinds = dict(zip(("root", "keyring", "revocations"), (e.to_dict() for e in parts), strict=True))
    return canonical.dumps({"schema": "sealpack/trust/v1", **kinds})


# --- containers -------------------------------------------------------------------------------------------


def many_entries(size: int) -> bytes:
    """As many empty entries as the bytes give."""
    return rawzip.build(
        [rawzip.Raw("mimetype", MIMETYPE), *(rawzip.Raw(i.name) for i in _items(size // 150))]
    )


def _items(count: int) -> Any:
    return containers.empty_items(count)


def folders(size: int) -> bytes:
    """Entries with as many folders above each as a name can hold."""
    names = (f"{'a/' * 90}{n:05}" for n in range(size // 520))
    return rawzip.build([rawzip.Raw("mimetype", MIMETYPE), *(rawzip.Raw(name) for name in names)])


def twice(size: int) -> bytes:
    """One name again and again."""
    return rawzip.build([rawzip.Raw("mimetype", MIMETYPE), *([rawzip.Raw("a")] * (size // 150))])


def told_sizes(size: int) -> bytes:
    """A short file whose directory tells of payload that is not there: alignment by the thousand."""
    central = {"size": 1}
    names = (f"payload/{n:05}" for n in range(size // 150))
    return rawzip.build([rawzip.Raw("mimetype", MIMETYPE), *(rawzip.Raw(n, central=central) for n in names)])


def told_directory(size: int) -> bytes:
    """A directory said to be as long as the largest number."""
    return bytes(size) + rawzip.end(length=(1 << 64) - 200, at=0)


# --- logs -------------------------------------------------------------------------------------------------


def zip_bomb(size: int) -> bytes:
    """A usage header, then zeros packed to almost nothing: one line without an end."""
    head = logs.device().header().to_line() + b"\n"
    return gzip.compress(head + bytes(200 * size), mtime=0)


def empty_lines(size: int) -> bytes:
    """Nothing but line ends after the header."""
    return logs.device().header().to_line() + b"\n" * size


def routes(size: int) -> bytes:
    """Genuine signed blocks whose every record names another route."""
    device = logs.Device()
    for n in range(size // 250):
        device.put("u", route=f"r{n}", status="ok", meters={"calls": 1}, wait_ms=0)
    return gzip.decompress(device.export())


# --- models -----------------------------------------------------------------------------------------------


def gguf_pairs(size: int) -> bytes:
    """As many metadata keys as the bytes give."""
    return models.gguf([models.pair(f"k{n:05}", 0, b"\0") for n in range(size // 19)], [])


def gguf_tensors(size: int) -> bytes:
    """As many tensors."""
    return models.gguf(
        [], [models.info(f"{n:06}", (), 0, 32 * n) for n in range(size // 62)], size // 62 * 32
    )


def gguf_backwards(size: int) -> bytes:
    """Tensors in the worst order to sort."""
    count = size // 62
    rows = [models.info(f"{n:06}", (), 0, 32 * (count - 1 - n)) for n in range(count)]
    return models.gguf([], rows, 32 * count)


def gguf_strings(size: int) -> bytes:
    """One array of empty strings."""
    rows = struct.pack("<IQ", 8, size // 8) + bytes(8 * (size // 8))
    return models.gguf([models.pair("tokens", 9, rows)], [])


def gguf_told(size: int) -> bytes:
    """Counts of 2^20 tensors and 2^16 keys over nothing."""
    return b"GGUF" + struct.pack("<IQQ", 3, 1 << 20, 1 << 16) + bytes(size)


def onnx_tensors(size: int) -> bytes:
    """The most initializers: a name, a type, no values."""
    rows = (models.block(5, models.tensor(f"{n:05x}", dims=(0,))) for n in range(size // 14))
    return models.onnx_model(b"".join(rows))


def onnx_nodes(size: int) -> bytes:
    """The most nodes."""
    return models.onnx_model(models.block(1, models.block(4, "A")) * (size // 5))


def onnx_scopes(size: int) -> bytes:
    """Graphs in graphs with names as long as allowed, then the most tensors in the innermost."""
    return _nested(size, 250)


def onnx_long_scopes(size: int) -> bytes:
    """The same with longer names than allowed."""
    return _nested(size, 4000)


def _nested(size: int, length: int) -> bytes:
    inner = b"".join(models.block(5, models.tensor(f"{n:05x}", dims=(0,))) for n in range(size // 14))
    for _ in range(15):
        attribute = models.block(1, "a" * length) + models.block(6, inner)
        inner = models.block(
            1, models.block(3, "n" * length) + models.block(4, "If") + models.block(5, attribute)
        )
    return models.onnx_model(inner)


def onnx_dims(size: int) -> bytes:
    """Tensors of as many and as large dimensions as are read."""
    row = models.block(5, models.tensor("w", dims=(1 << 48,) * 64))
    return models.onnx_model(row * (size // len(row)))


def onnx_same(size: int) -> bytes:
    """One initializer again and again."""
    return models.onnx_model(models.block(5, models.tensor("w", dims=(0,))) * (size // 9))


def onnx_ports(size: int) -> bytes:
    """The most inputs."""
    return models.onnx_model(models.block(11, models.block(1, "i")) * (size // 5))


def onnx_unknown(size: int) -> bytes:
    """Fields of no meaning, the shortest there are."""
    return models.onnx_model(b"", models.number(15, 0) * 0 + models.number(1000, 0) * (size // 3))


def sbom_many(size: int) -> bytes:
    """Components by the thousand, each of them a model."""
    row = b'{"type":"machine-learning-model"}'
    return b'{"bomFormat":"CycloneDX","components":[' + b",".join([row] * (size // 34)) + b"]}"


def _sbom(data: bytes) -> Any:
    return content.sbom(cast(Any, containers.OneFile(data)), containers.MANIFEST, {})


def _bundle(data: bytes) -> Any:
    return BundleReader(io.BytesIO(data))


# reader -> (read, its limit in bytes, shapes). The limit is that of specs/limits.md; where that is very large
# the worst case is tried at 4 MiB.
READERS: dict[str, tuple[Read, int, dict[str, Make]]] = {
    "document": (_json(LIMITS.document_bytes), LIMITS.document_bytes, JSON),
    "signature": (
        statement.read_signature,
        LIMITS.signature_bytes,
        {n: JSON[n] for n in ("empties", "long_name", "long_names", "same_name")},
    ),
    "statement": (Statement.from_bytes, 1 << 19, {"many_resources": many_resources}),
    "envelope": (Envelope.from_bytes, 2 * LIMITS.document_bytes, {"many_signatures": many_signatures}),
    "parcel": (Parcel.from_bytes, LIMITS.parcel_bytes, {"many_documents": many_documents, "maps": maps}),
    "manifest": (Manifest.from_bytes, 1 << 20, {"many_files": many_files, "long_name": long_name}),
    "trust": (Trust.load, LIMITS.document_bytes, {"many_keys": many_keys, "long_name": long_name}),
    "license": (documents.parse_only_license, LIMITS.document_bytes, {"long_name": long_name}),
    "container": (
        _bundle,
        1 << 19,
        {m.__name__: m for m in (many_entries, folders, twice, told_sizes, told_directory)},
    ),
    "usage": (verify_usage, 1 << 20, {m.__name__: m for m in (zip_bomb, empty_lines, routes)}),
    "sbom": (_sbom, 4 << 20, {"sbom_many": sbom_many, "deep": deep, "maps": maps, "digits": digits}),
    "gguf": (
        lambda data: read_gguf_header(io.BytesIO(data)),
        1 << 19,
        {m.__name__: m for m in (gguf_pairs, gguf_tensors, gguf_backwards, gguf_strings, gguf_told)},
    ),
    "onnx": (
        lambda data: read_onnx_header(io.BytesIO(data)),
        1 << 19,
        {
            m.__name__: m
            for m in (
                onnx_tensors,
                onnx_nodes,
                onnx_scopes,
                onnx_long_scopes,
                onnx_dims,
                onnx_same,
                onnx_ports,
                onnx_unknown,
            )
        },
    ),
}
CASES = [f"{reader}/{shape}" for reader, (_, _, shapes) in READERS.items() for shape in shapes]


def limit_of(case: str) -> int:
    """The largest input to try, in bytes."""
    return READERS[case.partition("/")[0]][1]


def attempt(case: str, size: int) -> tuple[Read, bytes]:
    """The reader of a case, and its input of about `size` bytes."""
    reader, _, shape = case.partition("/")
    read, _, shapes = READERS[reader]
    return read, shapes[shape](size)


def outcome(read: Read, data: bytes) -> str:
    """`ok`, or the code of the refusal."""
    try:
        read(data)
    except SealpackError as error:
        return error.code
    return "ok"


def steps(read: Read, data: bytes) -> int:
    """Calls and returns of functions, Python's and C's, while reading."""
    count = 0

    def count_one(*_: Any) -> None:
        nonlocal count
        count += 1

    sys.setprofile(count_one)
    try:
        outcome(read, data)
    finally:
        sys.setprofile(None)
    return count


def memory(read: Read, data: bytes) -> int:
    """The most bytes allocated at once while reading, the input itself apart."""
    outcome(read, data[:64])  # imports and caches
    tracemalloc.start()
    try:
        outcome(read, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> None:
    """Every shape of one reader in this process, under hard limits, at a quarter of `size` and at `size`.

    Prints a line for each: the case, the CPU seconds of both, and how the larger one ended.
    """
    reader, size = sys.argv[1], int(sys.argv[2])
    for case in (case for case in CASES if case.startswith(f"{reader}/")):
        quarter, (told, whole) = limited(case, size // 4)[1], limited(case, size)
        print(f"{case} {quarter:.3f} {whole:.3f} {told}", flush=True)


def limited(case: str, size: int) -> tuple[str, float]:
    """How one input ended under hard limits, and its CPU seconds; making the input is not limited."""
    read, data = attempt(case, size)
    endless = resource.RLIM_INFINITY
    before = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(before) + CPU_SECONDS, endless))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_FLOOR + 40 * len(data), endless))
    told = outcome(read, data)
    resource.setrlimit(resource.RLIMIT_AS, (endless, endless))
    return told, time.process_time() - before


if __name__ == "__main__":
    main()
