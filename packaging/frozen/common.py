"""What both PyInstaller specs share."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

# Never needed by a customer's verb; some would pull a network stack or a compiler in.
EXCLUDES = [
    "tkinter", "_tkinter", "unittest", "pydoc", "doctest", "pdb", "xmlrpc", "curses", "lib2to3",
    "onnx", "onnxruntime.backend", "onnxruntime.datasets", "onnxruntime.quantization",
    "onnxruntime.tools", "onnxruntime.transformers", "numpy.f2py", "numpy.testing", "numpy.distutils",
    "setuptools", "pip", "pkg_resources", "gguf", "google.protobuf", "yaml", "tqdm",
    "charset_normalizer", "psutil", "sympy", "scipy", "sklearn", "torch", "PIL", "zxingcpp", "pandas",
    "matplotlib", "pytest", "hypothesis", "mypy", "sqlalchemy", "cyclonedx", "IPython",
    "sealpack.builder", "sealpack.settlement",
]  # fmt: skip
# The verifier reads its style sheet and tier policies as resources.
METADATA = copy_metadata("sealpack") + collect_data_files(
    "sealpack.verifier", includes=["**/*.css", "**/*.toml"]
)


def parts(*names: str) -> list[str]:
    """Every module of the named parts: verbs are loaded by name, which no analysis sees."""
    return [module for name in names for module in collect_submodules(f"sealpack.{name}")]
