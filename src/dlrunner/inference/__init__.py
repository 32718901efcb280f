"""Using finished runs: loading models, predictions in Python, export and ONNX."""
