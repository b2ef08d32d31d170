"""Object storage for tests: moto's server, a process of its own on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


@contextmanager
def running() -> Iterator[str]:
    """The address of a server; its buckets are gone when it ends."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=said, stderr=said,
        )  # fmt: skip
        try:
            yield _address(process, said)
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], said: IO[str]) -> str:
    """Where it listens, once it says so."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        said.seek(0)
        found = re.search(r"Running on (http://\S+)", said.read())
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError("moto's server did not start")


def client(address: str) -> Any:
    """boto3's client of the server."""
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=address)
