"""Rules of every test run: no telemetry, no network proxies, and in CI no skipped test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.postgres import Server

# onnxruntime reads this when it is first imported; its wheels ship telemetry switched on.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
for name in (
    "SEALPACK_STATE",
    "SEALPACK_PASSPHRASE_FILE",
    "SEALPACK_PIN",
    "SEALPACK_PKCS11_MODULE",
    "SOURCE_DATE_EPOCH",
):
    os.environ.pop(name, None)
# High-water marks lie in the user's own state directory otherwise.
MARKS = tempfile.TemporaryDirectory(prefix="sealpack-marks-")
os.environ["SEALPACK_MARKS"] = MARKS.name


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server; the test is skipped where none is installed."""
    pytest.importorskip("psycopg")
    from support.postgres import Server, binaries

    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    made = Server.make(programs)
    yield made
    made.remove()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whole campaigns run only when asked for: `-m slow`."""
    if "slow" in (config.option.markexpr or ""):
        return
    campaigns = [item for item in items if item.get_closest_marker("slow")]
    if campaigns:
        config.hook.pytest_deselected(items=campaigns)
        items[:] = [item for item in items if item not in campaigns]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With SEALPACK_NO_SKIPS a skipped test is a failure: CI installs what tests need."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("SEALPACK_NO_SKIPS") and skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{len(skipped)} tests were skipped, and SEALPACK_NO_SKIPS is set", red=True)
