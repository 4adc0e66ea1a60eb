"""The levels of noise a model was trained on, as points."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

from darkroom.diffusion.points import CLEAN, Point
from darkroom.errors import InvalidRequest, nearest

# After the zero-SNR rescale, where sigma / alpha would be infinite, it counts as this: 1 / sqrt(2^-24), as in
# diffusers, whose alphas_cumprod[-1] is 2^-24 then.
PURE_NOISE_LEVEL = 4096.0

# Less than this of a picture is none of it: its square is no normal number in single precision.
_LEAST_ALPHA = 1e-19


def betas(
    kind: str = "scaled_linear", start: float = 0.00085, end: float = 0.012, count: int = 1000
) -> tuple[float, ...]:
    """The noise added at each of `count` training steps.

    linear: Ho et al. 2020 (https://arxiv.org/abs/2006.11239); scaled_linear: linear in the root, as
    Stable Diffusion was trained; cosine: Nichol and Dhariwal 2021 (https://arxiv.org/abs/2102.09672,
    eq. 17), which ignores `start` and `end`; sigmoid: along a sigmoid from -6 to 6, as GeoDiff is trained (Xu et al.
    2022, https://arxiv.org/abs/2203.02923). Raises InvalidRequest for another kind, for fewer than one step, and for
    betas that are not above 0 and below 1.
    """
    if count < 1:
        raise InvalidRequest(f"{count} training steps make no schedule: give at least 1")
    if kind in ("linear", "scaled_linear", "sigmoid") and not (0 < start < 1 and 0 < end < 1):
        raise InvalidRequest(f"betas from {start} to {end}: both must be above 0 and below 1")
    last = max(count - 1, 1)
    if kind == "linear":
        return tuple(start + (end - start) * i / last for i in range(count))
    if kind == "scaled_linear":
        low, high = math.sqrt(start), math.sqrt(end)
        return tuple((low + (high - low) * i / last) ** 2 for i in range(count))
    if kind in ("cosine", "squaredcos_cap_v2"):
        bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return tuple(min(1 - bar[i + 1] / bar[i], 0.999) for i in range(count))
    if kind == "sigmoid":
        return tuple(start + (end - start) / (1 + math.exp(6 - 12 * i / last)) for i in range(count))
    raise InvalidRequest(
        f"unknown betas {kind!r}: {nearest(str(kind), ['linear', 'scaled_linear', 'cosine', 'sigmoid'])}"
    )


@dataclass(frozen=True)
class Discrete:
    """A variance-preserving schedule of whole training steps 0 .. len(betas) - 1.

    Its level is sigma / alpha, the sigma of k-diffusion. Between training steps, time is linear in
    the logarithm of the level. `zero_terminal_snr` shifts and scales alpha so that the last step
    is pure noise (Lin et al. 2023, https://arxiv.org/abs/2305.08891, algorithm 1). Raises InvalidRequest for no betas,
    and for one that is not above 0 and below 1.
    """

    betas: tuple[float, ...] = field(default_factory=betas, repr=False)
    zero_terminal_snr: bool = False
    table: tuple[Point, ...] = field(init=False, repr=False, compare=False)
    levels: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wrong = next((beta for beta in self.betas if not 0 < beta < 1), None)
        if wrong is not None or not self.betas:
            what = "there are none" if wrong is None else f"one is {wrong}"
            raise InvalidRequest(f"betas make no noise schedule: {what}; each must be above 0 and below 1")
        alphas, product = [], 1.0
        for beta in self.betas:
            product *= 1 - beta
            alphas.append(math.sqrt(product))
        if product < _LEAST_ALPHA**2:
            raise InvalidRequest(
                f"betas from {self.betas[0]} to {self.betas[-1]} make no noise schedule: {len(self.betas)} training "
                "steps of them leave nothing of a picture"
            )
        if self.zero_terminal_snr:
            first, last = alphas[0], alphas[-1]
            alphas = [(alpha - last) * first / (first - last) for alpha in alphas]
        table = tuple(Point(a, math.sqrt(1 - a * a), float(i)) for i, a in enumerate(alphas))
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "levels", tuple(self.level(point) for point in table))

    @property
    def lowest(self) -> float:
        return self.levels[0]

    @property
    def highest(self) -> float:
        return self.levels[-1]

    @property
    def first(self) -> int:
        return 0

    @property
    def last(self) -> int:
        return len(self.betas) - 1

    def at(self, level: float) -> Point:
        """The point at a level >= 0. Outside the trained range the network is told the nearest time."""
        if level <= 0:
            return CLEAN
        if self.zero_terminal_snr and level >= self.highest:
            return self.table[-1]
        alpha = 1 / math.hypot(1.0, level)
        return Point(alpha, level * alpha, self._time(level))

    def _time(self, level: float) -> float:
        levels = self.levels
        if level <= levels[0]:
            return 0.0
        if level >= levels[-1]:
            return float(self.last)
        i = bisect.bisect_right(levels, level) - 1
        return i + math.log(level / levels[i]) / math.log(levels[i + 1] / levels[i])

    def trained(self, step: float) -> Point:
        """The point of a training step; a fraction lies between its neighbours."""
        if not 0 <= step <= self.last:
            raise InvalidRequest(f"training step {step} is outside 0 to {self.last}")
        i = int(step)
        if step == i:
            return self.table[i]
        rest = step - i
        level = math.exp((1 - rest) * math.log(self.levels[i]) + rest * math.log(self.levels[i + 1]))
        alpha = 1 / math.hypot(1.0, level)
        return Point(alpha, level * alpha, float(step))

    def told(self, time: float) -> Point:
        return self.trained(time)

    def drawn(self, u: float) -> Point:
        return self.table[int(u * len(self.betas))]

    def level(self, point: Point) -> float:
        least = point.sigma / PURE_NOISE_LEVEL if self.zero_terminal_snr else 0.0
        return point.sigma / max(point.alpha, least)

    def scale(self, point: Point) -> float:
        """x / alpha = x0 + (sigma / alpha) * noise."""
        return point.alpha

    def below(self, point: Point, target: Point, eta: float) -> Point:
        """Song et al. 2020 (https://arxiv.org/abs/2010.02502), eq. 16, and k-diffusion."""
        ratio = self.level(target) / self.level(point)
        share = math.sqrt(max(0.0, 1 - eta * eta * (1 - ratio * ratio)))
        return Point(target.alpha, share * target.sigma, target.time)


@dataclass(frozen=True)
class FlowSchedule:
    """A straight path: level t in (0, 1], alpha = 1 - t, sigma = t, network time = count * t.

    `shift` > 1 spends more steps on much noise, as larger pictures need: training step k of `count`
    has t = shift * u / (1 + (shift - 1) * u), u = k / count (Esser et al. 2024,
    https://arxiv.org/abs/2403.03206, eq. 23; SD 3 uses 3).
    """

    shift: float = 1.0
    count: int = 1000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise InvalidRequest(f"shift is {self.shift}: it must be a number above 0 (1 changes nothing)")
        if self.count < 1:
            raise InvalidRequest(f"{self.count} training steps make no schedule: give at least 1")

    @property
    def lowest(self) -> float:
        return self.shifted(1 / self.count)

    @property
    def highest(self) -> float:
        return 1.0

    @property
    def first(self) -> int:
        return 1

    @property
    def last(self) -> int:
        return self.count

    def shifted(self, u: float) -> float:
        """The level that u in [0, 1] is moved to."""
        return self.shift * u / (1 + (self.shift - 1) * u)

    def at(self, level: float) -> Point:
        if level <= 0:
            return CLEAN
        t = min(level, 1.0)
        return Point(1 - t, t, self.count * t)

    def trained(self, step: float) -> Point:
        if not 0 < step <= self.count:
            raise InvalidRequest(f"training step {step} is outside 1 to {self.count}")
        return self.at(self.shifted(step / self.count))

    def told(self, time: float) -> Point:
        return self.at(time / self.count)

    def drawn(self, u: float) -> Point:
        return self.at(self.shifted(u))

    def level(self, point: Point) -> float:
        return point.sigma / self.scale(point)

    def scale(self, point: Point) -> float:
        """x = x0 + t * (noise - x0) needs no scale; other points are brought onto the line."""
        return point.alpha + point.sigma

    def below(self, point: Point, target: Point, eta: float) -> Point:
        """Down to t * (1 - eta * (1 - t / t_from)) on the line, then scaled to target's alpha
        (the rectified-flow ancestral step of ComfyUI and LTX-Video)."""
        t = self.level(target)
        down = t * max(0.0, 1 - eta * (1 - t / self.level(point)))
        return Point(target.alpha, target.alpha * down / (1 - down), target.time)


def resolution_shift(pixels: int, trained_pixels: int) -> float:
    """The extra shift for pictures of another size than those trained on: sqrt(m / n)
    (Esser et al. 2024, eq. 23)."""
    return math.sqrt(pixels / trained_pixels)
