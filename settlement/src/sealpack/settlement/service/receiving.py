"""The body of a request, while it keeps within size and speed. Source: specs/service.md, "Limits"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from starlette.requests import Request

from sealpack.format.errors import SealpackError
from sealpack.settlement.service.limits import Limits


async def pieces(
    request: Request, limits: Limits, largest: int, allowed: Callable[[bytes], int] | None = None
) -> AsyncGenerator[bytes, None]:
    """The body piece by piece; REQUEST_TOO_LARGE, UPLOAD_SLOW.

    It is at most `largest` bytes, and at most what `allowed` says of its first four.
    """
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said[:19]) > largest:
        raise _over(largest)
    began, head, size = time.monotonic(), b"", 0
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SealpackError("UPLOAD_SLOW", f"nothing came for {limits.idle_s:g} seconds") from None
        size += len(data)
        head = head if len(head) >= 4 else head + data[:4]
        if size > (most := min(largest, allowed(head) if allowed else largest)):
            raise _over(most)
        if (spent := time.monotonic() - began) > limits.head_start_s + size / limits.bytes_per_s:
            raise SealpackError("UPLOAD_SLOW", f"{size:,} bytes in {spent:.0f} seconds")
        yield data


def _over(limit: int) -> SealpackError:
    shown = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return SealpackError("REQUEST_TOO_LARGE", f"the upload is larger than {shown}")
