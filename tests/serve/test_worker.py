"""A worker within the process: what it makes is what the library makes, whatever happens in between."""

from __future__ import annotations

import base64
import dataclasses
import gc
import io
import json
import os
import shutil
import threading
import time
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import select, update
from tests.serve.conftest import PATIENCE, until
from tests.serve.test_intake import png

from darkroom.engine.networks import LatentDiffusion
from darkroom.errors import OutOfMemory
from darkroom.model import load
from darkroom.serve import claims, jobs
from darkroom.serve.catalogue import Catalogue
from darkroom.serve.database import Unavailable
from darkroom.serve.intake import Intake
from darkroom.serve.objects import content_key, key_of
from darkroom.serve.schema import checkpoints, events, pictures, previews, shelf, workers
from darkroom.serve.schema import jobs as table
from darkroom.serve.worker.stall import STATUS, Stall
from darkroom.serve.worker.worker import Worker


@pytest.fixture(scope="module")
def model(toy_folder):
    return load(toy_folder)


@pytest.fixture
def desk(serving, database, objects):
    """Takes jobs in as the API does."""
    catalogue = Catalogue("toy")

    def keep(content):
        objects.put(content_key(content)[1], content)

    def taken(owner="local", **body):
        job = Intake(catalogue).job(owner, {"prompt": "a boat"} | body, objects.get, keep)
        return database.write(lambda c: jobs.submit(c, job)).result(PATIENCE).row.id

    yield taken
    catalogue.close()


@pytest.fixture
def working(serving, database, objects):
    """Has a worker work within a block."""

    @contextmanager
    def working(**changes):
        worker = Worker(dataclasses.replace(serving, **changes), database, objects)
        thread = threading.Thread(target=worker.run)
        thread.start()
        database.told.append(worker.ring)
        try:
            yield worker
        finally:
            database.told.remove(worker.ring)
            worker.drain()
            thread.join(PATIENCE)
            assert not thread.is_alive()

    return working


@pytest.fixture
def look(database):
    """The row of a job."""
    return lambda job: database.read(lambda c: c.execute(select(table).where(table.c.id == job)).one())


@pytest.fixture
def over(look):
    """The row of a job once it is over."""

    def over(job):
        return until(lambda: row if (row := look(job)).finished_at is not None else None)

    return over


@pytest.fixture
def made(database, objects, over):
    """The pictures of a job, once it has succeeded."""

    def made(job):
        row = over(job)
        assert row.state == "succeeded", (row.code, row.error)
        rows = database.read(
            lambda c: c.execute(
                select(pictures).where(pictures.c.job == job).order_by(pictures.c.number)
            ).all()
        )
        assert [each.number for each in rows] == [*range(row.count)]
        return [Image.open(io.BytesIO(objects.get(key_of(each.sha256)))) for each in rows]

    return made


def same(images, wanted):
    assert len(images) == len(wanted)
    for image, picture in zip(images, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture.image))


BODIES = [
    {"seed": 1, "steps": 5},
    {"seed": 2, "steps": 3, "count": 3, "sampler": "euler_a"},
    {"seed": 3, "steps": 4, "guidance": 1, "sampler": "heun"},
    {"seed": 4, "steps": 4, "width": 64, "height": 32, "priority": "background"},
    {"seed": 5, "steps": 4, "width": 96, "height": 64},
    {"prompt": "a {red|blue|green} boat", "dynamic": "random", "seed": 6, "count": 2, "steps": 3},
    {"prompt": "[a boat:a house:2]", "seed": 7, "steps": 4},
]


def test_pictures_of_many_are_those_of_each_alone(desk, working, made, model):
    image = base64.b64encode(png(40, 32)).decode()
    bodies = [
        *BODIES,
        {"seed": 8, "steps": 5, "image": image, "strength": 0.6},
        {"seed": 9, "steps": 4, "image": image, "mask_box": "0,0,16,16"},
        {"seed": 10, "steps": 3, "image": image, "extend_right": 24},
    ]
    ids = [desk(("local", "other")[number % 2], **body) for number, body in enumerate(bodies)]
    larger = desk(kind="upscale", image=image, by=2, prompt=None)
    with working():
        for job, body in zip(ids, bodies, strict=True):
            own = {"prompt": "a boat"} | body | ({"image": png(40, 32)} if "image" in body else {})
            own.pop("priority", None)
            same(made(job), model.generate(own.pop("prompt"), **own))
        assert made(larger)[0].size == (80, 64)


def test_what_is_known_of_a_picture_that_was_made(desk, working, made, over, database, objects):
    job = desk(seed=1, steps=4, count=2, format="webp")
    with working():
        images = made(job)
    row = over(job)
    assert {each.format for each in images} == {"WEBP"}
    assert (row.done, row.total, row.attempt) == (8, 8, 1)
    assert row.seconds.keys() == {"encode", "denoise", "decode"}
    rows = database.read(lambda c: c.execute(select(pictures).where(pictures.c.job == job)).all())
    assert [each.seed for each in rows] == [1, 2]
    assert sum(each.seconds for each in rows) == pytest.approx(sum(row.seconds.values()))
    left = database.read(lambda c: [c.execute(select(each)).all() for each in (checkpoints, previews)])
    assert left == [[], []]
    assert [each for each in objects.root.rglob("checkpoints/**/*") if each.is_file()] == []


def test_a_job_goes_on_where_a_worker_was_stopped(desk, working, made, look, model, database):
    job = desk(seed=1, steps=120, count=2)
    with working(drain=0):
        until(lambda: look(job).done >= 20)
    row = look(job)
    assert (row.state, row.deaths) == ("queued", 0)
    saved = database.read(lambda c: c.execute(select(checkpoints)).all())
    assert [each.picture for each in saved] == [0, 1]
    assert sum(each.done for each in saved) >= 20 - 2
    with working() as worker:
        first = until(lambda: worker._hands.get(job))
        begun = until(lambda: [way.job.done for way in [*first.ways.values()] if way.job.done])
        assert min(begun) >= min(each.done for each in saved)
        same(made(job), model.generate("a boat", seed=1, steps=120, count=2))


def test_checkpoints_follow_one_another(desk, working, look, database, objects):
    job = desk(seed=1, steps=1000)
    with working(checkpoint=0.1, drain=0):

        def saved():
            return database.read(lambda c: c.execute(select(checkpoints)).all())

        first = until(saved)
        until(lambda: saved()[0].done > first[0].done)
    assert len([*(objects.root / "checkpoints" / job).iterdir()]) == 1


@pytest.mark.parametrize("how", ["damaged", "of other weights"])
def test_a_checkpoint_that_is_none_is_no_end(
    desk, working, made, look, model, database, objects, how, caplog
):
    job = desk(seed=1, steps=300)
    with working(drain=0):
        until(lambda: look(job).done >= 10)
    (saved,) = database.read(lambda c: c.execute(select(checkpoints)).all())
    if how == "damaged":
        objects.put(saved.key, b"damaged")
    else:
        key = saved.key[:-16] + "0" * 16
        objects.put(key, objects.get(saved.key))
        database.write(lambda c: c.execute(update(checkpoints).values(key=key))).result(PATIENCE)
    with working():
        same(made(job), model.generate("a boat", seed=1, steps=300))
    assert "begins anew" in caplog.text


def test_what_ended_a_worker_is_watched_closely(desk, working, look, database):
    job = desk(seed=1, steps=1000)
    database.write(lambda c: c.execute(update(table).values(deaths=4))).result(PATIENCE)
    with working(checkpoint=99, drain=0):
        until(lambda: look(job).deaths == 0)
    assert look(job).finished_at is None


def test_cancelling_stops_the_engine(desk, working, look, over, database, made):
    job, other = desk(seed=1, steps=1000), desk("other", seed=2, steps=3)
    with working() as worker:
        until(lambda: look(job).done)
        database.write(lambda c: jobs.cancel(c, "local", job)).result(PATIENCE)
        assert over(job).state == "cancelled"
        until(lambda: job not in worker._hands)
        made(other)
    assert look(job).done < 1000


def test_a_short_job_does_not_wait_for_a_long_one(desk, working, look, over):
    long = desk(seed=1, steps=1000)
    with working(drain=0):
        until(lambda: look(long).done)
        before = look(long).done
        assert over(desk(seed=2, steps=4)).state == "succeeded"
        assert look(long).finished_at is None
        assert before < 900


def test_a_worker_that_was_taken_for_dead_lets_go(desk, working, look, made, model, database):
    job = desk(seed=1, steps=150)
    with working(lease=1) as worker:
        until(lambda: look(job).done)
        database.write(lambda c: claims.bury(c, worker._id)).result(PATIENCE)
        same(made(job), model.generate("a boat", seed=1, steps=150))
        assert look(job).attempt == 2
    kinds = database.read(lambda c: [*c.execute(select(events.c.kind).where(events.c.job == job)).scalars()])
    assert kinds == ["queued", "running", "queued", "running", "picture", "succeeded"]


def test_jobs_of_a_worker_that_is_silent_go_to_another(desk, working, look, made, database):
    job = desk(seed=1, steps=3)
    silent = database.write(lambda c: claims.enlist(c, "elsewhere", 1, {})).result(PATIENCE)
    database.write(lambda c: claims.claim(c, silent, 1, True)).result(PATIENCE)
    with working(lease=1):
        made(job)
    assert look(job).attempt == 2
    assert database.read(lambda c: c.execute(select(workers)).all()) == []


@pytest.mark.parametrize("broken", ["database", "store"])
def test_what_cannot_be_written_is_written_later(
    desk, working, made, model, database, objects, monkeypatch, broken
):
    from darkroom.serve import results
    from darkroom.serve.objects import Unstored

    left = [2]

    def fails(whole):
        def once(*given):
            if left[0]:
                left[0] -= 1
                raise Unavailable("no") if broken == "database" else Unstored("no")
            return whole(*given)

        return once

    monkeypatch.setattr("darkroom.serve.worker.worker._AGAIN", 0.05)
    where, name = (results, "add") if broken == "database" else (objects, "put")
    job = desk(seed=1, steps=3)
    monkeypatch.setattr(where, name, fails(getattr(where, name)))
    with working(checkpoint=99):
        same(made(job), model.generate("a boat", seed=1, steps=3))
    assert left == [0]


@pytest.mark.parametrize("helps", [True, False])
def test_what_is_no_number_is_made_once_more_in_float32(
    desk, working, over, made, toy_folder, monkeypatch, helps
):
    whole = LatentDiffusion.denoise

    def denoise(self, rows):
        outputs = whole(self, rows)
        broken = self.placement.precision != "float32" or not helps
        return [each * float("nan") for each in outputs] if broken else outputs

    monkeypatch.setattr(LatentDiffusion, "denoise", denoise)
    job = desk(seed=1, steps=3, count=3)
    with working(precision="bfloat16"):
        if not helps:
            row = over(job)
            assert (row.state, row.code) == ("failed", "numerics")
            return
        pictures = made(job)
    monkeypatch.setattr(LatentDiffusion, "denoise", whole)
    same(pictures, load(toy_folder, precision="float32").generate("a boat", seed=1, steps=3, count=3))


def test_an_engine_that_hangs_ends_its_process(monkeypatch, capfd):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    stall = Stall(0.05)
    time.sleep(0.1)
    stall.look(False)  # There is nothing to do.
    stall.look(True)
    assert ended == []
    stall.moved()
    time.sleep(0.1)
    stall.moved()  # A long step: ten times as long is to be waited from now on.
    time.sleep(0.1)
    stall.look(True)
    assert ended == []
    monkeypatch.setattr(stall, "_longest", 0.0)
    stall.look(True)
    assert ended == [STATUS]
    assert "test_an_engine_that_hangs" in capfd.readouterr().err


def test_a_device_that_is_lost_ends_the_process(desk, working, monkeypatch):
    why = []
    monkeypatch.setattr("darkroom.serve.worker.worker.give_up", why.append)

    def denoise(self, rows):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(LatentDiffusion, "denoise", denoise)
    desk(seed=1, steps=3)
    with working():
        until(lambda: why)
    assert "device-side assert" in why[0]


def test_a_job_that_fails_is_alone_with_that(desk, working, over, made, monkeypatch):
    from darkroom.serve.worker import models

    whole = models.Model.picture

    def picture(self, asked, task, index):
        if task.job.request.seed == 13:
            raise OutOfMemory("out of memory: ask for a smaller picture")
        return whole(self, asked, task, index)

    monkeypatch.setattr(models.Model, "picture", picture)
    bad, good = desk(seed=13, steps=3), desk(seed=1, steps=3)
    with working():
        row = over(bad)
        made(good)
    assert (row.state, row.code) == ("failed", "out_of_memory")
    assert "smaller" in row.error


def test_what_no_model_can_do_fails_with_why(desk, working, over, database):
    job = desk(seed=1, steps=3)
    gone = {"version": 2, "prompt": "<lora:nonesuch:1>", "seed": 1, "count": 1}
    database.write(lambda c: c.execute(update(table).where(table.c.id == job).values(request=gone))).result(
        PATIENCE
    )
    with working():
        row = over(job)
    assert (row.state, row.code) == ("failed", "model_error")
    assert "nonesuch" in row.error


def test_previews_are_seen(desk, working, look, database, toy_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(toy_folder, tmp_path / "models" / "toy")
    (folder / "darkroom.json").write_text(json.dumps({"preview": [[0.1, 0.2, 0.3, 0.4, 0]] * 3}))
    monkeypatch.setenv("DARKROOM_MODELS", str(folder.parent))
    desk(seed=1, steps=1000)
    with working(drain=0):
        (found,) = until(lambda: database.read(lambda c: c.execute(select(previews)).all()))
    with Image.open(io.BytesIO(found.jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))


def test_a_model_that_is_let_go_of_is_gone(desk, working, made):
    with working() as worker:
        made(desk(seed=1, steps=3))
        (model,) = (weakref.ref(each) for each in [*worker._models._engines])
        worker._models.forget("toy")
        until(lambda: gc.collect() >= 0 and model() is None)


def test_models_are_loaded_and_let_go_of_as_it_is_wanted(working, database):
    def state():
        rows = database.read(lambda c: c.execute(select(workers)).all())
        return rows[0].facts.get("models", {}).get("toy", {}).get("state") if rows else None

    def want(wanted):
        def said(connection):
            connection.execute(shelf.delete())
            connection.execute(shelf.insert().values(model="toy", wanted=wanted, at=time.time()))
            connection.info["events"] = True

        database.write(said).result(PATIENCE)

    with working(lease=1):
        until(lambda: state() == "loaded")
        want(False)
        until(lambda: state() is None)
        want(True)
        until(lambda: state() == "loaded")


def test_pictures_say_how_to_make_them_again(desk, working, made, run, tmp_path):
    with working():
        (image,) = made(desk(seed=5, steps=3))
    image.save(tmp_path / "boat.png", pnginfo=_texts(image))
    status, _, errors = run("again", tmp_path / "boat.png", "-o", tmp_path / "again.png")
    assert status == 0, errors
    with Image.open(tmp_path / "again.png") as again:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(again))


def _texts(image):
    found = PngInfo()
    for name, text in image.text.items():
        found.add_itxt(name, text)
    return found
