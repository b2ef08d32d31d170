"""What the SBOM says of the bundle as a system: data flow and usage, input and output, hardware, controls.

Source: specs/sbom.md, "System". Defaults state what is so for every bundle that Sealpack runs
(specs/receipts.md says what its log holds); the creator's own words replace or extend them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from sealpack.builder.sbom_input import SbomInput
from sealpack.format.manifest import WEIGHT_ROLES
from sealpack.verifier.completeness import WAIVER

ENGINES = {"onnx": "ONNX Runtime", "gguf": "llama.cpp"}
PROCESSORS = {"onnx": "CPU", "gguf": "CPU (x86-64 needs AVX2)"}
DATA_USAGE = (
    "inputs and answers are neither kept nor sent; calls, tokens and times are counted in a signed usage "
    "log without content"
)
CONTROLS = (
    "ECDSA P-256 signature over every file of the bundle (OpenSSF Model Signing)",
    "SHA-256 of every file and of each 1 MiB of payload, checked before the model is loaded",
)
MARK_CONTROL = "per-licensee watermark in the weights"
ENCRYPTION_CONTROL = "weights encrypted with AES-256-GCM, decrypted in memory on activated devices only"


def facts(given: SbomInput) -> Iterator[tuple[str, object]]:
    """(name, value) of the bundle component's properties; None where nothing is known."""
    sbom = given.sbom
    yield "sealpack:built-at", dt.datetime.fromtimestamp(given.signed_at, dt.UTC).isoformat()
    yield "sealpack:data-flow", sbom.data_flow or _data_flow(given)
    yield "sealpack:data-usage", sbom.data_usage or DATA_USAGE
    yield "sealpack:io:task", given.task
    yield "sealpack:io:pre", _kind(given, "pre")
    yield "sealpack:io:post", _kind(given, "post")
    taken = ((MARK_CONTROL, given.marked), (ENCRYPTION_CONTROL, given.encrypted))
    own = [control for control, is_so in taken if is_so]
    for control in (*CONTROLS, *own, *sbom.security.controls):
        yield "sealpack:security-control", control
    for standard in sbom.security.compliance:
        yield "sealpack:security-compliance", standard
    for element, reason in sbom.not_applicable:
        yield f"{WAIVER}{element}", reason


def _kind(given: SbomInput, part: str) -> str | None:
    member = given.io.get(part)
    return str(member["kind"]) if member and "kind" in member else None


def _data_flow(given: SbomInput) -> str:
    steps = ("input", _kind(given, "pre"), ENGINES[given.model.format], _kind(given, "post"), "answer")
    return f"{' -> '.join(step for step in steps if step)}; in one process, on the machine it runs on"


def hardware(given: SbomInput) -> str:
    """What the model needs to run."""
    weights = sum(fact.size for fact in given.of_role(*WEIGHT_ROLES))
    default = f"{PROCESSORS[given.model.format]}; memory for {weights} bytes of weights"
    return given.sbom.hardware or default
