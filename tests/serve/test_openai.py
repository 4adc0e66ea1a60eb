"""OpenAI's interface, as its own client speaks it."""

from __future__ import annotations

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from PIL import Image
from tests.serve.conftest import PATIENCE, until
from tests.serve.test_api import Hired
from tests.serve.test_intake import png

from darkroom.generation import Request
from darkroom.serve import claims, results
from darkroom.serve.results import Progress


def a_client(api, **options):
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key="anything", timeout=20, **options)


@pytest.fixture
def client(house):
    with a_client(house[0], max_retries=0) as found:
        yield found


@pytest.fixture
def alone(api):
    """A client of an API whose jobs the test makes itself."""
    with a_client(api, max_retries=2) as found:
        yield found


@pytest.fixture
def worker(api):
    return Hired(api)


def opened(given):
    content = given if isinstance(given, bytes) else base64.b64decode(given)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


def pixels(given):
    return np.asarray(opened(given))


def file(image, name="a.png"):
    found = io.BytesIO()
    image.save(found, "PNG")
    found.seek(0)
    found.name = name
    return found


def request_of(api, answer):
    """What the job was asked to make, of whose picture this is."""
    job = api.get(f"/v1/images/{answer.data[0].id}").json()["job"]
    return api.get(f"/v1/jobs/{job}").json()


def test_pictures_are_those_of_the_library(house, client):
    api, model = house
    made = client.images.generate(
        prompt="a boat",
        n=2,
        size="40x32",
        extra_body={"seed": 5, "num_inference_steps": 3, "guidance_scale": 2.5, "negative_prompt": "fog"},
    )
    alone = model.generate(
        "a boat", negative="fog", seed=5, steps=3, guidance=2.5, width=40, height=32, count=2
    )
    for each, picture in zip(made.data, alone, strict=True):
        assert np.array_equal(pixels(each.b64_json), np.asarray(picture.image))
        assert each.seed == picture.seed
    assert (made.size, made.output_format, made.background, made.quality) == (
        "40x32",
        "png",
        "opaque",
        "auto",
    )
    assert made.usage.output_tokens == 2 * 3 * 2  # Patches of 16 x 16 pixels.
    assert made.usage.input_tokens == made.usage.input_tokens_details.text_tokens == 3
    assert made.created > 1.7e9
    assert request_of(api, made)["door"] == "openai"


def test_its_own_words(house, client):
    api, model = house
    usual = model.settle(Request("a boat"))
    made = client.images.generate(
        prompt="a boat",
        model="dall-e-3",
        quality="low",
        style="natural",
        output_format="jpeg",
        output_compression=30,
        extra_body={"seed": 1},
        user="somebody",
    )
    request = request_of(api, made)["request"]
    assert request["sampling"]["steps"] == usual.sampling.steps // 2
    assert request["guidance"]["scale"] == pytest.approx(usual.guidance.scale * 0.7)
    content = api.get(made.data[0].url.removeprefix(api.url)).content
    assert opened(content).format == "JPEG"
    better = client.images.generate(
        prompt="a boat", model="gpt-image-2", quality="low", output_format="jpeg", extra_body={"seed": 1}
    )
    assert len(base64.b64decode(better.data[0].b64_json)) > len(content)


def test_edits(house, client):
    api, model = house
    given = Image.effect_noise((32, 32), 90).convert("RGB")
    mask = Image.new("RGBA", (32, 32), "white")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 16))
    made = client.images.edit(
        image=file(given), mask=file(mask), prompt="a boat", extra_body={"seed": 3, "steps": 2}
    )
    white = Image.new("L", (32, 32))
    white.paste(255, (0, 0, 32, 16))
    alone = model.edit(given, "a boat", like=False, mask=white, seed=3, steps=2)
    assert np.array_equal(pixels(made.data[0].b64_json), np.asarray(alone[0].image))
    assert np.array_equal(pixels(made.data[0].b64_json)[18:], np.asarray(given)[18:])
    assert made.usage.input_tokens_details.image_tokens == 4

    loose = client.images.edit(image=[file(given)], prompt="a boat", n=2, extra_body={"steps": 2})
    close = client.images.edit(
        image=file(given), prompt="a boat", input_fidelity="high", extra_body={"steps": 2}
    )
    strengths = [request_of(api, each)["request"]["edit"]["strength"] for each in (loose, close)]
    assert (len(loose.data), strengths) == (2, [0.75, 0.45])

    through = given.copy()
    through.putalpha(mask.getchannel("A"))
    painted = client.images.edit(image=file(through), prompt="a boat", extra_body={"steps": 2})
    assert request_of(api, painted)["request"]["inpaint"]["mask"] == "alpha"


def test_pictures_are_shown_as_they_come(api, alone, worker):
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(
            lambda: [*alone.images.generate(prompt="a boat", stream=True, partial_images=2, size="64x32")]
        )
        job = until(lambda: worker(claim_of(worker)))
        for done in (1, 2, 3):  # At a quarter, at half and at three.
            worker(results.preview, job, 0, preview(), done)
            worker(results.advance, worker.id, [Progress(job, done, 4, {})])
            until(lambda done=done: api.get(f"/v1/jobs/{job.id}").json()["progress"]["done"] == done)
        worker.make(job, content=png(64, 32))
        *shown, last = told.result(PATIENCE)
    assert [each.type for each in shown] == ["image_generation.partial_image"] * len(shown)
    assert [each.partial_image_index for each in shown] == [*range(len(shown))]
    assert 1 <= len(shown) <= 2
    assert {opened(each.b64_json).size for each in (*shown, last)} == {(64, 32)}
    assert last.type == "image_generation.completed"
    assert base64.b64decode(last.b64_json) == png(64, 32)
    assert (last.size, last.usage.output_tokens) == (
        "64x32",
        4,
    )  # The worker in hand says that it is of 32x32.


def claim_of(worker):

    def one(connection):
        return next(iter(claims.claim(connection, worker.id, 1, True)), None)

    return one


def preview():
    found = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(found, "JPEG")
    return found.getvalue()


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_that_fails_is_told_and_not_tried_again(api, alone, worker, stream):
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: [*alone.images.generate(prompt="a boat", stream=stream)])
        job = until(lambda: worker(claim_of(worker)))
        worker(results.end, job, "failed", "out_of_memory", "no room")
        with pytest.raises(openai.APIError, match="no room") as caught:
            told.result(PATIENCE)
    if not stream:
        assert (caught.value.status_code, caught.value.code) == (500, "out_of_memory")
    assert len(api.get("/v1/jobs").json()["data"]) == 1


def test_whoever_goes_away_is_waited_for_no_longer(api, worker):
    with a_client(api, max_retries=0) as client:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).images.generate(prompt="a boat")
        (job,) = api.get("/v1/jobs").json()["data"]
        until(lambda: api.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled")
        stream = client.images.generate(prompt="a boat", stream=True)
        stream.close()
    until(lambda: {each["state"] for each in api.get("/v1/jobs").json()["data"]} == {"cancelled"})


def test_the_same_key_is_the_same_picture(api, alone, worker):
    def ask():
        return alone.images.generate(prompt="a boat", extra_headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(ask) for _ in range(2)]
        job = until(lambda: worker(claim_of(worker)))
        worker.make(job)
        first, second = (each.result(PATIENCE).data[0].id for each in told)
    assert first == second


@pytest.mark.parametrize(
    ("settings", "status", "param", "message"),
    [
        ({"size": "huge"}, 400, "size", "WIDTHxHEIGHT"),
        ({"size": "30x32"}, 400, "width", "multiple"),
        ({"n": 11}, 400, "n", "1 to 10"),
        ({"quality": "best"}, 400, "quality", "medium"),
        ({"style": "bold"}, 400, "style", "vivid"),
        ({"background": "transparent"}, 400, "background", "not made here"),
        ({"output_format": "gif"}, 400, "output_format", "webp"),
        ({"output_compression": 50}, 400, "output_compression", "loses nothing"),
        ({"partial_images": 4}, 400, "partial_images", "0 to 3"),
        ({"response_format": "png"}, 400, "response_format", "b64_json"),
        ({"extra_body": {"num_inference_steps": 0}}, 400, "num_inference_steps", "choose 1"),
        ({"extra_body": {"stepz": 3}}, 400, None, "steps"),
        ({"extra_body": {"frame_count": 3}}, 400, None, "frame_count"),
        ({"extra_body": {"steps": 3, "num_inference_steps": 3}}, 400, "num_inference_steps", "twice"),
        ({"extra_body": {"image": "/etc/passwd"}}, 400, "image", "base64"),
        ({"model": "sdxl"}, 404, None, "no model"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(house, client, settings, status, param, message):
    with pytest.raises(openai.APIStatusError, match=re.escape(message)) as caught:
        client.images.generate(**{"prompt": "a boat"} | settings)
    assert (caught.value.status_code, caught.value.param) == (status, param)
    assert caught.value.type == "invalid_request_error"


def test_what_cannot_be_edited_is_refused(house, client):
    opaque = Image.new("RGB", (32, 32))
    for given, message in (
        ({"image": [file(opaque), file(opaque)]}, "2 pictures"),
        ({"image": io.BytesIO(b"no picture")}, "picture"),
        ({"image": file(opaque), "mask": file(opaque)}, "transparent nowhere"),
        ({"image": file(opaque), "input_fidelity": "some"}, "input_fidelity"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            client.images.edit(prompt="a boat", **given)


def test_models(house, client):
    model = client.models.list().data[0]
    assert (model.id, model.object, model.owned_by) == ("toy", "model", "darkroom")
    assert client.models.retrieve("toy").created == model.created > 1.7e9
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sdxl")
