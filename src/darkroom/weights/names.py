"""How the files of models are called."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

INDEX = "model_index.json"
"""The file by which a folder is a whole model in the Hugging Face layout."""
WRITTEN_AS = {"_diffusers_version": "0.42.0"}
"""What it says of the diffusers that it is written as by: without it StableDiffusionInpaintPipeline reads none."""
SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""How files of weights end."""
TEXTS = (".json", ".txt", ".model")
"""How configurations and tokenizers end."""
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json")
"""The files by one of which a folder is a tokenizer's."""
TOKENIZER = (
    *VOCABULARIES,
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""All files that a tokenizer has."""

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDINGS = (".safetensors", ".bin")


def weights_name(files: Collection[str], variant: str | None = None) -> str | None:
    """Which of a component's files is the one of its weights, or their index: of the variant asked for, else the plain
    one, else whatever variant there is; safetensors before pickles, whole before sharded; else the
    only file of weights there is. None where none is."""
    for mark in ([variant] if variant else []) + [None, "fp16", "bf16", "non_ema"]:
        dot = f".{mark}" if mark else ""
        for suffix in _ENDINGS:
            for stem in _STEMS:
                index = f"{stem}{suffix}.index{dot}.json", f"{stem}{dot}{suffix}.index.json"
                for name in (f"{stem}{dot}{suffix}", *index):
                    if name in files:
                        return name
    # By whatever name, if there is no other.
    alone = [name for name in files if name.lower().endswith(SUFFIXES)]
    return alone[0] if len(alone) == 1 else None


def has_weights(folder: Path) -> bool:
    """Whether a folder is there and holds the weights of a component, of whatever variant."""
    return folder.is_dir() and weights_name({file.name for file in folder.iterdir()}) is not None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder is there and holds a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARIES)
