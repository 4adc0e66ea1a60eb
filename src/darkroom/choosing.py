"""What a model does with many pictures of one request: draws them, ranks them and keeps the best; and with one that
there is: others like it, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Unpack

from PIL import Image

from darkroom.checkpoint.family import VARIED, Family
from darkroom.engine import LatentDiffusion
from darkroom.engine.devices import Placement
from darkroom.errors import GenerationError, InvalidRequest
from darkroom.generation import Picture, Request
from darkroom.generation.checks import showing
from darkroom.generation.job import Job
from darkroom.generation.picture import edit_of, made_by
from darkroom.generation.request import PARTS, SETTINGS, Settings, within
from darkroom.generation.sources import Source, a_source
from darkroom.generation.templates import pictures
from darkroom.pixels import over_white
from darkroom.ranking.halting import Half, Halting
from darkroom.ranking.judge import Interrogation, Judge, Judging, said_plainly
from darkroom.ranking.judges import CLIP, judge_called
from darkroom.ranking.options import LOOK_AFTER, Choosing, a_judge
from darkroom.ranking.phrases import phrases_in
from darkroom.ranking.variants import Choice, Variant
from darkroom.series import AnyTask, Callback, Series, Step, stops

VARIATION_STRENGTH = 0.15
"""How far towards other noise a picture's own goes where others like it are drawn and nothing is said."""
EDIT_STRENGTH = 0.5
"""How much of a picture is drawn anew, where nobody knows which noise it came of."""


class Choices:
    """The part of a model that chooses."""

    name: str
    family: Family
    placement: Placement
    refiner: Any
    engine: Any
    settle: Callable[[Request], Request]
    _path: Path
    _judges: dict[str, Judge]
    _networks: LatentDiffusion
    _job: Callable[..., Job]
    _picture: Callable[..., Picture]
    _develop: Callable[[Series], Iterator[Step | Picture]]
    _drawing: Callable[[], AbstractContextManager[None]]

    @showing(SETTINGS)
    def choose(
        self,
        prompt: str | Request,
        *,
        variants: int = 8,
        finish: int | None = None,
        keep: int = 1,
        look_after: float = LOOK_AFTER,
        judge: str | None = None,
        callback: Callback | None = None,
        **settings: Unpack[Settings],
    ) -> Choice:
        """Begin so many `variants` of a picture, each with a seed of its own; `look_after` a share of the network calls
        have those go on that look best, `finish` in number, and rank these by `judge`: "oracle", "clip" or a CLIP's
        name, folder or file. Where nothing is said those are finished that look right, half of all at most and no
        fewer than `keep` (half where the judge cannot say), and the judge is the model's. The first `keep` are the
        `kept` of what is returned.

        Each picture is what `generate` makes of its seed alone. Settings and `callback` are those of `generate`; when
        the callback returns False, what is finished by then is ranked. Raises InvalidRequest as `generate` does, and
        where the judge knows nothing of what is asked; ModelError where there is no such judge.
        """
        choosing = Choosing(variants, finish, keep, look_after, judge)
        request = prompt.replace(**settings) if isinstance(prompt, Request) else Request(prompt, **settings)
        return self._chosen(request, choosing, callback)

    @showing(SETTINGS)
    def vary(  # type: ignore[misc]  # As `edit`.
        self,
        image: Any,
        prompt: str | None = None,
        *,
        like: Any = None,
        variants: int = 8,
        finish: int | None = None,
        keep: int = 1,
        look_after: float = LOOK_AFTER,
        judge: str | None = None,
        callback: Callback | None = None,
        **settings: Unpack[Settings],
    ) -> Choice:
        """`choose` among pictures like one that there is. One that Darkroom made is drawn again by its own recipe, with
        its noise a little towards that of other seeds (`variation_strength`). Any other, and any with settings of an
        edit (`strength`) or another recipe (`like`, as `edit` has it), is drawn over, by a prompt of what it shows
        where there is none. Raises InvalidRequest where it is no picture, and as `choose` does."""
        choosing = Choosing(variants, finish, keep, look_after, judge)
        recipe = made_by(image) if like is None else None
        if recipe is not None and by_noise(recipe, self.family, settings):
            request = variation_of(recipe, self.refiner is not None, prompt, settings)
        else:
            request = self.drawn_over(image, prompt, like, judge, settings)
        return self._chosen(request, choosing, callback)

    def drawn_over(
        self, image: Any, prompt: str | None, like: Any, judge: str | None, settings: Mapping[str, Any]
    ) -> Request:
        """The request of an edit whose pictures are like the one that is given; `like` is as `edit` has it, `judge` who
        says what the picture shows where there is no prompt."""
        frame = settings.get("frame")
        a_source("image", image).found("image", frame)
        told = prompt is not None or isinstance(like, Request)
        if not told and made_by(image if like is None else like or None) is None:
            prompt = self.interrogate(image, judge=judge, frame=frame).prompt
        request = edit_of(image, prompt, image if like is None else like, self.refiner is not None)
        begun: dict[str, Any] = {} if self.family.needs == VARIED else {"strength": EDIT_STRENGTH}
        given = {name: value for name, value in settings.items() if value is not None}
        return request.replace(**{**begun, **given, "image": image})

    def interrogate(
        self,
        image: Any,
        *,
        judge: str | None = None,
        phrases: str | Path | None = None,
        frame: int | None = None,
    ) -> Interrogation:
        """A prompt for a picture, in what its judge knows: the oracle in the words of the drawn world, a CLIP in
        phrases, which may be one's own: a text file with one a line, or a folder of such
        (`darkroom.ranking.phrases`). `frame`: of an animated picture that one. Raises InvalidRequest where it is no
        picture, ModelError where there is no such judge."""
        return interrogated(self.judge(judge), image, phrases, frame)

    def judge(self, name: str | None = None) -> Judge:
        """Who ranks pictures: see `choose`. It is read when it is first needed, and kept until `close`."""
        named = a_judge("judge", name) if name is not None else None
        wanted = named or self.family.judge or CLIP
        with self._networks.lock:
            if wanted not in self._judges:
                found = judge_called(named, self._path, self.family.judge, self.placement.device)
                self._judges[wanted] = found
            return self._judges[wanted]

    def _chosen(self, request: Request, choosing: Choosing, callback: Callback | None) -> Choice:
        choosing = choosing.checked()
        if request.count != 1:
            raise InvalidRequest(
                f"count is {request.count}: of variants there are as many as `variants=` says, leave it out"
            )
        settled = self.settle(request.replace(count=choosing.variants))
        judge = self.judge(choosing.judge)
        singles = [*pictures(settled)]
        said = [said_plainly(single) for single in singles]
        asked = {each: judge.asked(*each) for each in dict.fromkeys(said)}
        contest = _Contest(self, request, choosing, singles, [asked[each] for each in said], callback)
        with self._drawing():
            variants = contest.held()
        notes = [note for each in asked.values() for note in each.notes]
        return Choice(
            judge.name, variants, choosing.keep, tuple(dict.fromkeys([*notes, *contest.notes]))
        ).noted()


def by_noise(recipe: Request, family: Family, settings: Mapping[str, Any]) -> bool:
    """Whether pictures like the one that a recipe makes come of other noise, and are not drawn over: where what it
    began with is still there, and nothing is said of an edit."""
    of_edits = {name for part in ("edit", "inpaint", "extend", "seen") for name in within(PARTS[part])}
    if family.needs == VARIED or any(settings.get(name) is not None for name in of_edits):
        return False
    try:
        for name, source in (
            ("image", recipe.edit.image),
            ("mask", recipe.inpaint.mask),
            ("depth", recipe.seen.depth),
        ):
            if isinstance(source, Source):
                source.found(name, recipe.edit.frame if name == "image" else None)
    except InvalidRequest:
        return False
    return True


def variation_of(recipe: Request, refined: bool, prompt: str | None, settings: Mapping[str, Any]) -> Request:
    """The recipe of pictures like the one that it makes: with its noise a little towards that of others. Of one that is
    such a variation itself it is the noise that it is nearest to. `refined`: the model has a refiner."""
    changes: dict[str, Any] = {
        "count": 1,
        "variation_strength": VARIATION_STRENGTH,
        "variation_seed": None,
    }
    if recipe.noise.variation_strength > 0.5:
        changes["seed"] = recipe.noise.variation_seed
    if prompt is not None:
        changes["prompt"] = prompt
    if not refined:
        changes["refiner_switch"] = None
    return recipe.replace(**{**changes, **settings})


def interrogated(
    judge: Judge, image: Any, phrases: str | Path | None = None, frame: int | None = None
) -> Interrogation:
    """What a judge says of a picture, which is given as `edit` takes it."""
    if not isinstance(phrases, str | Path | None):
        raise InvalidRequest(f"phrases is {phrases!r}: give a text file, or a folder of such")
    own = None if phrases is None else phrases_in(phrases)
    pixels = a_source("image", image).found("image", frame)[1].over()
    return judge.interrogate(Image.fromarray(pixels), own)


def can_halt(request: Request) -> bool:
    """Whether what is seen halfway of a settled request's picture is the picture, and not a part of it."""
    return request.edit.loops != 0 and not (request.in_part and request.inpaint.only_masked)


class _Contest:
    """Variants on their way: begun, looked at, given up or finished, and ranked."""

    def __init__(
        self,
        model: Any,
        request: Request,
        choosing: Choosing,
        singles: Sequence[Request],
        judgings: Sequence[Judging],
        callback: Callback | None,
    ) -> None:
        self._model, self._request, self._choosing = model, request, choosing
        self._singles, self._judgings, self._callback = singles, judgings, callback
        self._under_way: dict[int, Halting] = {}
        self._found: dict[int, Variant] = {}
        self._said: dict[int, list[str]] = {}
        self._failed: dict[int, GenerationError] = {}
        self.notes: list[str] = []

    def held(self) -> tuple[Variant, ...]:
        """All that came of it, the best first."""
        every: Sequence[int] = range(len(self._singles))
        halts = self._choosing.look_after < 1 and self._choosing.finished < len(every)
        if halts and not can_halt(self._singles[0]):
            halts = False
            self.notes.append("all are finished: of what is drawn in part alone nothing can be told halfway")
        if halts:
            if self._run(every, attrgetter("first"), self._look):
                self._run(self._finalists(), attrgetter("whole"), self._finish)
        else:
            self._run(every, attrgetter("whole"), self._finish)
        if self._failed and not any(each.picture is not None for each in self._found.values()):
            raise next(iter(self._failed.values()))
        self.notes += [f"variant {index + 1} failed: {error}" for index, error in self._failed.items()]
        return tuple(sorted(self._found.values(), key=lambda each: each.rank))

    def _finalists(self) -> Sequence[int]:
        """Those that look best, in the order in which they were begun; the others are given up."""
        best = sorted(self._found.values(), key=lambda each: each.rank)[: self._choosing.finished]
        if self._choosing.finish is None and all(each.judgement.right is not None for each in best):
            right = sum(bool(each.judgement.right) for each in best)
            best = best[: max(right, self._choosing.keep)]
        found = sorted(each.index for each in best)
        self._under_way = {index: self._under_way[index] for index in found}
        return found

    def _run(
        self,
        indices: Sequence[int],
        half: Callable[[Halting], Half],
        made: Callable[[int, AnyTask, int], Picture | None],
    ) -> bool:
        """Run a half of some jobs; whether the callback let it come to its end. One that fails is left out."""

        def ended(index: int, task: AnyTask, number: int) -> Picture | None:
            try:
                return made(index, task, number)
            except GenerationError as error:
                self._failed[index] = error
                self._found.pop(index, None)
                self._under_way.pop(index, None)
                return None

        engine = self._model.engine
        jobs = ((half(self._halting(index)), partial(ended, index)) for index in indices)
        series = Series(jobs, engine.rows * engine.calls)
        for event in self._model._develop(series):
            if isinstance(event, Step) and stops(self._callback, replace(event, index=indices[event.index])):
                return False
        return True

    def _halting(self, index: int) -> Halting:
        """The job of a variant, made when it is due: as many wait as are asked for."""
        if index not in self._under_way:
            job = self._model.job(self._singles[index])
            self._under_way[index] = Halting(job, self._choosing.look_after)
        return self._under_way[index]

    def _look(self, index: int, task: AnyTask, _: int) -> None:
        """What a picture looks like on its way."""
        job, image = self._under_way[index].job, over_white(Image.fromarray(task.result()))
        (judgement,) = self._judgings[index]([image])
        self._said[index] = task.notes
        self._found[index] = Variant(
            index, self._singles[index], judgement, job.done, job.total, looked=image, early=judgement
        )

    def _finish(self, index: int, task: AnyTask, _: int) -> Picture:
        """What it is in the end."""
        task.notes[:0] = [note for note in self._said.get(index, ()) if note not in task.notes]
        job = self._under_way.pop(index).job
        picture: Picture = self._model.picture(self._request, task, index, job)
        (judgement,) = self._judgings[index]([over_white(picture.image)])
        before = self._found.get(index)
        early = None if before is None else before.early
        self._found[index] = Variant(
            index, self._singles[index], judgement, job.done, job.total, picture, early=early
        )
        return picture
