"""Turns a model file into one sealed, signed bundle, and issues the licenses that open it.

What is here: reading a model's own description, the SBOM, the assembly of a bundle, a creator's
project folder with its keys and trust documents, and license documents. What is not: running a
model, judging a bundle, or billing for it. The promise: the same inputs, key and signing time
give the same bytes, and a failure leaves no output behind.
"""
