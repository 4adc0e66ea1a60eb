"""The rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "darkroom"
# A later one may import an earlier one, never the reverse.
ORDER = [
    "errors",
    "diffusion",
    "language",
    "networks",
    "prompt",
    "checkpoint",
    "adapters",
    "safety",
    "generation",
    "engine",
    "model",
    "shelf",
    "world",
    "train",
    "serve",
    "compat",
    "cli",
]
PEERS = {"diffusers", "transformers", "peft", "k_diffusion", "accelerate", "compel", "torchsde"}


def imports(path: Path) -> list[str]:
    """Every module a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(str(node.module))
            names += [f"{node.module}.{alias.name}" for alias in node.names if node.module == "darkroom"]
    return names


def part(path: Path) -> str:
    relative = path.relative_to(SOURCE).with_suffix("")
    return relative.parts[0]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    here = part(path)
    if here in ("__init__", "__main__"):
        return
    assert here in ORDER, f"{here} has no place in the import order"
    for name in imports(path):
        pieces = name.split(".")
        assert pieces[0] not in PEERS, f"{path} imports the peer {name}"
        if pieces[0] == "darkroom" and len(pieces) > 1:
            assert ORDER.index(pieces[1]) <= ORDER.index(here), (
                f"{path} imports {name}, which comes after {here}"
            )


@pytest.mark.parametrize(
    "code",
    [
        "import darkroom",
        "import darkroom.cli; darkroom.cli.parser().format_help()",
        "import darkroom.world",
    ],
)
def test_torch_waits_until_a_model_is_loaded(code):
    check = f"{code}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_importing_darkroom_loads_next_to_nothing():
    heavy = "'numpy', 'PIL', 'tqdm', 'torch'"
    check = f"import darkroom, sys; sys.exit(any(name in sys.modules for name in ({heavy})))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_everything_public_is_there():
    import darkroom

    for name in darkroom.__all__:
        assert getattr(darkroom, name) is not None
