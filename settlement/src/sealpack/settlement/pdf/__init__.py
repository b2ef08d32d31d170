"""Documents on paper: a PDF of an issued document or a statement, made of its JSON and nothing else.

Source: specs/invoice.md section 6. The JSON is the document; a PDF is a picture of it that says nothing more,
the same bytes every time. Made with the optional fpdf2 (`pip install 'sealpack[pdf]'`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from contextlib import closing
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.settlement.exports import refused


def require() -> None:
    """EXTRA_MISSING when the library that writes PDF is not installed."""
    if importlib.util.find_spec("fpdf") is None:
        raise SealpackError(
            "EXTRA_MISSING",
            "PDF documents need fpdf2, which is not installed",
            remedy="pip install 'sealpack[pdf]'",
        )


def to_pdf(data: bytes, fonts: tuple[Path, ...] = ()) -> bytes:
    """The PDF of a document's JSON: invoice, credit note, draft, payout statement, customer statement.

    `fonts` are tried for what the fonts here do not draw. EXTRA_MISSING; EXPORT_REFUSED for what no font
    draws and for any other JSON.
    """
    require()
    from sealpack.settlement.pdf import invoices, paper, statements

    value, digest = json.loads(data), hashlib.sha256(data).hexdigest()
    writers = {
        "sealpack/invoice/v1": invoices,
        "sealpack/payout-statement/v1": statements,
        "sealpack/customer-statement/v1": statements,
    }
    writer = writers.get(value["schema"])
    if writer is None:
        raise refused(f"{value['schema']} is no document that is printed")
    with closing(paper.Paper(writer.about(value, digest), fonts)) as made:
        writer.write(made, value)
        return made.to_bytes()
