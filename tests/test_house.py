"""The rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "darkroom"
# In each package, a later one may import an earlier one, never the reverse; "" is the whole house.
ORDER = {
    "": """
        version errors lazy numeric files pixels photos world
        diffusion networks weights language prompt checkpoint library oracle adapters safety
        generation loading recipes engine upscaling detection ranking assembly forecast provenance series editing
        choosing model shelf
        evaluation train serve compat cli
    """,
    "diffusion": """
        options beta brownian philox points noise process schedule spacing run training
        guidance samplers multistep plusplus solvers catalogue registry
    """,
    "networks": """
        roles configs parameters layers watched conditioning denoiser unfilled seamless tiles bands unet vae tiny clip
        t5 mmdit freeu precise altered upscaler
    """,
    "weights": """
        names hashes dtypes mapped ggml archives gguf safe_tensors scaled packed unpickled pickles torch_files
        modules opening writing
    """,
    "checkpoint": """
        rules components preferences family families foreign infer upscalers blocks identify distilled source named
        load settings encoders single_file folder beside opening export blend
    """,
    "library": "secrets about installed kinds records lock describe scan verify fetch locate",
    "adapters": """
        names patches kinds groups adapter truncated embeddings hypernetwork dose applied merged
        collection describe bake written extract merge
    """,
    "oracle": "judging oracle prompts verdicts telling",
    "ranking": "options phrases judge halting variants clip oracle judges",
    "world": "scene words textures layout sampling canvas captions sky styles things places render",
    "train": "config feed folders journal muon saved average loop pocket __main__",
    "train.pocket": "data artefacts grow start labels judged latents vae clip unet oracle upscaler export cli",
    "compat": "diffusers",
    "recipes": """
        plain files recipe infotext writers adetailer a1111 graph drawn samplings stage comfyui invokeai reading
    """,
    "compat.diffusers": """
        config images outputs faces texts vae signatures arguments noise denoisers schedulers prompts job call calls
        adapters placed autoencoders parts prompted saving pipeline image2image inpaint seen pipelines
    """,
    "compat.diffusers.schedulers": "solvers way stepping base chain exploding flow multistep",
    "serve": """
        database objects problems settings schema events jobs batches claims results sweep migrations catalogue intake
        worker api
    """,
    "serve.worker": "shares stall models hand progress worker __main__",
    "serve.api": "bus supervisor service schemas views answers asking native openai a1111 app server",
    "serve.api.a1111": "payload options meaning lists told routes",
    "generation": """
        latents checks sources masks parts starting details elsewhere request between work tiles colors frames edits
        sizing shown wording settle canvas passes templates ensemble manner path attention picture infotext saved
        redrawing job named explain
    """,
    "cli": """
        arguments parser words settings files progress asked show doctor train checkpoints models lora merge like
        variants generate edit vary mask upscale interpolate evaluate again attention prompt plan serve
    """,
}
PEERS = {"diffusers", "transformers", "peft", "k_diffusion", "accelerate", "compel", "torchsde"}
FILES = sorted(SOURCE.rglob("*.py"))
LENGTHS = {path: len(path.read_text("utf-8").splitlines()) for path in FILES}
# As far as one goes without turning back: the lines of a file, and of a package whose modules need no order.
LONGEST_FILE, LONGEST_LOOSE, LARGEST_SHARE = 450, 1500, 0.15


def imports(path: Path) -> list[str]:
    """Every module a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            own = SOURCE.parent.joinpath(*str(node.module).split(".")).is_dir()
            names += [f"{node.module}.{alias.name}" if own else str(node.module) for alias in node.names]
    return names


def module(path: Path) -> str:
    """A file's dotted name within the house; a package's `__init__` is the package."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def lines(folder: Path) -> int:
    return sum(length for path, length in LENGTHS.items() if path.is_relative_to(folder))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    here = module(path)
    if here in ("", "__main__"):
        return
    for name in imports(path):
        root, _, there = name.partition(".")
        assert root not in PEERS, f"{path} imports the peer {name}"
        if root == "darkroom" and there:
            check(here.split("."), there.split("."), f"{path} imports {name}")


def check(here: list[str], there: list[str], what: str) -> None:
    """Where the two names part, the imported one stands first."""
    depth = next((i for i, pair in enumerate(zip(here, there, strict=False)) if len({*pair}) > 1), None)
    package = ".".join(here[:depth])
    if depth is not None and package in ORDER:
        order = ORDER[package].split()
        for name in (here[depth], there[depth]):
            assert name in order, f"{what}: {name} has no place in the order of {package or 'the house'}"
        assert order.index(there[depth]) < order.index(here[depth]), f"{what}, which comes after it"


def test_every_large_package_has_an_order():
    for folder in {path.parent for path in FILES}:
        modules = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/*.py")
        }
        modules -= {"__init__", "__main__"}
        order = ORDER.get(module(folder / "__init__.py"), "").split()
        if order or lines(folder) > LONGEST_LOOSE:
            assert modules <= set(order), f"{folder}: give {modules - set(order)} a place in its order"


def test_no_file_or_package_is_too_long():
    long = {str(path): length for path, length in LENGTHS.items() if length > LONGEST_FILE}
    assert not long
    whole = lines(SOURCE)
    # The drawn world is a picture book.
    shares = {
        path.name: lines(path) / whole for path in SOURCE.iterdir() if path.is_dir() and path.name != "world"
    }
    assert {name: share for name, share in shares.items() if share > LARGEST_SHARE} == {}


def test_messages_of_the_library_name_settings_and_no_options():
    """A door words them (`darkroom.errors.reworded`): what is a setting is one, and only commands have options."""
    from darkroom.checkpoint.foreign import BESIDE_SETTINGS
    from darkroom.cli import words
    from darkroom.cli.arguments import FIELDS
    from darkroom.library import locate

    known = {*FIELDS, *words._BESIDE}
    assert {*BESIDE_SETTINGS.values(), *locate._SETTINGS.values()} <= known
    for path in FILES:
        if {"cli", "cli.py"} & {*path.relative_to(SOURCE).parts}:
            continue
        nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = [
            node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings
        ]
        for text in (re.sub("[`']darkroom [^`']*[`']", "", text) for text in texts if isinstance(text, str)):
            assert not re.search(r"(^|[^-\w])--[a-z]", text), f"{path}: {text}"
            assert {*re.findall(r"`(\w+)=[^`]*`", text)} <= known, f"{path}: {text}"


@pytest.mark.parametrize(
    "code",
    [
        "import darkroom",
        "import darkroom.cli; darkroom.cli.parser().format_help()",
        "import darkroom.world",
        "import darkroom.cli; darkroom.cli.main(['models'])",
        "import darkroom.cli; darkroom.cli.main(['inspect', 'pocket'])",
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
