"""The runtime: runs licensed bundles on machines that are never online, and meters every call.

What it does: keeps its own verified copy of each bundle, checks the license in a fixed order, reserves
usage before a call and writes a signed receipt after it, carries usage out and acknowledgements in.
What it will not do: open a network connection, write a prompt or an answer to disk, or hand one
unverified byte to a model parser. The promise: after a kill or a power cut the log opens clean, and at
most the call that was running is charged as aborted.

Public names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealpack.runtime.api import Answer, Runtime, open

__all__ = ["Answer", "Runtime", "open"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("sealpack.runtime.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
