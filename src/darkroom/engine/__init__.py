"""Running jobs: placement, networks, and the engine that batches the work of many."""

from darkroom.engine.devices import Placement, describe, devices, keep_freed_memory, place
from darkroom.engine.engine import Engine, Task
from darkroom.engine.loop import Loop
from darkroom.engine.networks import Expert, LatentDiffusion
from darkroom.generation.work import Networks

__all__ = [
    "Engine",
    "Expert",
    "LatentDiffusion",
    "Loop",
    "Networks",
    "Placement",
    "Task",
    "describe",
    "devices",
    "keep_freed_memory",
    "place",
]
