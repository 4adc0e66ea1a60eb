"""The Python face: `load` a model, `generate` pictures with it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.folder import WEIGHTS, load_folder
from darkroom.checkpoint.hashes import sha256
from darkroom.checkpoint.registry import locate
from darkroom.diffusion import schedule_for
from darkroom.engine import Engine, LatentDiffusion, Task, keep_freed_memory, place
from darkroom.errors import InvalidRequest
from darkroom.generation import Picture, Request
from darkroom.generation.infotext import infotext
from darkroom.generation.job import Job
from darkroom.prompt import TextConditioner, Tokenizer

# Raised whenever the same request would give other pixels than before.
NUMERICS = 1


@dataclass(frozen=True)
class Step:
    """A picture on its way: `done` of `total` network calls are behind it."""

    index: int
    seed: int
    done: int
    total: int
    _task: Task
    _family: Family

    def preview(self) -> Image.Image | None:
        """A small picture of what the network sees so far, for next to nothing; None where the model
        has no preview map or nothing has been seen yet."""
        latent, rows = self._task.job.denoised, self._family.preview
        if latent is None or rows is None:
            return None
        matrix = torch.tensor(rows)
        colours = torch.einsum("rc,chw->hwr", matrix[:, :-1], latent[0]) + matrix[:, -1]
        pixels = (colours * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        side = self._family.factor
        return Image.fromarray(pixels).resize(
            (pixels.shape[1] * side, pixels.shape[0] * side), Image.Resampling.BICUBIC
        )


class Model:
    """A model ready to make pictures. Use `load` to get one.

    It runs one `generate` at a time; calls from several threads wait for one another.
    """

    def __init__(
        self, name: str, networks: LatentDiffusion, family: Family, files: Mapping[str, Path]
    ) -> None:
        self.name = name
        self.family = family
        self.placement = networks.placement
        self.engine = Engine(networks)
        self._files = dict(files)
        self._lock = threading.Lock()

    def generate(
        self,
        prompt: str | Request,
        *,
        callback: Callable[[Step], bool | None] | None = None,
        **settings: Any,
    ) -> list[Picture]:
        """Make pictures of a prompt.

        Settings are the fields of `Request`: negative, width, height, steps, guidance, sampler, schedule,
        seed, count and so on. `callback` sees every step; when it returns False, work stops and
        the pictures finished so far are returned. Raises InvalidRequest for settings that cannot be
        honoured, GenerationError where the work fails.
        """
        pictures = []
        for event in self.stream(prompt, **settings):
            if isinstance(event, Picture):
                pictures.append(event)
            elif callback is not None and callback(event) is False:
                break
        return pictures

    def stream(self, prompt: str | Request, **settings: Any) -> Iterator[Step | Picture]:
        """`generate` as an iterator: a `Step` after each network call, each `Picture` as it is finished.

        Closing the iterator cancels what is left.
        """
        request = prompt if isinstance(prompt, Request) else Request.from_dict({"prompt": prompt, **settings})
        return self._develop(self.settle(request))

    def settle(self, request: Request) -> Request:
        """The request with everything it leaves open filled in: exactly what will be made.

        A sampler other than the model's own brings the schedule that suits it.
        """
        preferences = self.family.preferences
        sampler = request.checked().sampler
        schedule = preferences.schedule
        if sampler not in (None, preferences.sampler):
            schedule = schedule_for(self.family.schedule, sampler)
        return request.settled(
            width=self.family.native,
            height=self.family.native,
            steps=preferences.steps,
            guidance=preferences.guidance,
            sampler=preferences.sampler,
            schedule=schedule,
            second_strength=preferences.second_strength,
        )

    def _develop(self, request: Request) -> Iterator[Step | Picture]:
        waiting = ((i, Job(request.single(i), self.family)) for i in range(request.count))
        running: dict[int, Task] = {}
        with self._lock:
            try:
                while True:
                    free = self.engine.rows * self.engine.calls - len(running)
                    running |= {i: self.engine.submit(job) for i, job in itertools.islice(waiting, free)}
                    if not running:
                        return
                    before = {i: task.job.done for i, task in running.items()}
                    self.engine.tick()
                    for i, task in list(running.items()):
                        if task.job.done > before[i]:
                            yield Step(
                                i,
                                task.job.request.seed or 0,
                                task.job.done,
                                task.job.total,
                                task,
                                self.family,
                            )
                        if task.finished:
                            del running[i]
                            yield self._picture(task)
            finally:
                for task in running.values():
                    task.cancel()

    def _picture(self, task: Task) -> Picture:
        request = task.job.request
        pixels: np.ndarray[Any, Any] = task.result()
        weights = self.weights()
        metadata: dict[str, Any] = {
            "darkroom": version("darkroom"),
            "request": request.to_dict(),
            "model": {"name": self.name, "weights": weights},
            "numerics": self.numerics(),
            "notes": task.notes,
        }
        text = infotext(request, self.name, weights["unet"], metadata["darkroom"])
        return Picture(Image.fromarray(pixels), request.seed or 0, metadata, text)

    def weights(self) -> dict[str, str]:
        """The SHA-256 of each component's file."""
        return {name: sha256(file) for name, file in self._files.items()}

    def numerics(self) -> dict[str, Any]:
        """What besides request and weights decides the pixels."""
        facts: dict[str, Any] = {
            "version": NUMERICS,
            "device": self.placement.device.type,
            "precision": self.placement.precision,
            "rows": self.engine.rows,
            "torch": torch.__version__,
        }
        if self.placement.device.type == "cpu":
            facts |= {
                "threads": torch.get_num_threads(),
                "instructions": torch.backends.cpu.get_cpu_capability(),
            }
        else:
            facts["device_name"] = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        return facts


def load(model: str | Path = "pocket", *, device: str | None = None, precision: str | None = None) -> Model:
    """Load a model by name (see `darkroom models`) or from a folder in the Hugging Face layout.

    `device`: cpu, cuda, mps or whatever torch offers; `precision`: float32, bfloat16 or float16; both are
    chosen for the machine when left out. Raises ModelError for a model that is missing or damaged,
    InvalidRequest for a device or precision that is not to be had.
    """
    if not isinstance(model, str | Path):
        raise InvalidRequest(f"model is {model!r}: give a name or a folder")
    placement = place(device, precision)
    folder = locate(model)
    if placement.device.type == "cpu":
        keep_freed_memory()
    parts = load_folder(folder, placement.device, placement.dtype)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    networks = LatentDiffusion(
        TextConditioner(tokenizer, parts.text_encoder), parts.unet, parts.vae, placement
    )
    return Model(folder.name, networks, parts.family, {name: parts.files[name] for name in WEIGHTS})
