"""The targets' names, without importing what they test (the fuzzer instruments that import)."""

NAMES = (
    "canonical", "dsse", "parcel", "signature", "statement", "license", "issued", "sublicense", "manifest",
    "terms", "trust", "trust-update", "container", "sbom", "usage", "tallies", "records", "note", "gguf",
    "onnx", "protobuf",
)  # fmt: skip
