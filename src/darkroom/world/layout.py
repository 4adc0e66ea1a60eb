"""Where the things of a scene are: boxes clear of the frame and of each other, and relations that hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.world.scene import RELATIONS, Group, Scene, held_out_relation

MARGIN = 0.035  # between a box and the frame
GAP = 0.035  # between two boxes

# Width over height of each kind's box.
ASPECT = {
    **{"tree": 0.78, "flower": 0.66, "mushroom": 0.95},
    **{"house": 1.08, "lighthouse": 0.55},
    **{"cat": 0.84, "bird": 1.25, "fish": 1.5, "butterfly": 1.2},
    **{"boat": 1.0, "car": 1.75, "balloon": 0.74, "rocket": 0.6},
    **{"circle": 1.0, "square": 1.0, "triangle": 1.12, "star": 1.05, "heart": 1.08},
}
# Things at home in the air, things at home in the water; all others stand on the ground when they can.
FLOATING = ("bird", "butterfly", "balloon", "rocket", "star", "heart", "circle", "square", "triangle")
SWIMMING = ("fish",)
# How far below the top of its box another thing stands on a seat, in heights of the box.
SEAT_DEPTH = {"tree": 0.04, "mushroom": 0.02, "house": 0.0, "car": 0.0, "circle": 0.02, "square": 0.0}
# Where the ground or the water begins, in heights of the picture. The sky has none.
HORIZON = {
    **{"plain": 0.72, "mountains": 0.74, "sea": 0.6, "city": 0.8, "desert": 0.64},
    **{"forest": 0.74, "meadow": 0.62, "sky": 1.0, "room": 0.72},
}


@dataclass(frozen=True, slots=True)
class Box:
    """What is drawn where: edges in fractions of the picture, y down."""

    kind: str
    colour: str
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def apart(self, other: Box, gap: float = 0.0) -> bool:
        """Whether at least `gap` lies between the two boxes along one axis."""
        return (
            self.x1 + gap <= other.x0
            or other.x1 + gap <= self.x0
            or self.y1 + gap <= other.y0
            or other.y1 + gap <= self.y0
        )


def holds(first: Box, relation: str, second: Box) -> bool:
    """Whether `first relation second` is plainly true: the boxes are apart along the axis, and the centres
    lie at least 1.3 times as far apart along it as across it. "on" is touching from above instead."""
    if relation == "on":
        overlap = min(first.x1, second.x1) - max(first.x0, second.x0)
        depth = SEAT_DEPTH.get(second.kind, 0.0) * second.height
        return abs(first.y1 - second.y0 - depth) < 0.01 and overlap > 0.5 * min(first.width, second.width)
    if relation in ("right of", "below"):
        first, second = second, first
    dx, dy = second.centre[0] - first.centre[0], second.centre[1] - first.centre[1]
    if relation in ("left of", "right of"):
        return first.x1 <= second.x0 and dx > 1.3 * abs(dy)
    return first.y1 <= second.y0 and dy > 1.3 * abs(dx)


def layout(scene: Scene) -> list[Box]:
    """The boxes of the scene's things, the first group's first. A pure function of the scene."""
    if not scene.groups:
        return []
    rng = random.Random(scene.seed)
    scale = 1.0
    while True:
        # Candidates are drawn until one keeps every rule; the things shrink a little after each miss, so
        # this ends (in practice within a few rounds).
        boxes = _candidate(scene, rng, scale)
        if _valid(scene, boxes):
            return boxes
        scale = max(scale * 0.985, 0.6)


def _valid(scene: Scene, boxes: Sequence[Box]) -> bool:
    low, high = MARGIN - 1e-9, 1 - MARGIN + 1e-9
    if any(box.x0 < low or box.y0 < low or box.x1 > high or box.y1 > high for box in boxes):
        return False
    if scene.relation == "on":
        return holds(boxes[0], "on", boxes[1])
    for i, box in enumerate(boxes):
        if not all(box.apart(other, GAP) for other in boxes[:i]):
            return False
    if len(scene.groups) < 2:
        return True
    first, second = boxes[: scene.groups[0].count], boxes[scene.groups[0].count :]
    if scene.relation:
        gap = 2 * GAP if scene.relation in ("above", "below") else GAP  # or it might pass for "on"
        return all(holds(a, scene.relation, b) and a.apart(b, gap) for a in first for b in second)
    # With no relation claimed, a held-out one must not be shown by accident.
    return not any(
        held_out_relation(first[0].kind, relation, second[0].kind)
        and all(holds(a, relation, b) for a in first for b in second)
        for relation in RELATIONS
    )


def _candidate(scene: Scene, rng: random.Random, scale: float) -> list[Box]:
    things = [group for group in scene.groups for _ in range(group.count)]
    if len(things) == 1:
        return [_alone(scene, things[0], rng, scale)]
    base = {2: 0.30, 3: 0.27, 4: 0.255}[len(things)] * scale * rng.uniform(0.92, 1.08)
    sizes = [_size(thing.kind, base * rng.uniform(0.96, 1.04), 0.32) for thing in things]
    if scene.relation == "on":
        centres = _stacked(scene, sizes, rng)
    elif scene.relation:
        centres = _related(scene, sizes, rng)
    else:
        centres = _arranged(scene, sizes, rng)
    return [_box(thing, size, centre) for thing, size, centre in zip(things, sizes, centres, strict=True)]


def _size(kind: str, base: float, widest: float) -> tuple[float, float]:
    """Width and height of the kind's box with about the area base * base."""
    width = min(base * ASPECT[kind] ** 0.5, widest)
    return width, width / ASPECT[kind]


def _box(thing: Group, size: tuple[float, float], centre: tuple[float, float]) -> Box:
    (w, h), (x, y) = size, centre
    return Box(thing.kind, thing.colour, x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def stands(kind: str, place: str) -> bool:
    """Whether such a thing stands on the ground (or the water) there, if nothing else speaks against it."""
    return HORIZON[place] < 1 and kind not in FLOATING and kind not in SWIMMING


def _alone(scene: Scene, thing: Group, rng: random.Random, scale: float) -> Box:
    w, h = _size(thing.kind, scale * rng.uniform(0.36, 0.47), 0.5)
    x = 0.5 + rng.uniform(-1, 1) * min(0.2, 0.5 - MARGIN - w / 2)
    if stands(thing.kind, scene.place):
        y = rng.uniform(0.86, 0.92) - h / 2
        if thing.kind == "boat" and scene.place == "sea":
            y = rng.uniform(0.72, 0.84) - h / 2
    elif thing.kind in SWIMMING and scene.place == "sea":
        y = rng.uniform(0.76, 0.8)
    else:
        y = rng.uniform(0.36, 0.54)
    return _box(thing, (w, h), (x, max(y, MARGIN + h / 2)))


def _spread(lengths: Sequence[float], low: float, high: float, rng: random.Random) -> list[float]:
    """Centres of segments laid one after the other between low and high, the free room shared at random."""
    free = max(high - low - sum(lengths) - GAP * (len(lengths) - 1), 0.0)
    parts = [rng.uniform(0.5, 1.0) for _ in range(len(lengths) + 1)]
    unit = free / sum(parts)
    centres, at = [], low
    for length, part in zip(lengths, parts, strict=False):
        at += part * unit
        centres.append(at + length / 2)
        at += length + GAP
    return centres


def _rows(scene: Scene, sizes: Sequence[tuple[float, float]], rng: random.Random) -> list[float]:
    """Heights for things side by side: on one ground line where all stand, otherwise loosely level."""
    kinds = [group.kind for group in scene.groups]
    if all(stands(kind, scene.place) for kind in kinds) and rng.random() < 0.75:
        ground = rng.uniform(0.8, 0.9)
        return [ground - h / 2 + rng.uniform(-0.02, 0.02) for _, h in sizes]
    floating = all(kind in FLOATING for kind in kinds)
    middle = rng.uniform(0.28, 0.46) if floating else rng.uniform(0.4, 0.6)
    return [middle + rng.uniform(-0.06, 0.06) for _ in sizes]


Centres = list[tuple[float, float]]


def _stacked(scene: Scene, sizes: Sequence[tuple[float, float]], rng: random.Random) -> Centres:
    (_, h0), (w1, h1) = sizes
    x = rng.uniform(0.36, 0.64)
    room = 1 - 2 * MARGIN - h0 - h1
    top = MARGIN + max(room, 0.0) * rng.uniform(0.55, 0.95)
    seat = top + h0
    y1 = seat - SEAT_DEPTH[scene.groups[1].kind] * h1 + h1 / 2
    return [(x + rng.uniform(-0.08, 0.08) * w1, top + h0 / 2), (x, y1)]


def _related(scene: Scene, sizes: Sequence[tuple[float, float]], rng: random.Random) -> Centres:
    """Two clusters along the relation's axis, each a line across it."""
    split = scene.groups[0].count
    clusters = [list(sizes[:split]), list(sizes[split:])]
    across = scene.relation in ("left of", "right of")
    swapped = scene.relation in ("right of", "below")
    if swapped:
        clusters.reverse()
    along = 0 if across else 1
    low, high = MARGIN + 0.01, 1 - MARGIN - 0.01
    spans = _spread([max(size[along] for size in cluster) for cluster in clusters], low, high, rng)
    level = rng.uniform(0.42, 0.58)
    side_by_side = across and len(sizes) == 2
    heights = _rows(scene, [clusters[0][0], clusters[1][0]], rng) if side_by_side else []
    placed: list[Centres] = []
    for i, (cluster, span) in enumerate(zip(clusters, spans, strict=True)):
        if len(cluster) == 1:
            cross = [heights[i] if side_by_side else level + rng.uniform(-0.06, 0.06)]
        else:
            cross = _spread([size[1 - along] for size in cluster], low + 0.08, high - 0.08, rng)
        placed.append([(span, c) if across else (c, span) for c in cross])
    if swapped:
        placed.reverse()
    return placed[0] + placed[1]


def _arranged(scene: Scene, sizes: Sequence[tuple[float, float]], rng: random.Random) -> Centres:
    """Rows, diagonals, triangles and grids for things that claim no relation."""
    low, high = MARGIN + 0.01, 1 - MARGIN - 0.01
    widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
    count = len(sizes)
    order = list(range(count))
    if len(scene.groups) == 2 and rng.random() < 0.5:
        order.reverse()  # groups stay together, but either may come first
    shape = rng.choice(
        {2: ("row", "row", "slope"), 3: ("row", "triangle", "slope"), 4: ("grid", "grid", "wave")}[count]
    )
    if count == 3 and sum(widths) + 2 * GAP > high - low:
        shape = "triangle"
    if shape in ("grid", "triangle"):
        upper = order[: count // 2] if rng.random() < 0.5 else order[: (count + 1) // 2]
        lower = [i for i in order if i not in upper]
        tall = [max(heights[i] for i in line) for line in (upper, lower)]
        ys = _spread(tall, low, high, rng)
        centres: dict[int, tuple[float, float]] = {}
        for line, y in zip((upper, lower), ys, strict=True):
            for i, x in zip(line, _spread([widths[i] for i in line], low, high, rng), strict=True):
                centres[i] = (x, y + rng.uniform(-0.02, 0.02))
        return [centres[i] for i in range(count)]
    xs = _spread([widths[i] for i in order], low, high, rng)
    if shape == "row":
        ys = _rows(scene, sizes, rng)
    else:
        rise = rng.choice((-1, 1)) * rng.uniform(0.5, 0.95)
        middle, span = 0.5, 0.5 - MARGIN - max(heights) / 2
        steps = [2 * k / (count - 1) - 1 for k in range(count)] if shape == "slope" else [-1, 1, -1, 1]
        ys = [middle + rise * span * step for step in steps]
    by_thing = dict(zip(order, xs, strict=True))
    level = dict(zip(order, ys, strict=True)) if shape != "row" else dict(enumerate(ys))
    return [(by_thing[i], level[i]) for i in range(count)]
