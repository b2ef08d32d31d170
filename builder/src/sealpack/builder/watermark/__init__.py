"""Whose copy is this, and how sure are we: a per-licensee mark in a model's float weights.

What it does: marks the weights of one licensee's copy (:mod:`.embed`), keeps the keys and a record
of every mark in an encrypted vault (:mod:`.vault`), and says of a leaked file which licensee's copy
it came from with a p-value that assumes nothing about the weights (:mod:`.detect`).

What it does not do: it ships no detector and no key to customers; it does not touch quantised
tensors, text or outputs; it does not survive retraining, and it does not say who leaked a file.

The promise it keeps: same clean model, same vault, same license -> the same marked bytes; a model
file keeps its size and layout; without the vault the mark cannot be told from noise.

Source: specs/watermark.md. Import the modules themselves; this package imports nothing heavy.
"""
