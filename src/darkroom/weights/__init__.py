"""Tensors in files, whatever the format: safetensors, torch's, GGUF. Nothing is executed; no network is known here."""
