"""PyInstaller hook: llama_cpp loads its libraries through ctypes, so nothing finds them by itself.

The wheel carries every library three times, as `lib*.so`, `.so.0` and `.so.0.x.y`, all regular files.
Loaders ask for the first two names; the third is left out, and `freeze.py` makes the second a link.
"""

from pathlib import Path

from PyInstaller.utils.hooks import get_package_paths

_, _package = get_package_paths("llama_cpp")
binaries = [
    (str(path), "llama_cpp/lib")
    for path in sorted((Path(_package) / "lib").glob("lib*.so*"))
    if path.name.endswith(".so") or (path.suffix == ".0" and path.name.count(".") == 2)
]
excludedimports = ["llama_cpp.server", "huggingface_hub", "transformers", "torch"]
