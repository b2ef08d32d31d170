"""Model engines behind one small protocol (base.py): ONNX Runtime and llama.cpp."""
