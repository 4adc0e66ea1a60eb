"""Many jobs that come in at once, and what becomes of them."""

from __future__ import annotations

import json

import pytest
from tests.serve.test_api import Hired, problem

from darkroom.serve import results

SMALL = {"steps": 2, "seed": 1}


@pytest.fixture
def worker(api):
    return Hired(api)


def lines(*bodies):
    return "\n".join(map(json.dumps, bodies))


def put(api, content, kind="application/jsonl", **headers):
    return api.post("/v1/batches", content=content, headers={"content-type": kind} | headers)


def states(api, batch):
    return api.get(f"/v1/batches/{batch}").json()["states"]


def test_each_line_is_a_job(api, worker):
    answer = put(
        api, lines({"prompt": "a boat"} | SMALL, "a house", {"prompt": "a star", "priority": "background"})
    )
    batch = answer.json()
    assert (answer.status_code, batch["count"], batch["states"], batch["over"]) == (
        202,
        3,
        {"queued": 3},
        False,
    )
    told = api.get(f"/v1/batches/{batch['id']}/lines").json()
    assert [each["line"] for each in told["data"]] == [1, 2, 3]
    made = [each["job"] for each in told["data"]]
    assert [each["request"]["prompt"] for each in made] == ["a boat", "a house", "a star"]
    assert [each["priority"] for each in made] == ["batch", "batch", "background"]
    assert {each["batch"] for each in made} == {batch["id"]}
    worker.make(worker.claim())
    assert states(api, batch["id"]) == {"succeeded": 1, "queued": 2}
    (done,) = api.get(f"/v1/batches/{batch['id']}/lines?state=succeeded").json()["data"]
    assert len(done["job"]["images"]) == 1
    assert len(api.get(f"/v1/jobs?batch={batch['id']}").json()["data"]) == 3
    first = api.get(f"/v1/batches/{batch['id']}/lines?limit=2").json()
    rest = api.get(f"/v1/batches/{batch['id']}/lines?limit=2&after={first['after']}").json()
    assert ([each["line"] for each in rest["data"]], rest["after"]) == ([3], None)
    assert [each["id"] for each in api.get("/v1/batches").json()["data"]] == [batch["id"]]


def test_a_batch_goes_on_where_it_failed(api, worker):
    batch = put(api, "a boat\n\n  a house \na star\n", "text/plain").json()["id"]
    worker.make(worker.claim())
    worker(results.end, worker.claim(), "failed", "internal", "it broke")
    assert api.post(f"/v1/batches/{batch}/cancel").json()["states"] == {
        "succeeded": 1,
        "failed": 1,
        "cancelled": 1,
    }
    assert api.get(f"/v1/batches/{batch}").json()["over"]
    resumed = api.post(f"/v1/batches/{batch}/resume")
    assert (resumed.status_code, resumed.json()["states"]) == (202, {"succeeded": 1, "queued": 2})
    told = api.get(f"/v1/batches/{batch}/lines").json()["data"]
    assert [each["job"]["request"]["prompt"] for each in told] == ["a boat", "a house", "a star"]
    assert [each["job"]["retry_of"] is None for each in told] == [True, False, False]
    worker(results.end, worker.claim(), "failed", "internal", "it broke again")
    api.post(f"/v1/jobs/{told[1]['job']['id']}/retry")  # A line by itself.
    for _ in range(2):
        worker.make(worker.claim())
    assert states(api, batch) == {"succeeded": 3}
    assert api.post(f"/v1/batches/{batch}/resume").json()["states"] == {
        "succeeded": 3
    }  # Nothing is to be done.


def test_all_or_none(api):
    bodies = ["a boat", {"prompt": "a boat", "stepz": 3}, {"prompt": "a boat", "steps": 0}, 7]
    answer = api.post("/v1/batches", json={"requests": bodies})
    assert "line 2" in problem(answer, 422, "invalid_request")
    assert [each["line"] for each in answer.json()["errors"]] == [2, 3, 4]
    assert api.get("/v1/jobs").json()["data"] == api.get("/v1/batches").json()["data"] == []


def test_defaults_are_of_all(api):
    body = {"defaults": SMALL | {"prompt": "a boat"}, "requests": [{}, {"steps": 3}, "a house"]}
    batch = api.post("/v1/batches", json=body).json()["id"]
    made = [each["job"]["request"] for each in api.get(f"/v1/batches/{batch}/lines").json()["data"]]
    assert [each["sampling"]["steps"] for each in made] == [2, 3, 2]
    assert [each["prompt"] for each in made] == ["a boat", "a boat", "a house"]


def test_the_same_key_is_the_same_batch(api):
    first, again = (put(api, "a boat", "text/plain", **{"idempotency-key": "once"}).json() for _ in range(2))
    assert first["id"] == again["id"]
    other = put(api, "a house", "text/plain", **{"idempotency-key": "once"})
    problem(other, 422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        ("", "text/plain", 422, "invalid_request"),
        ('{"prompt": "a boat"}\nnot json', "application/jsonl", 400, "invalid_json"),
        ("[" * 100_000, "application/jsonl", 400, "invalid_json"),
        (b"\xff\xfe", "text/plain", 400, "invalid_text"),
        ("{}", "application/json", 422, "invalid_request"),
        ('{"requests": ["a"], "default": {}}', "application/json", 422, "invalid_request"),
        ('{"requests": ["a"], "defaults": 3}', "application/json", 422, "invalid_request"),
        ("a boat", "image/png", 415, "unsupported_media_type"),
        ("a boat\n" * 10_001, "text/plain", 422, "invalid_request"),
    ],
)
def test_what_is_no_batch(api, content, kind, status, code):
    problem(put(api, content, kind), status, code)


def test_batches_that_are_not(api):
    for path in ("", "/lines"):
        problem(api.get(f"/v1/batches/batch_0{path}"), 404, "no_such_batch")
    for path in ("cancel", "resume"):
        problem(api.post(f"/v1/batches/batch_0/{path}"), 404, "no_such_batch")
