"""A build against the least a careful person would do by hand: copy the file and hash it, side by side."""

from __future__ import annotations

from pathlib import Path

PEER = "cp {model} {copy} & sha256sum {model} & wait"


def commands(sealpack: str, folder: Path, values: int) -> tuple[list[str], list[str]]:
    """Command lines of the build and of its peer, for a model of `values` float weights in `folder`."""
    from support.world import CREATOR, tiny_gguf

    model, key, text = folder / "m.gguf", folder / "k.pem", folder / "LICENSE.txt"
    model.write_bytes(tiny_gguf(values))
    key.write_bytes(CREATOR.to_pem())
    text.write_text("Do as you please.\n")
    ours = [sealpack, "build", str(model), "--id", "acme/bench", "--bundle-version", "1.0.0"]
    ours += ["--key", str(key), "--spdx", "MIT", "--license-text", str(text)]
    ours += ["--out", str(folder / "bench.sealpack"), "--force"]
    return ours, ["sh", "-c", PEER.format(model=model, copy=folder / "copy.gguf")]
