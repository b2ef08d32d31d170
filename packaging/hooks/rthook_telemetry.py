"""PyInstaller run-time hook: onnxruntime's wheels ship telemetry switched on; off before any import."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
