"""Sealpack's formats: bytes in, typed values out.

Everything here is pure: functions take bytes and values and return values or raise one named
:class:`~sealpack.format.errors.SealpackError`. There is no clock, no network, no database; files are
touched only by :mod:`sealpack.format.files` and by the container reader and writer, on paths they are
given. A document that crosses a trust boundary is opened by one function that verifies before it
parses; there is no way to parse without verifying.

Not here: policy (the verifier), enforcement (the runtime), money (settlement).
"""
