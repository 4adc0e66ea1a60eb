"""The API without an engine: what it takes in, what it tells. The tests do what workers do."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.serve.conftest import PATIENCE, an_api, until
from tests.serve.test_intake import png

from darkroom.serve import claims, results
from darkroom.serve.api.app import make_app
from darkroom.serve.objects import content_key, key_of
from darkroom.serve.results import Made, Progress
from darkroom.serve.sweep import sweep


class Hired:
    """A worker in a test's hand."""

    def __init__(self, api):
        self.api = api
        self.id = self(claims.enlist, "here", 1, {})
        self(
            claims.beat, self.id, "ready", {"models": {"toy": {"state": "loaded"}}, "in_hand": 0, "slots": 1}
        )

    def __call__(self, change, *given, **named):
        return self.api.service.database.write(lambda c: change(c, *given, **named)).result(PATIENCE)

    def claim(self):
        (job,) = self(claims.claim, self.id, 1, True)
        return job

    def make(self, job, number=0, content=None):
        content = png() if content is None else content
        sha256, key = content_key(content)
        self.api.service.objects.put(key, content)
        made = Made(number, sha256, len(content), "png", 32, 32, 7, 0.5)
        return self(results.add, job, made, {"denoise": 0.5})


@pytest.fixture
def worker(api):
    return Hired(api)


def events(answer):
    """What a stream of events held: kind, data and number of each."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"]), int(fields["id"])))
    return found


def problem(answer, status, code):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    said = answer.json()
    assert (answer.status_code, said["status"], said["code"]) == (status, status, code), said
    assert said["detail"]
    return said["detail"]


def test_a_job_from_end_to_end(api, worker):
    job = api.job(prompt="a boat", seed=7, count=2)
    assert (job["state"], job["request"]["seed"], job["images"]) == ("queued", 7, [])
    claimed = worker.claim()
    worker(results.advance, worker.id, [Progress(claimed, 1, 4, {"denoise": 0.25})])
    assert api.get(f"/v1/jobs/{job['id']}").json()["progress"] == {"done": 1, "total": 4}
    worker.make(claimed, 0)
    there = api.get(f"/v1/jobs/{job['id']}").json()
    assert (there["state"], len(there["images"])) == ("running", 1)
    worker.make(claimed, 1)
    done = api.get(f"/v1/jobs/{job['id']}").json()
    assert (done["state"], done["attempt"], done["progress"]) == ("succeeded", 1, {"done": 4, "total": 4})
    assert [each["number"] for each in done["images"]] == [0, 1]
    file = api.get(done["images"][0]["url"])
    assert (file.content, file.headers["content-type"]) == (png(), "image/png")
    assert api.get("/v1/jobs").json()["data"] == [done]
    assert {each["id"] for each in api.get("/v1/images").json()["data"]} == {
        each["id"] for each in done["images"]
    }


def test_events_are_heard_again_from_where_one_was(api, worker):
    job = api.job()
    heard = {}
    path = f"/v1/jobs/{job['id']}/events"
    listening = threading.Thread(target=lambda: heard.update(live=events(api.get(path))))
    listening.start()
    until(lambda: api.service.bus._followers)
    claimed = worker.claim()
    for done in (1, 2):
        worker(results.advance, worker.id, [Progress(claimed, done, 2, {})])
    worker.make(claimed)
    listening.join(PATIENCE)
    kinds = [kind for kind, _, _ in heard["live"]]
    assert [kind for kind in kinds if kind != "progress"] == ["queued", "running", "picture", "succeeded"]
    assert all(data["job"] == job["id"] for _, data, _ in heard["live"])
    # What is over is told as a whole, or from any place on; progress is forgotten.
    again = events(api.get(path))
    assert again == [each for each in heard["live"] if each[0] != "progress"]
    assert events(api.get(path, headers={"Last-Event-ID": str(again[1][2])})) == again[2:]


def test_all_events_of_an_owner(api, worker):
    first = api.job()
    with api.stream("GET", "/v1/events", headers={"Last-Event-ID": "0"}) as answer:
        lines = answer.iter_lines()
        second = api.job()
        kinds = []
        while len(kinds) < 2:
            line = next(lines)
            if line.startswith("data"):
                kinds.append(json.loads(line.removeprefix("data: "))["job"])
    assert kinds == [first["id"], second["id"]]


def test_who_does_not_read_is_let_go(api, monkeypatch):
    monkeypatch.setattr("darkroom.serve.api.bus._MOST_BEHIND", 4)
    service = api.service
    with api.stream("GET", "/v1/events"):
        (follower,) = until(lambda: service.bus._followers)
        slow = follower.queue
        from darkroom.serve.events import Event

        api.service.bus._loop.call_soon_threadsafe(
            lambda: [follower.hear(Event(n, "job", "local", "progress", {}, 0.0)) for n in range(100, 120)]
        )
        until(lambda: not service.bus._followers)
    assert slow.qsize() <= 4


def test_one_key_is_one_job_however_often_it_is_sent(api):
    def send(_):
        body = {"prompt": "a boat", "steps": 2}
        return httpx.post(f"{api.url}/v1/jobs", json=body, headers={"Idempotency-Key": "k"}, timeout=PATIENCE)

    with ThreadPoolExecutor(16) as pool:
        answers = [*pool.map(send, range(50))]
    assert {each.status_code for each in answers} == {202}
    assert len({each.json()["id"] for each in answers}) == 1
    assert len(api.get("/v1/jobs").json()["data"]) == 1
    other = api.post("/v1/jobs", json={"prompt": "a house"}, headers={"Idempotency-Key": "k"})
    problem(other, 422, "idempotency_key_reused")


def test_waiting_for_a_job(api, worker):
    answers = []
    body = {"prompt": "a boat", "steps": 2}
    asking = threading.Thread(target=lambda: answers.append(api.post("/v1/jobs?wait=60", json=body)))
    asking.start()
    worker.make(until(lambda: worker(claims.claim, worker.id, 1, True))[0])
    asking.join(PATIENCE)
    assert (answers[0].status_code, answers[0].json()["state"]) == (200, "succeeded")
    slow = api.post("/v1/jobs?wait=0.1", json=body)
    assert (slow.status_code, slow.json()["state"]) == (202, "queued")
    assert slow.headers["location"] == f"/v1/jobs/{slow.json()['id']}"


def test_cancel_and_retry(api, worker):
    job = api.job()
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    again = api.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["state"], again["retry_of"], again["request"]) == ("queued", job["id"], job["request"])
    problem(api.post(f"/v1/jobs/{again['id']}/retry"), 409, "not_over")
    worker(results.end, worker.claim(), "failed", "generation_failed", "why")
    assert api.get(f"/v1/jobs/{again['id']}").json()["error"] == {
        "code": "generation_failed",
        "message": "why",
    }


def test_lists_have_pages(api):
    names = [api.job()["id"] for _ in range(5)][::-1]
    first = api.get("/v1/jobs?limit=3").json()
    rest = api.get(f"/v1/jobs?limit=3&before={first['before']}").json()
    assert [each["id"] for each in first["data"] + rest["data"]] == names
    assert rest["before"] is None
    api.post(f"/v1/jobs/{names[0]}/cancel")
    only = api.get("/v1/jobs?state=cancelled&state=failed").json()["data"]
    assert [each["id"] for each in only] == names[:1]


def test_uploads(api, worker):
    content = png(48, 24)
    there = api.post("/v1/uploads", content=content, headers={"Content-Type": "image/png"})
    upload = there.json()
    assert (there.status_code, upload["width"], upload["height"], upload["format"]) == (201, 48, 24, "png")
    assert api.get(f"/v1/uploads/{upload['sha256']}").json() == upload
    job = api.job(image={"sha256": upload["sha256"]}, strength=0.5)
    assert job["request"]["edit"]["image"] == {"sha256": upload["sha256"]}
    # Not while a job needs it.
    problem(api.delete(f"/v1/uploads/{upload['sha256']}"), 409, "upload_in_use")
    # What was made may be made something else of.
    worker.make(worker.claim(), content=png(40, 40))
    (image,) = api.get(f"/v1/jobs/{job['id']}").json()["images"]
    api.job(image={"sha256": image["sha256"]})
    problem(api.post("/v1/uploads", content=b"no picture"), 422, "invalid_request")
    assert api.delete(f"/v1/uploads/{upload['sha256']}").status_code == 204
    for missing in (upload["sha256"], "0" * 64):
        problem(api.get(f"/v1/uploads/{missing}"), 404, "no_such_upload")
        problem(api.delete(f"/v1/uploads/{missing}"), 404, "no_such_upload")


def test_deleting_a_picture(api, worker):
    jobs = [api.job() for _ in range(2)]
    for _ in jobs:
        worker.make(worker.claim())
    first, second = (api.get(f"/v1/jobs/{job['id']}").json()["images"][0] for job in jobs)
    assert api.delete(f"/v1/images/{first['id']}").status_code == 204
    problem(api.get(f"/v1/images/{first['id']}/file"), 404, "no_such_image")
    sweep(api.service.database, api.service.objects, age=0)
    # The other one has the same bytes.
    assert api.get(second["url"]).content == png()
    api.delete(f"/v1/images/{second['id']}")
    assert sweep(api.service.database, api.service.objects) == 0  # They may be another's in a moment.
    assert sweep(api.service.database, api.service.objects, age=0) == 1
    assert not [each for each in api.service.objects.root.rglob("*") if each.is_file()]


def test_what_a_job_begins_with_outlives_its_picture(api, worker):
    api.job()
    worker.make(worker.claim(), content=png(40, 40))
    (image,) = api.get("/v1/images").json()["data"]
    job = api.job(image={"sha256": image["sha256"]})
    api.delete(f"/v1/images/{image['id']}")
    assert api.service.objects.get(key_of(job["request"]["edit"]["image"]["sha256"])) == png(40, 40)


def test_who_comes_back_after_the_end_is_not_kept_waiting(api, worker):
    job = api.job()
    worker.make(worker.claim())
    path = f"/v1/jobs/{job['id']}/events"
    last = events(api.get(path))[-1][2]
    assert events(api.get(path, headers={"Last-Event-ID": str(last)})) == []


def test_pictures_have_pages(api, worker):
    for _ in range(3):
        api.job()
        worker.make(worker.claim())
    first = api.get("/v1/images?limit=2").json()
    rest = api.get(f"/v1/images?limit=2&before={first['before']}").json()
    assert len({each["id"] for each in first["data"] + rest["data"]}) == 3
    assert rest["before"] is None


def test_previews(api, worker):
    job = api.job()
    claimed = worker.claim()
    problem(api.get(f"/v1/jobs/{job['id']}/preview/0"), 404, "no_preview")
    worker(results.preview, claimed, 0, b"jpeg", 1)
    found = api.get(f"/v1/jobs/{job['id']}/preview/0")
    assert (found.content, found.headers["content-type"]) == (b"jpeg", "image/jpeg")
    worker.make(claimed)
    problem(api.get(f"/v1/jobs/{job['id']}/preview/0"), 404, "no_preview")


def test_models(api, worker):
    first, *_ = api.get("/v1/models").json()["data"]
    assert (first["id"], first["state"], first["native_size"]) == ("toy", "loaded", 32)
    assert api.post("/v1/models/toy/unload").json() == {"object": "model", "id": "toy", "wanted": False}
    problem(api.post("/v1/models/nonesuch/load"), 422, "model_error")


def test_health(api):
    assert api.get("/livez").json() == {"status": "ok"}
    waiting = api.get("/readyz")
    assert (waiting.status_code, waiting.json()["state"]) == (503, "starting")
    Hired(api)
    assert api.get("/readyz").status_code == 200
    assert api.get("/v1/stats").json()["workers"][0]["state"] == "ready"
    api.service.draining = True
    assert (api.get("/readyz").status_code, api.get("/livez").status_code) == (503, 200)
    refused = api.post("/v1/jobs", json={"prompt": "x"})
    problem(refused, 503, "draining")
    assert refused.headers["retry-after"]
    api.service.draining = False


@pytest.mark.parametrize(
    ("method", "path", "named", "status", "code"),
    [
        ("POST", "/v1/jobs", {"json": {"prompt": "x", "steps": 0}}, 422, "invalid_request"),
        ("POST", "/v1/jobs", {"json": {"prompt": "x", "model": "nonesuch"}}, 422, "model_error"),
        ("POST", "/v1/jobs", {"json": [1]}, 422, "invalid_request"),
        ("POST", "/v1/jobs", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_json"),
        ("POST", "/v1/jobs", {"content": b'{"steps": NaN}', "headers": {"Content-Type": "application/json"}}, 400,
         "invalid_json"),
        ("POST", "/v1/jobs", {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400,
         "invalid_json"),
        ("POST", "/v1/jobs", {"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400,
         "invalid_json"),
        ("POST", "/v1/jobs", {"data": {"prompt": "x"}}, 415, "unsupported_media_type"),
        ("POST", "/v1/jobs?wait=-1", {"json": {"prompt": "x"}}, 422, "invalid_request"),
        ("GET", "/v1/jobs?limit=0", {}, 422, "invalid_request"),
        ("GET", "/v1/jobs?before=99999999999999999999", {}, 422, "invalid_request"),
        ("GET", "/v1/jobs?state=lost", {}, 422, "invalid_request"),
        ("GET", "/v1/jobs/job_0", {}, 404, "no_such_job"),
        ("GET", "/v1/jobs/job_0/events", {}, 404, "no_such_job"),
        ("POST", "/v1/jobs/job_0/cancel", {}, 404, "no_such_job"),
        ("GET", "/v1/images/img_0", {}, 404, "no_such_image"),
        ("GET", "/v1/nothing", {}, 404, "not_found"),
        ("PUT", "/v1/jobs", {}, 405, "method_not_allowed"),
        ("GET", "/v1/jobs", {"headers": {"Origin": "https://example.org"}}, 403, "forbidden"),
        ("GET", "/v1/jobs", {"headers": {"Host": "rebound.example.org:7860"}}, 403, "forbidden"),
        ("GET", "/v1/jobs", {"headers": {"Host": "127.0.0.1.example.org"}}, 403, "forbidden"),
    ],
)  # fmt: skip
def test_mistakes_are_told(api, method, path, named, status, code):
    problem(api.request(method, path, **named), status, code)
    assert api.service.database.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM jobs").scalar()) == 0


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "127.1.2.3:80", "[::1]:7860", "LOCALHOST"])
def test_this_machine_may_be_called_by_its_names(api, host):
    assert api.get("/livez", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_bodies_have_a_limit(api):
    large = b" " * (65 << 20)
    named = {"headers": {"Content-Type": "application/json"}}
    problem(api.post("/v1/jobs", content=large, **named), 413, "too_large")
    # Of one that does not say how long it is.
    problem(api.post("/v1/jobs", content=(large[: 1 << 20] for _ in range(65)), **named), 413, "too_large")


def test_a_database_that_another_program_holds(serving, monkeypatch):
    monkeypatch.setattr("darkroom.serve.database._PATIENCE", 0.5)
    with an_api(serving) as api:
        _held(api)


def _held(api):
    held = sqlite3.connect(api.service.database.url.database, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    answer = api.post("/v1/jobs", json={"prompt": "x"})
    problem(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"]
    held.execute("ROLLBACK")
    held.close()
    assert api.job()["state"] == "queued"


def test_what_nobody_foresaw_is_told_without_what_it_was(api, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(api.service, "stats", fails)
    assert "secret" not in problem(api.get("/v1/stats"), 500, "internal")


def test_openapi_describes_what_may_be_said(api):
    said = api.get("/openapi.json").json()
    body = said["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["steps"]["type"] == ["integer", "null"]
    assert body["properties"]["sampler"]["type"] == ["string", "null"]
    assert body["properties"]["priority"]["enum"] == ["interactive", "batch", "background"]
    assert {"image", "mask", "adapters", "by", "model"} <= body["properties"].keys()


def test_what_is_accepted_outlives_the_api(serving):
    with an_api(serving) as api:
        job = api.job(seed=3)
    with an_api(serving) as api:
        assert api.get(f"/v1/jobs/{job['id']}").json() == job


SNAPSHOT = Path(__file__).parent / "openapi.json"


def test_the_interface_changes_only_when_it_is_meant_to():
    """What clients rely on. Where a change is meant, `python -m tests.serve.test_api` writes it down anew."""
    assert described() == json.loads(SNAPSHOT.read_text())


def described():
    """The interface without what requests may say, which settings have tests of their own for."""
    said = json.loads(json.dumps(make_app(None).openapi()))
    body = said["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    del body["schema"]["properties"], said["info"]["version"]
    return said


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(), indent=1, sort_keys=True) + "\n")
