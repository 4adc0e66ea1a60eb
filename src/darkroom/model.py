"""The Python face: `load` a model, `generate` pictures with it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from darkroom.adapters.adapter import Adapter
from darkroom.adapters.collection import Collection
from darkroom.adapters.dose import doses_by_role
from darkroom.adapters.merged import Merged
from darkroom.assembly import Opened, open_model
from darkroom.checkpoint.load import Progress
from darkroom.choosing import Choices
from darkroom.detection.detectors import Detectors
from darkroom.editing import Edits
from darkroom.engine import Engine, LatentDiffusion, Task, place
from darkroom.engine.devices import SLOW_HERE
from darkroom.engine.loading import networks_of
from darkroom.engine.loop import Loop
from darkroom.engine.memory import memory_mode
from darkroom.errors import InvalidRequest
from darkroom.forecast.forecast import Forecaster
from darkroom.generation import Picture, Request
from darkroom.generation.attention import Observer
from darkroom.generation.between import between
from darkroom.generation.checks import showing
from darkroom.generation.edits import notes_of, subject_of
from darkroom.generation.frames import by_network
from darkroom.generation.job import Job
from darkroom.generation.named import Finder
from darkroom.generation.passes import enlarges
from darkroom.generation.redrawing import wordings as detail_wordings
from darkroom.generation.request import SETTINGS, Settings
from darkroom.generation.saved import Saved
from darkroom.generation.settle import settle
from darkroom.generation.templates import completed, pictures
from darkroom.generation.wording import Extras, Wording, anchored_files
from darkroom.language.tags import parse_tag
from darkroom.loading import LOADING, Loading, Options
from darkroom.numeric import parse_size
from darkroom.provenance import Provenance
from darkroom.series import Callback, Series, Step, in_background, in_order, stops
from darkroom.upscaling.upscaler import Upscalers

_MOST_CHECKED = 100
"""Of how many pictures whose prompts are drawn by lot all is checked before the first is made."""


class Model(Edits, Choices):
    """A model ready to make pictures. Use `load` to get one.

    Any number of streams and calls may go on at once, in one thread or in several: each has the pictures that it would
    have alone. One network call is made at a time.
    """

    def __init__(self, opened: Opened, networks: LatentDiffusion, loading: Loading) -> None:
        source, refiner = opened.source, opened.refiner
        self.name = opened.name
        self.family = source.family
        slow = [SLOW_HERE] if SLOW_HERE in networks.placement.why else []
        self._assumed = (*source.notes, *slow)
        self.placement = networks.placement
        self.engine = Engine(networks)
        self.provenance = Provenance(
            opened, loading, networks.placement, self.engine.rows, networks.memory.parts
        )
        """What its pictures come from, as their files say it."""
        self.refiner = self.provenance.refiner
        self._members = tuple((each.family, member) for each, member in opened.members)
        self._refiner_family = None if refiner is None else refiner.family
        self._networks = networks
        self._collection = Collection(networks.experts[0].networks, opened.name)
        own = networks.experts[0]
        self._upscalers = Upscalers(networks.placement)
        self._find = Finder(networks, own.text, own.denoiser.joint, self.family, self.name)
        self._detectors = Detectors(self._find.seeker, networks.placement.device)
        self._path, self._judges = source.path, {}
        self._fused: list[tuple[Merged, list[Adapter]]] = []
        self._streams = 0
        self._closed = False
        self._release: Callable[[], object] = lambda: None
        self._loop = Loop(self.engine.beside())
        weakref.finalize(self, self._loop.close, wait=False).atexit = False

    def __repr__(self) -> str:
        where = f"{self.placement.device} in {self.placement.precision}"
        return f"<Model {self.name}: {self.family.name}, on {where}>"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of the model, and what is not used of the adapters in its weights, in words."""
        return (*self._assumed, *(note for each in self._in_weights() for note in each.notes))

    def _in_weights(self) -> list[Adapter]:
        return [adapter for _, adapters in self._fused for adapter in adapters]

    def networks(self) -> list[nn.Module]:
        """All its networks."""
        return self._networks.modules()

    def fuse(self, *adapters: str) -> None:
        """Write adapters, named as in `Request.adapters`, into the weights until `unfuse`: every picture has them, and
        takes no longer than without. Raises InvalidRequest for what cannot be written there: adapters for some steps,
        hypernetworks, weights that come and go; and while pictures are being made."""
        named = [(tag, self._collection.adapter(tag)) for tag in map(parse_tag, adapters)]
        doses = doses_by_role(named)
        with self._still():
            merged = Merged(self._networks.experts[0].networks, doses)
            self._fused.append((merged, [adapter for _, adapter in named]))
            for text, (_, adapter) in zip(adapters, named, strict=True):
                self.provenance.fuse(text, adapter.sha256)
            self._changed()

    def unfuse(self) -> None:
        """Take all that was fused out of the weights, which are then what they were, to the bit."""
        with self._still():
            while self._fused:
                self._fused.pop()[0].undo()
            self.provenance.unfuse()
            self._changed()

    def _changed(self) -> None:
        for expert in self._networks.experts:
            expert.text.forget()
        self._collection.forget()
        self._find.forget()

    def close(self) -> None:
        """Let go of the files that networks are still read from; it makes no more pictures after that."""
        self._closed = True
        self._judges.clear()
        self._loop.close()
        self._release()

    def keep_open(self, opened: ExitStack) -> None:
        """Have these files open until `close`, or until nobody has the model any more."""
        self._release = weakref.finalize(self, opened.close)

    @showing(SETTINGS)
    def generate(
        self,
        prompt: str | Request | Sequence[str | Request],
        *,
        callback: Callback | None = None,
        attention: bool = False,
        **settings: Unpack[Settings],
    ) -> list[Picture]:
        """Make pictures of a prompt, or of several.

        Settings are those of `Request`: negative, width, height, steps, guidance, sampler, schedule, seed, count and so
        on; of a `Request` they are changed. `callback` sees every step; when it returns False, work stops and the
        pictures finished so far are returned. With `attention` each picture has its `attention`, where the words of the
        prompt were read. Raises InvalidRequest for settings that cannot be honoured, GenerationError where the work
        fails.
        """
        finished = []
        for event in self.stream(prompt, attention=attention, **settings):
            if isinstance(event, Picture):
                finished.append(event)
            elif stops(callback, event):
                break
        return in_order(finished)

    @showing(SETTINGS)
    def stream(
        self,
        prompt: str | Request | Sequence[str | Request],
        *,
        attention: bool = False,
        **settings: Unpack[Settings],
    ) -> Iterator[Step | Picture]:
        """`generate` as an iterator: a `Step` after each network call, each `Picture` as it is finished.

        All work is done in the thread that asks for the next event, while it asks; closing the iterator cancels what is
        left.
        """
        return self._develop(self._series(prompt, settings, attention))

    @showing(SETTINGS)
    def interpolate(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int] = (),
        frames: int = 9,
        loop: bool = False,
        callback: Callback | None = None,
        **settings: Unpack[Settings],
    ) -> list[Picture]:
        """Make pictures on the way through several prompts, several seeds, or both (see `darkroom.between`)."""
        return self.generate(between(prompts, seeds, frames, loop, **settings), callback=callback)

    @showing(SETTINGS)
    def submit(
        self,
        prompt: str | Request | Sequence[str | Request],
        *,
        callback: Callback | None = None,
        attention: bool = False,
        **settings: Unpack[Settings],
    ) -> Future[list[Picture]]:
        """`generate` in the background: returns at once, from any thread.

        What is submitted runs side by side, in turns, in the model's own thread, where `callback` is called too. The
        future's `result()` is the pictures, or raises what `generate` would; its `cancel()` stops the work, from any
        thread, after the network call that it is in. Raises InvalidRequest at once for settings that cannot be
        honoured.
        """
        series = self._series(prompt, settings, attention)
        with ExitStack() as drawing:
            drawing.enter_context(self._drawing())
            future = in_background(self._loop, series, callback)
            over = drawing.pop_all()
        future.add_done_callback(lambda _: over.close())
        return future

    def _series(
        self, prompt: str | Request | Sequence[str | Request], settings: Settings, attention: bool = False
    ) -> Series:
        several = prompt if isinstance(prompt, list | tuple) else [prompt]
        requests = [
            each.replace(**settings) if isinstance(each, Request) else Request(cast(str, each), **settings)
            for each in several
        ]
        settled = [(self.settle(each), each) for each in requests]
        jobs = (
            (self.job(single, watch=self._observer() if attention else None), partial(self.picture, asked))
            for whole, asked in settled
            for single in pictures(whole)
        )
        return Series(jobs, self.engine.rows * self.engine.calls)

    def settle(self, request: Request) -> Request:
        """The request with everything it leaves open filled in: exactly what will be made.

        A sampler other than the model's own brings the schedule that suits it. Raises InvalidRequest for what this
        model cannot do, ModelError where an adapter or embedding that is named is missing or does not fit.
        """
        request = anchored_files(request.checked())
        settled = completed(settle(request, self.family, self.name, self.refiner is not None, self._find))
        if settled.noise.source == "gpu" and self.placement.device.type != "cuda":
            raise InvalidRequest(
                f"noise_source is gpu, but {self.name} is on {self.placement.device}: nv gives an NVIDIA GPU's numbers"
            )
        for expert in self._networks.experts[: 1 + len(self._members)]:
            expert.check(settled)
        drawn = 1 if settled.text.dynamic == "off" else _MOST_CHECKED
        for single in itertools.islice(pictures(settled), drawn):
            self.job(single)
        return settled

    def job(self, single: Request, saved: Saved | None = None, watch: Observer | None = None) -> Job:
        """The job of a settled request for one picture, for an engine on this model's networks (`engine.beside()`); one
        that was `saved` goes on. What comes of it is a picture by `picture`."""
        return Job(
            single, self.family, saved, self._refiner_family, self._extras(single), self._members, watch
        )

    def _observer(self) -> Observer:
        own = self._networks.experts[0]
        return Observer(own.text, own.denoiser.joint)

    def _extras(self, request: Request) -> Extras:
        """What a request names beside the model."""
        own = request, request.for_second_pass(), *detail_wordings(request)
        wordings = [Wording(each) for each in dict.fromkeys(own)]
        adapters = self._collection.adapters(dict.fromkeys(tag for each in wordings for tag in each.tags))
        texts = [text for each in wordings for text in each.texts]
        embeddings, notes = self._collection.embeddings(
            texts, request.text.embeddings, [*self._in_weights(), *adapters.values()]
        )
        notes += [note for adapter in adapters.values() for note in adapter.notes]
        _, subject = subject_of(request, self._find)
        if subject is not None:
            notes += notes_of(request, subject)
        upscaler = None
        if by_network(name := request.canvas.upscaler):
            needed = bool(request.detail.details) or enlarges(request, self.family, subject)
            upscaler = self._upscalers(str(name), needed)
        return Extras(
            adapters,
            tuple(embeddings.items()),
            subject,
            upscaler,
            {each: self._detectors(each) for each in request.detail.details},
            tuple(dict.fromkeys(notes)),
        )

    def _develop(self, series: Series) -> Iterator[Step | Picture]:
        # Streams side by side go at the pace of whoever asks for their next step.
        engine = self.engine.beside()
        with self._drawing():
            try:
                while True:
                    for job in series.due():
                        engine.submit(job)
                    advanced = engine.tick()
                    if not advanced:
                        return
                    for task in advanced:
                        yield from series.events(task)
            finally:
                for task in engine.tasks:
                    task.cancel()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Within which the weights stay as they are."""
        with self._networks.lock:
            if self._closed:
                raise InvalidRequest(f"{self.name} was closed: load it again to make pictures")
            self._streams += 1
        try:
            yield
        finally:
            with self._networks.lock:
                self._streams -= 1

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Within which weights may change. Raises InvalidRequest while pictures are being made."""
        with self._networks.lock:
            if self._streams:
                raise InvalidRequest(
                    f"{self.name} is making pictures: take all of them, or close the stream, before its weights change"
                )
            yield

    def picture(self, asked: Request, task: Task[Any], index: int, job: Job | None = None) -> Picture:
        """What a task made of a request; `job` is the one that it ran a part of. Raises what made it fail."""
        job = job or task.job
        pixels: np.ndarray[Any, Any] = task.result()
        request, extras = job.request, job.extras
        metadata, text = self.provenance.of(request, asked, extras, [*job.notes, *task.notes], task.rows)
        latents = None if job.latents is None else job.latents.to("cpu", torch.float32).clone()
        seen = None if job.watch is None else job.watch.maps()
        return Picture(Image.fromarray(pixels), request.seed or 0, metadata, text, index, latents, seen)

    def foretold(self, request: Request) -> tuple[dict[str, Any], str]:
        """The metadata that the first picture of a request will have, but for hashes and notes, and the same in A1111's
        words. Raises what `settle` does."""
        first = next(pictures(self.settle(request)))
        return self.provenance.foretold(first, request, self._extras(first))


@showing(LOADING)
def load(
    model: str | Path | Loading = "pocket",
    *,
    expecting: Request | None = None,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> Model:
    """Load a model by name (see `darkroom models`), from a folder in the Hugging Face layout, or from a single file.

    The options are those of `Loading`, which may be given itself. `device`: cpu, cuda, mps or whatever torch offers;
    `precision`: float32, bfloat16 or float16; both are chosen for the machine when left out. `vae`: another
    autoencoder, by name, file or folder; `others`: names or files of parts that a file lacks (text encoders).
    `prediction` (epsilon, v_prediction) and `zero_snr` say what a file does not; `variant` picks among a folder's
    files ("fp16"); without `t5` a Stable Diffusion 3 does without its largest text encoder. `refiner`: a second model
    of Stable Diffusion XL that makes the last steps, from the setting `refiner_switch` on. `ensemble`: other models of
    the same latents that make steps with this one or in its place: "inks:0.3" averages what both see,
    "inks:1:start=0.5" goes on with it from half the way, "inks:1:every=2" takes turns
    (`darkroom.generation.ensemble`). `fuse`: adapters that are written into the weights (see `Model.fuse`). `memory`:
    full, or with networks that come and go: medium, low, lowest (`darkroom.engine.memory`), or what there is of it,
    such as "8GB", for which the fastest of them is chosen that suffices for a request like `expecting` (a picture of
    the model's native size). `progress` is told (component, bytes read, bytes in all). Raises ModelError for a model
    that is missing or damaged, or a refiner or adapter that does not fit it, InvalidRequest for a device, a precision
    or memory that is not to be had.
    """
    loading = Loading.of(model, **options)
    placement = place(loading.device, loading.precision)
    if not isinstance(expecting, Request | None):
        raise InvalidRequest(f"expecting is {expecting!r}: give a Request")
    with ExitStack() as files:
        opened = files.enter_context(open_model(loading))
        if (limit := parse_size(loading.memory)) is None:
            mode = memory_mode(loading.memory)
        else:
            wanted = opened.settle(expecting or opened.usual())
            mode = memory_mode(Forecaster(opened, placement, wanted).fitting(limit).mode)
        members = [each for each, _ in opened.members]
        networks = networks_of(opened.source, placement, opened.refiner, mode, progress, members)
        ready = Model(opened, networks, loading)
        if loading.fuse:
            ready.fuse(*loading.fuse)
        if mode.comes_and_goes:
            ready.keep_open(files.pop_all())
        return ready
