"""Issued documents and settled usage in the forms that other systems read.

Source: specs/exports.md. Everything is made from stored bytes and roll-ups, changes nothing, and either says
the same as the invoice to the last minor unit or is refused with the reason (EXPORT_REFUSED).
"""

from __future__ import annotations

from sealpack.format.errors import SealpackError


def refused(problem: str, remedy: str | None = None) -> SealpackError:
    """What cannot be expressed in the form that was asked for."""
    return SealpackError("EXPORT_REFUSED", problem, remedy=remedy)
