"""SPDX license ids and expressions: which spellings are real. Source: specs/sbom.md, "Licenses"."""

from __future__ import annotations

import re

from cyclonedx.spdx import fixup_id

from sealpack.builder.sbom_check import check_expression
from sealpack.builder.toml_table import invalid
from sealpack.format.errors import SealpackError

_LICENSE_REF = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_EXCEPTION = re.compile(r"\bWITH\s+[A-Za-z0-9.-]+")


def known_id(text: str) -> str | None:
    """The SPDX id that `text` spells, ignoring case; None when there is no such id."""
    return fixup_id(text)


def is_expression(text: str) -> bool:
    """Whether `text` combines real ids or LicenseRefs by SPDX's grammar."""
    try:
        check_expression(text, "license")
    except SealpackError:
        return False
    operands = re.findall(r"[^\s()]+", _EXCEPTION.sub("", text))
    return all(
        word in ("AND", "OR") or _LICENSE_REF.fullmatch(word) or known_id(word.rstrip("+"))
        for word in operands
    )


def check_license_id(text: str) -> None:
    """CONFIG_INVALID unless a creator may state `text` as the license of a bundle."""
    if known_id(text) != text and not is_expression(text):
        raise invalid(
            "license.spdx",
            f"{text!r} is neither an SPDX expression nor a LicenseRef-... of your own",
        )
