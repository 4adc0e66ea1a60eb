"""What choosing among variants is worth on the drawn world: right pictures per second, beside plain seeds.

    python benchmarks/variants.py [--prompts 10] [--variants 8] [--finish auto 8 4 2] [--tasks two ...]

For each prompt of the evaluation's tasks (or of "crowded" scenes, which pocket draws wrong more often) the same seeds
are drawn plainly (`generate`) and as variants (`choose`), of which so many are finished ("auto": as `choose` has it).
Every run is timed, and their order changes from prompt to prompt. "Right" is what the prompt asks for by GenEval's
rules, told by the oracle, which is also the judge that chose: what it mistakes it mistakes in both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence

import darkroom
from darkroom.evaluation.benchmark import GENEVAL_TASKS, Prompt, prompts
from darkroom.evaluation.scores import Score, between, percent
from darkroom.generation import Picture
from darkroom.model import Model
from darkroom.oracle.judging import satisfies, truth
from darkroom.oracle.oracle import Oracle
from darkroom.oracle.prompts import asked_of
from darkroom.oracle.telling import told
from darkroom.pixels import sheet
from darkroom.world.sampling import sample_scene

PLAIN = "plain seeds"


class Way:
    """A way to come by pictures: what it took, how many are right of those that one would show, and of the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.shown: list[bool] = []
        self.first: list[bool] = []
        self.per_second: list[float] = []

    def add(self, seconds: float, right: Sequence[bool]) -> None:
        self.seconds.append(seconds)
        self.shown += right
        self.first.append(right[0])
        self.per_second.append(sum(right) / seconds)


CROWDED = "crowded"


def asked_for(task: str, count: int) -> list[Prompt]:
    """Prompts of a task of the evaluation, or of scenes of four things of two sorts, somewhere and at some time."""
    if task != CROWDED:
        return prompts(task, count, seed=11)
    rng, found = random.Random(11), []
    while len(found) < count:
        scene = sample_scene(rng, split="any")
        if len(scene.groups) == 2 and sum(group.count for group in scene.groups) == 4:
            text, _ = told(truth(scene))
            found.append(Prompt(CROWDED, text, asked_of(text).expectation))
    return found


def pictures_of(model: Model, way: str, prompt: Prompt, args: argparse.Namespace, seed: int) -> list[Picture]:
    if way == PLAIN:
        return model.generate(prompt.text, seed=seed, count=args.variants)
    number = way.split()[1]
    finish = None if number == "auto" else int(number)
    choice = model.choose(
        prompt.text, seed=seed, variants=args.variants, finish=finish, look_after=args.look_after
    )
    return [each.picture for each in choice.variants if each.picture is not None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=10, help="of each task")
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--finish", nargs="+", default=["auto", "8", "4", "2"])
    parser.add_argument("--look-after", type=float, default=1 / 3)
    parser.add_argument("--tasks", nargs="+", default=GENEVAL_TASKS, help=f"of the evaluation, or {CROWDED}")
    parser.add_argument(
        "--sheet", help="a PNG: of each prompt the first plain picture and the one that was chosen"
    )
    args = parser.parse_args()
    model, oracle = darkroom.load("pocket"), Oracle.load()
    finishing = [f"finish {count}" for count in args.finish]
    ways = {name: Way() for name in (PLAIN, *finishing)}
    model.choose("a red boat", seed=0, variants=2, steps=2)  # What is read once is not timed.
    asked = [each for task in args.tasks for each in asked_for(task, args.prompts)]
    shown = []
    for number, prompt in enumerate(asked):
        order = [*ways]
        random.Random(number).shuffle(order)
        for name in order:
            began = time.perf_counter()
            made = pictures_of(model, name, prompt, args, 1000 * number)
            seconds = time.perf_counter() - began
            right = [satisfies(each, prompt.expectation) for each in oracle([p.image for p in made])]
            ways[name].add(seconds, right)
            if name in (PLAIN, finishing[len(finishing) // 2]):
                shown.append((number, name != PLAIN, made[0].image))
    plain = ways[PLAIN]
    print(
        f"{len(asked)} prompts ({', '.join(args.tasks)}), {args.variants} variants, "
        f"looked at after {args.look_after:.2f}"
    )
    print(f"{'':12} {'time':>6} {'the first is right':>26} {'of all finished':>26} {'right a second':>15}")
    for name, way in ways.items():
        spent = statistics.median(a / b for a, b in zip(way.seconds, plain.seconds, strict=True))
        faster = sum(way.shown) / sum(way.seconds) / (sum(plain.shown) / sum(plain.seconds))
        first, every = Score.of(way.first), Score.of(way.shown)
        print(
            f"{name:12} {spent:>6.2f} {percent(first):>8} ({between(first):>13}) "
            f"{percent(every):>8} ({between(every):>13}) {faster:>15.2f}"
        )
    if args.sheet:
        shown.sort(key=lambda each: each[:2])
        sheet([image for _, _, image in shown], columns=12).save(args.sheet)


if __name__ == "__main__":
    main()
