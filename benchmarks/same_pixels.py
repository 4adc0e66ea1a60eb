"""Do two checkouts make the same pictures? For changes that must not change any.

    git clone -q . /tmp/before && git -C /tmp/before checkout -q REVISION
    python benchmarks/same_pixels.py /tmp/before

Makes the same requests with the code of that checkout and with this one's, and compares hashes of all pixels: samplers,
schedules, sizes, counts, second passes, prompts, precisions, memory modes, a small model of each family as a folder and
as a single file, a refiner, diffusers' calls. Needs what the tests need. Exits with 1 where any differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
FAMILIES = ("sd1", "sd2", "sdxl", "refiner", "sd3", "sd35-medium", "lcm", "turbo")
ONE_FILE = ("sd1", "sd2", "sdxl", "sd3")
POCKET: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a red boat on a calm sea", {"seed": 7}),
    ("two green trees", {"sampler": "euler_ancestral", "steps": 9, "width": 96, "height": 160}),
    ("a yellow cat", {"sampler": "heun", "steps": 6, "count": 3}),
    ("(a house:1.3) at night, [sun]", {"sampler": "dpmpp_3m_sde", "steps": 8, "negative": "blue"}),
    ("a blue bird", {"sampler": "unipc", "schedule": "karras", "steps": 7, "guidance": 5.0}),
    ("a red boat", {"sampler": "lms", "schedule": "exponential", "steps": 10}),
    ("three red balloons", {"second_pass": "on", "width": 192, "height": 256, "steps": 6}),
    ("a [red:blue:0.4] boat AND a house :0.5", {"steps": 8, "guidance_rescale": 0.7}),
)


def written(folder: Path) -> None:
    """The models that are asked: of every family, by diffusers, and some of them as single files."""
    sys.path[:0] = [str(HERE), str(HERE / "tests")]
    from tests.families import WRITERS

    for name in FAMILIES:
        WRITERS[name](folder / name)
    for name in ONE_FILE:
        command = ["convert", str(folder / name), str(folder / f"{name}.safetensors")]
        subprocess.run([sys.executable, "-m", "darkroom", *command], check=True, stdout=subprocess.DEVNULL)


def made(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every request and the hashes of its pictures, with whatever `darkroom` is imported."""
    import torch

    import darkroom
    from darkroom.compat import diffusers

    def ask(model: Any, what: str, prompt: str, **settings: Any) -> tuple[str, list[str]]:
        return what, [hashed(each.image) for each in model.generate(prompt, **{"seed": 4} | settings)]

    model = darkroom.load("pocket", precision="float32")
    for prompt, settings in POCKET:
        yield ask(model, f"pocket, {settings}", prompt, **settings)
    for options in ({"precision": "bfloat16"}, {"precision": "float32", "memory": "low"}):
        model = darkroom.load("pocket", **options)  # type: ignore[arg-type]
        yield ask(model, f"pocket, {options}", "a neon city", steps=6)
    small = {"steps": 4, "width": 64, "height": 80}
    for name in (*FAMILIES, *(f"{name}.safetensors" for name in ONE_FILE)):
        if name != "refiner":
            model = darkroom.load(folder / name, precision="float32")
            yield ask(model, name, "a red boat", **small)
    model = darkroom.load(folder / "sdxl", precision="float32", refiner=folder / "refiner")
    yield ask(model, "sdxl, refined", "a red boat", **small)
    for name in ("sd1", "sdxl", "sd3"):
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder / name)
        pipe.set_progress_bar_config(disable=True)
        called = {"num_inference_steps": 4, "width": 64, "height": 64, "output_type": "np"}
        generator = torch.Generator().manual_seed(42)
        yield (
            f"diffusers' call, {name}",
            [hashed(pipe(prompt="a red boat", generator=generator, **called).images)],
        )


def hashed(pixels: Any) -> str:
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def asked(checkout: Path, folder: Path) -> dict[str, list[str]]:
    """What a checkout's code makes of the requests."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "DARKROOM_HOME": str(folder / "home")}
    command = [sys.executable, __file__, "--hashes", str(folder)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    code = Path(found.pop("code")[0])
    assert code.is_relative_to(checkout.resolve()), f"asked {code} instead of {checkout}"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", help="the other checkout")
    parser.add_argument("--hashes", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hashes:
        import darkroom

        print(json.dumps({"code": [str(Path(darkroom.__file__).resolve())], **dict(made(args.hashes))}))
        return 0
    if args.checkout is None:
        parser.error("give the other checkout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder)
        theirs, ours = (asked(checkout, folder) for checkout in (args.checkout, HERE))
    differing = [what for what in ours if ours[what] != theirs.get(what)]
    for what in ours:
        print(f"{'DIFFERS' if what in differing else 'same   '}  {what}")
    print(f"{len(ours) - len(differing)} of {len(ours)} requests give the same pixels")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
