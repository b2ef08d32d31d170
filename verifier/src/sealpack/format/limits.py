"""Every bound a reader enforces, in one place, with its unit. Source: specs/limits.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on untrusted input. `_bytes` are bytes, `_depth` nesting levels."""

    document_bytes: int = 256 * 1024  # license, activation, lease, trust documents
    billing_bytes: int = 16 << 20  # a signed invoice or statement
    json_depth: int = 16
    entries: int = 4096  # container members
    entry_name_bytes: int = 200
    central_directory_bytes: int = 1 << 20
    metadata_entry_bytes: int = 16 << 20  # manifest, SBOM, card, evidence, license texts
    signature_bytes: int = 4 << 20
    chunk_table_bytes: int = 64 << 20
    older_roots: int = 64  # that a trust file carries along
    parcel_bytes: int = 4 << 20  # several documents carried together
    qr_frames: int = 255  # codes of one document
    qr_frame_chars: int = 4296  # the most that any QR code holds
    usage_line_bytes: int = 64 * 1024
    usage_file_bytes: int = 64 << 20  # compressed
    usage_plain_bytes: int = 1 << 30  # after decompression
    model_header_bytes: int = 512 << 20  # ONNX graph without weights, GGUF key-value section
    model_tensors: int = 1 << 20


LIMITS = Limits()
