"""The settlement service: usage files in, replies and reports out, over HTTP.

Source: specs/service.md. It does what the verbs of `settle` do, with the same code, for callers that hold a
token. It never decides a case, issues an invoice or books a payment, and holds no key that it was not given.
"""
