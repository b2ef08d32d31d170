"""The verifier: decides whether a bundle is authentic and intact, and says why.

It reads bundles and trust files and returns a :class:`~sealpack.verifier.report.Report` of every check;
it never runs a model, opens a network connection, keeps state or parses anything it has not verified.
It needs click, cryptography and rfc8785 only.
"""

from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.report import Check, Report

__all__ = ["Check", "Report", "verify_bundle"]
