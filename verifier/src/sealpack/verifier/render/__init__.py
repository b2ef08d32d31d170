"""How a report is shown: text, JSON, SARIF, HTML, and a signed Simple Verification Result.

Source: specs/report.md. Every form is a pure function of the :class:`Report`; no form reads a file of the
bundle, a clock or a network. What a bundle says is data in all of them, never markup or control characters.
"""
