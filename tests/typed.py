"""What a type checker is to see: `mypy` reads this file. Each line with an `ignore` is a mistake that it finds."""

from __future__ import annotations

import numpy as np
import torch

import darkroom
from darkroom import Request
from darkroom.generation.parts import Canvas, Guidance, Sampling


def right(model: darkroom.Model) -> None:
    model.generate("a", steps=4, guidance=3, styles=["ink"], seed=None)
    model.generate("a", steps=np.int64(4), guidance=np.float32(3), seed=np.uint8(3))
    model.generate(["a", Request("b", steps=4)], count=2, callback=lambda step: step.done < 3)
    for event in model.stream("a", canvas=Canvas(64, 64), sampling=Sampling("euler:s_churn=10")):
        print(event.seed)
    Request("a", guidance=Guidance(3)).replace(prompt="b", width=64)
    darkroom.load("pocket", device=torch.device("cpu"), precision=torch.float32)
    darkroom.load(darkroom.Loading("pocket", vae="mse"), others=["clip"], expecting=Request("a"))


def wrong(model: darkroom.Model) -> None:
    model.generate("a", stepz=4)  # type: ignore[call-arg]
    model.generate("a", steps="4")  # type: ignore[arg-type]
    model.generate("a", Request("b"))  # type: ignore[arg-type, call-arg]
    model.stream("a", wdith=64)  # type: ignore[call-arg]
    model.submit("a", stepz=4)  # type: ignore[call-arg]
    model.stream(3)  # type: ignore[arg-type]
    Request("a", stepz=4)  # type: ignore[call-arg]
    Request("a").replace(stepz=4)  # type: ignore[call-arg]
    Request("a", canvas=Sampling())  # type: ignore[arg-type]
    darkroom.load("pocket", precison="float32")  # type: ignore[call-arg]
    darkroom.Shelf("1GB").get("pocket", memry="low")  # type: ignore[call-arg]
    Canvas(widht=64)  # type: ignore[call-arg]
