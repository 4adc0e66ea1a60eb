"""The one training loop. A stage says what is trained on what; the loop does the rest.

Everything random in step n is drawn from a generator seeded with (seed, n), and sample i of the data is a
function of (seed, i): the state of a run is its tensors and its step, and a resumed run takes the very steps the
interrupted one would have taken.
"""

from __future__ import annotations

import math
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from darkroom.errors import GenerationError, InvalidRequest, ModelError
from darkroom.train.average import Average, named_parameters
from darkroom.train.config import LoopConfig, rate
from darkroom.train.feed import Source, feed
from darkroom.train.journal import Journal
from darkroom.train.muon import Muon
from darkroom.train.saved import NAME, read_checkpoint, write_checkpoint

Batch: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """Parameters trained alike: `rate` multiplies the learning rate, `decay` the weight decay. `matrices`: linear maps,
    whose steps Muon may make orthogonal."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0
    matrices: bool = False


class Stage(Protocol):
    """What a stage brings. Its networks are trained, averaged and saved together."""

    @property
    def name(self) -> str: ...

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def source(self) -> Source:
        """The data, as arrays by name; picklable."""
        ...

    def shares(self) -> Iterable[Share]:
        """The parameters to train."""
        ...

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise, and numbers to log. All randomness comes from `generator`."""
        ...

    def validate(self) -> dict[str, float]:
        """Numbers on data never trained on, the same data each time."""
        ...

    def sheet(self) -> Image.Image:
        """A picture of how far it has come."""
        ...

    def export(self, folder: Path) -> None:
        """Write the trained networks as folders that Darkroom loads."""
        ...


def shares_by_shape(networks: Iterable[nn.Module], rate: float = 1.0) -> list[Share]:
    """Matrices and kernels, and tables of embeddings, with weight decay; biases, norms and other vectors without."""
    modules = [module for network in networks for module in network.modules()]
    tables = {module.weight for module in modules if isinstance(module, nn.Embedding)}
    own = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
    return [
        Share([p for p in own if p.ndim > 1 and p not in tables], rate, matrices=True),
        Share([p for p in own if p in tables], rate),
        Share([p for p in own if p.ndim <= 1], rate, decay=0.0),
    ]


class Trainer:
    """A stage at work in a folder: `checkpoint.safetensors`, `log.jsonl`, `curve.png`, `samples/`, `result/`."""

    def __init__(self, stage: Stage, config: LoopConfig, folder: Path, device: str = "cpu") -> None:
        self.stage, self.config, self.folder = stage, config, folder
        self.device = torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        for network in stage.networks.values():
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.train()
        self.optimisers = _optimisers([share for share in stage.shares() if share.parameters], config)
        self.average = Average(config, stage.networks)
        self.step = 0
        self.position = 0
        self.seconds = 0.0
        self.end = config.steps
        self.decay = config.decay
        self._pending: list[dict[str, Tensor]] = []
        if (folder / NAME).exists():
            self.restore(folder / NAME)
        self.journal = Journal(folder, self.step)
        if config.compile:
            for network in stage.networks.values():
                network.compile()

    # State

    def save(self, path: Path | None = None) -> None:
        """Write a checkpoint, by default the one that the run resumes from."""
        self._flush()
        tensors = {
            f"model.{prefix}.{name}": value
            for prefix, network in self.stage.networks.items()
            for name, value in network.state_dict().items()
        }
        tensors |= {f"average.{name}": value for name, value in self.average.tensors.items()}
        for name, parameter in named_parameters(self.stage.networks):
            for optimiser in self.optimisers:
                for key, value in optimiser.state.get(parameter, {}).items():
                    tensors[f"optimiser.{key}.{name}"] = value
        numbers = {name: getattr(self, name) for name in ("step", "position", "seconds", "end", "decay")}
        numbers |= {"stage": self.stage.name, "updates": self.average.updates, "loop": asdict(self.config)}
        write_checkpoint(path or self.folder / NAME, tensors, numbers)

    def restore(self, path: Path, end: bool = True) -> None:
        """Go on from a checkpoint; without `end`, forget when it was to end.

        Raises ModelError where it is another stage's or its networks have other shapes.
        """
        tensors, numbers = read_checkpoint(path)
        if numbers["stage"] != self.stage.name:
            raise ModelError(f"{path} is a checkpoint of stage {numbers['stage']!r}, not {self.stage.name!r}")
        try:
            for prefix, network in self.stage.networks.items():
                start = f"model.{prefix}."
                own = {name.removeprefix(start): v for name, v in tensors.items() if name.startswith(start)}
                network.load_state_dict(own)
            owners = {p: optimiser for optimiser in self.optimisers for p in _parameters(optimiser)}
            for name, parameter in named_parameters(self.stage.networks):
                self.average.tensors[name].copy_(tensors[f"average.{name}"])
                optimiser = owners[parameter]
                state = {key: tensors.get(f"optimiser.{key}.{name}") for key in _STATE[type(optimiser)]}
                optimiser.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(value) if value.ndim else value.to(self.device)
                    for key, value in state.items()
                    if value is not None
                }
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"{path} does not fit these settings' networks: {error}") from error
        self.average.updates = numbers["updates"]
        self.step, self.position, self.seconds = numbers["step"], numbers["position"], numbers["seconds"]
        if end:
            # Longer training may be asked for, a decay under way is kept.
            self.end = max(numbers["end"], self.config.steps) if self.config.steps else numbers["end"]
            self.decay = numbers["decay"] if self.end == numbers["end"] else self.config.decay

    def finish(self, steps: int) -> None:
        """End `steps` steps from here, decaying the learning rate over them. What there is now is kept beside
        as `stable-STEP.safetensors`, so that training can also go on as if nothing had been finished."""
        if steps < 1:
            raise InvalidRequest(f"finish is {steps}: it must be at least 1 step")
        if self.step:
            self.save(self.folder / f"stable-{self.step:08d}.safetensors")
        self.end, self.decay = self.step + steps, steps

    # Training

    def run(self, until: int = 0) -> bool:
        """Train to the end (or to step `until`); True when it was reached, False when stopped by a signal."""
        target = min(filter(None, (self.end, until)), default=0)
        self.average.updates = self.average.updates or 0
        with self._interruptible() as interrupted, self._bar(target) as bar:
            saved = logged = time.monotonic()
            counted = self.step
            batches = feed(
                self.stage.source(), self.position, self.config.batch, self.config.workers, self.config.ahead
            )
            with closing(batches):
                while not interrupted and (not target or self.step < target):
                    self._train(next(batches))
                    bar.update(self.config.batch)
                    if self._due(self.config.log_every):
                        now = time.monotonic()
                        speed = (self.step - counted) * self.config.batch / (now - logged)
                        self.seconds += now - logged
                        logged, counted = now, self.step
                        self._log(speed, bar)
                    self._look()
                    if time.monotonic() - saved > self.config.save_minutes * 60:
                        self.save()
                        saved = time.monotonic()
        self.save()
        self.journal.draw(self.folder / "curve.png")
        reached = bool(target) and self.step >= target
        if reached and target == self.end:
            with self._evaluating():
                self.stage.export(self.folder / "result")
        return reached

    def _train(self, arrays: Mapping[str, Any]) -> None:
        batch = {name: self._placed(torch.from_numpy(value)) for name, value in arrays.items()}
        seed = random.Random(f"{self.config.seed}/{self.step}").getrandbits(62)
        generator = torch.Generator(self.device).manual_seed(seed)
        with self._autocast():
            loss, parts = self.stage.loss(batch, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for optimiser in self.optimisers for p in _parameters(optimiser)]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)
        start = self.end - self.decay if self.end and self.decay else None
        factor = rate(self.config, self.step, start, self.decay)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * factor * group["rate"]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.average.update()
        self._pending.append({"loss": loss.detach(), **parts, "norm": norm})
        self.step += 1
        self.position += self.config.batch

    def _placed(self, rows: Tensor) -> Tensor:
        if self.device.type == "cuda":
            rows = rows.pin_memory()  # From other memory the copy would wait for the step before this one.
        return rows.to(self.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        for network in self.stage.networks.values():
            network.eval()
        with self.average.applied(), torch.no_grad(), self._autocast():
            yield
        for network in self.stage.networks.values():
            network.train()

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _flush(self) -> dict[str, float]:
        """The means of what was logged since the last time."""
        pending, self._pending = self._pending, []
        if not pending:
            return {}
        means = {
            name: torch.stack([row[name].float() for row in pending]).mean().item() for name in pending[0]
        }
        if not all(math.isfinite(value) for value in means.values()):
            raise GenerationError(
                f"training became not-a-number before step {self.step} ({means}): the last checkpoint is whole; "
                "lower loop.learning_rate or set loop.precision to float32"
            )
        return means

    def _log(self, speed: float, bar: tqdm[Any]) -> None:
        means = self._flush()
        bar.set_postfix(loss=f"{means['loss']:.4f}", refresh=False)
        self.journal.write(self.step, {**means, "speed": speed, "seconds": self.seconds})

    def _look(self) -> None:
        validate, sample = self._due(self.config.validate_every), self._due(self.config.sample_every)
        if not validate and not sample:
            return
        with self._evaluating():
            if validate:
                self.journal.write(self.step, {f"val {k}": v for k, v in self.stage.validate().items()})
            if sample:
                folder = self.folder / "samples"
                folder.mkdir(exist_ok=True)
                self.stage.sheet().save(folder / f"step-{self.step:08d}.png")
        self.journal.draw(self.folder / "curve.png")

    def _bar(self, target: int) -> tqdm[Any]:
        return tqdm(
            total=target * self.config.batch or None,
            initial=self.step * self.config.batch,
            desc=self.stage.name,
            unit=" samples",
            smoothing=0.05,
            mininterval=1.0,
            disable=sys.stderr is None,
        )

    @contextmanager
    def _interruptible(self) -> Iterator[list[int]]:
        """A list that a SIGINT or SIGTERM puts its number in: the step under way is finished and saved.
        A second one ends the process as usual."""
        received: list[int] = []
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame: object) -> None:
            received.append(number)
            signal.signal(number, usual[signal.Signals(number)])

        for number in usual:
            signal.signal(number, note)
        try:
            yield received
        finally:
            for number, handler in usual.items():
                signal.signal(number, handler)


_STATE = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), Muon: ("momentum",)}
"""What each optimiser remembers of a parameter."""


def _optimisers(shares: Iterable[Share], config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for matrices and AdamW for the rest."""
    own: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for share in shares:
        group = {"params": list(share.parameters), "rate": share.rate}
        group["weight_decay"] = config.weight_decay * share.decay
        own[share.matrices and config.optimiser == "muon"].append(group)
    found: list[torch.optim.Optimizer] = []
    if own[True]:
        found.append(Muon(own[True], config.learning_rate))
    if own[False]:
        betas = config.betas[0], config.betas[1]
        found.append(torch.optim.AdamW(own[False], config.learning_rate, betas, fused=True))
    return found


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def continue_from(trainer: Trainer, path: Path) -> None:
    """Start a run in a fresh folder from another run's checkpoint (a branch: to finish it, say)."""
    if trainer.step:
        raise InvalidRequest(
            f"{trainer.folder} already holds a run at step {trainer.step}: choose another folder"
        )
    trainer.restore(path, end=False)


__all__ = ["Batch", "Share", "Stage", "Trainer", "continue_from", "shares_by_shape"]
