"""The devices and tiny models of tests/runtime."""

from __future__ import annotations

from runtime.conftest import site, tiny_models

__all__ = ["site", "tiny_models"]
