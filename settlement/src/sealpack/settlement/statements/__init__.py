"""Statements: what a party earned and was paid, and how a customer's account stands.

Source: specs/statements.md. A statement is made from the ledger and the issued documents, its numbers add up
and tie to the accounts; the JSON is the source of its CSV, HTML and PDF. Nothing is stored or changed.
"""
