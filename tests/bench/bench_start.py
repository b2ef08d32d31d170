"""Start of a plain model from the runtime's store against the same engine mapping the bare file.

Each start is a process of its own, from opening to the first answer, imports apart. `store` checks that the
stored copy is the verified one and loads it in place; `ours` makes every other check of a start too (trust,
license, clock, log, marks) and writes the call's receipt: so much time whatever the size of the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_RUN = "import sys; sys.path[:0] = {paths!r}; import bench_start as b; b.child(*sys.argv[1:])"


def prepare(folder: Path, kind: str, mib: int) -> None:
    """A device with a model of about `mib` MiB installed and licensed, and the bare model beside it."""
    from bench_encrypted import make_gguf, make_onnx
    from support.site import Site, make_license
    from support.world import make_trust

    from sealpack.format.license import BundleGrant

    model = folder / f"model.{kind}"
    (make_gguf if kind == "gguf" else make_onnx)(model, mib)
    site = Site(folder, {}, make_trust()).pin()
    members = {"kind": kind, "model": model.read_bytes(), "model_name": f"payload/model.{kind}"}
    if kind == "onnx":
        data = model.with_name("model.onnx.data").read_bytes()
        members |= {
            "io": {"task": "tensor", "pre": {"kind": "tensor"}, "post": {"kind": "tensor", "output": "y"}},
            "extra": {"payload/model.onnx.data": ("model-data", "application/octet-stream", data)},
            "engine": {"name": "onnxruntime"},
        }
    site.install("big", **members)
    (folder / "big-1.0.0.sealpack").unlink()
    site.activate(make_license(bundles=(BundleGrant("acme/big"),)))
    for path in (*folder.glob(f"model.{kind}*"), *(folder / "state/store").iterdir()):
        _as_read(path)


def _as_read(path: Path) -> None:
    """Fill the page cache by reading: how a file was written decides how fast its cached pages are mapped."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass


def child(folder: str, kind: str, side: str) -> None:
    """Open and answer once; print the seconds."""
    import time

    from sealpack.runtime.engines import choose

    choose._engine(kind)  # imports are not what is measured
    import sealpack.runtime.api  # noqa: F401

    opened = {"ours": _ours, "store": _store, "bare": _bare}[side]
    start = time.perf_counter()
    opened(Path(folder), kind)
    print(json.dumps(time.perf_counter() - start), flush=True)


def _ours(folder: Path, kind: str) -> None:
    import sealpack.runtime

    runtime = sealpack.runtime.open("acme/big", state=folder / "state", threads=1)
    _KEPT.append(runtime)
    if kind == "gguf":
        runtime.generate("the", max_tokens=1)
    else:
        runtime.infer({"x": [0]})


def _store(folder: Path, kind: str) -> None:
    """The installed bundle loaded, without a license's books."""
    from sealpack.runtime import store
    from sealpack.runtime.engines import choose
    from sealpack.runtime.engines.base import Options
    from sealpack.runtime.home import open_home
    from sealpack.runtime.state import State

    with State(open_home(folder / "state")) as state:
        bundle = store.open_installed(state, store.find(state, "acme/big"))
        session = choose.load(bundle.model(None), Options(threads=1))
        session.prepare(_call(kind)).run(None)
        _KEPT.append(session)  # giving it back is not part of a start


def _call(kind: str) -> Any:
    from sealpack.runtime.engines.base import Generate, Infer

    return Generate("the", 1) if kind == "gguf" else Infer({"x": [0]})


def _bare(folder: Path, kind: str) -> None:
    """The same engine on the bare file, mapped: no license, no check, no receipt."""
    from sealpack.format.fields import Fields
    from sealpack.format.io import ModelIo
    from sealpack.runtime.engines import choose
    from sealpack.runtime.engines.base import Options, Span, VerifiedModel

    spans = {}
    for path in folder.glob(f"model.{kind}*"):
        file = path.open("rb", buffering=0)
        role = "model-data" if path.suffix == ".data" else "model"
        spans[f"payload/{path.name}"] = Span(0, path.stat().st_size, role, file.fileno())
        _KEPT.append(file)
    io = {
        "gguf": {"task": "text-generation"},
        "onnx": {"task": "tensor", "pre": {"kind": "tensor"}, "post": {"kind": "tensor", "output": "y"}},
    }[kind]
    name = f"payload/model.{kind}"
    model = VerifiedModel(spans[name].fd or 0, kind, name, spans, ModelIo.parse(Fields(io, "io")), "big")
    session = choose.load(model, Options(threads=1))
    session.prepare(_call(kind)).run(None)
    _KEPT.append(session)


_KEPT: list[object] = []


def start(folder: Path, kind: str, side: str) -> float:
    """Seconds of one start in a process of its own."""
    here = Path(__file__).resolve().parent
    program = _RUN.format(paths=[str(here), str(here.parent)])
    command = [sys.executable, "-c", program, str(folder), kind, side]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds: float = json.loads(out)
    return seconds
