"""The loop: exact resumption, endings, checkpoints, averages."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.train.toys import SETTINGS, ToyStage

from darkroom.errors import GenerationError, InvalidRequest, ModelError
from darkroom.train.average import Average, decay_at, power_exponent
from darkroom.train.config import LoopConfig, rate
from darkroom.train.loop import Trainer, continue_from
from darkroom.train.saved import NAME, read_checkpoint, write_checkpoint


def trainer(folder, **changes):
    return Trainer(ToyStage(), dataclasses.replace(SETTINGS, **changes), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert trainer(folder).run()
    return load_file(folder / NAME)


@pytest.mark.parametrize("step", range(1, 12))
def test_a_run_resumed_at_any_step_ends_with_the_same_bits(tmp_path, whole, step):
    assert trainer(tmp_path).run(until=step)
    again = trainer(tmp_path)
    assert again.step == step
    assert again.run()
    result = load_file(tmp_path / NAME)
    assert result.keys() == whole.keys()
    assert all(torch.equal(result[name], whole[name]) for name in whole)


def test_the_loss_falls_and_the_end_is_exported(tmp_path):
    stage = ToyStage()
    before = stage.validate()["error"]
    run = Trainer(
        stage, dataclasses.replace(SETTINGS, steps=60, learning_rate=1e-2, validate_every=60), tmp_path
    )
    assert run.run()
    assert stage.exported == [tmp_path / "result"]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row for row in rows if "val error" in row][-1]["val error"] < before / 2
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_a_signal_finishes_the_step_and_saves(tmp_path):
    run = trainer(tmp_path, steps=0, decay=0)
    inner = run.stage.loss

    def loss(batch, generator):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(batch, generator)

    run.stage.loss = loss
    assert run.run() is False
    assert read_checkpoint(tmp_path / NAME)[1]["step"] == 4
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_endless_run_can_be_finished_from_where_it_is(tmp_path):
    run = trainer(tmp_path, steps=0, decay=0)
    run.run(until=5)
    run.finish(4)
    assert (tmp_path / "stable-00000005.safetensors").exists()
    assert run.run(until=7)
    again = trainer(tmp_path, steps=0, decay=0)
    assert (again.end, again.decay) == (9, 4)
    assert again.run()
    assert again.stage.exported == [tmp_path / "result"]


def test_a_run_can_branch_off_another(tmp_path):
    run = trainer(tmp_path / "a")
    run.run(until=6)
    branch = trainer(tmp_path / "b", steps=8)
    continue_from(branch, tmp_path / "a" / NAME)
    assert branch.step == 6
    assert branch.run()
    with pytest.raises(InvalidRequest, match="choose another folder"):
        continue_from(branch, tmp_path / "a" / NAME)


def test_the_journal_forgets_what_came_after_the_checkpoint(tmp_path):
    trainer(tmp_path).run(until=4)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    trainer(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]


def test_not_a_number_is_told_and_not_saved(tmp_path):
    run = trainer(tmp_path, save_minutes=0.0)
    run.run(until=3)
    inner = run.stage.loss
    run.stage.loss = lambda batch, generator: (inner(batch, generator)[0] * float("nan"), {})
    with pytest.raises(GenerationError, match=r"before step 4.*learning_rate"):
        run.run()
    assert read_checkpoint(tmp_path / NAME)[1]["step"] == 3


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / NAME
    write_checkpoint(path, {"x": torch.ones(3)}, {"step": 1})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("darkroom.files.os.fsync", fail)
    with pytest.raises(InvalidRequest, match="disk full"):
        write_checkpoint(path, {"x": torch.zeros(3)}, {"step": 2})
    tensors, numbers = read_checkpoint(path)
    assert numbers == {"step": 1}
    assert torch.equal(tensors["x"], torch.ones(3))


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    trainer(tmp_path).run(until=1)
    with pytest.raises(ModelError, match="stage 'toy', not 'other'"):
        Trainer(ToyStage("other"), SETTINGS, tmp_path)
    (tmp_path / NAME).write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot read the checkpoint"):
        trainer(tmp_path)


def test_the_rate_warms_up_stays_and_falls():
    config = LoopConfig(warmup=4, decay_shape="linear")
    assert [rate(config, step, None, 0) for step in (0, 1, 3, 100)] == [0.25, 0.5, 1.0, 1.0]
    assert [rate(config, step, 10, 4) for step in (9, 10, 12, 14, 20)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    sqrt, cosine = LoopConfig(warmup=0), LoopConfig(warmup=0, decay_shape="cosine")
    assert rate(sqrt, 11, 10, 4) == 0.5
    assert rate(cosine, 12, 10, 4) == pytest.approx(0.5)


def test_the_power_average_has_the_width_it_is_named_by():
    gamma = power_exponent(0.1)
    assert gamma == pytest.approx(6.94, abs=0.01)
    assert (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(0.1)
    config = LoopConfig(ema_value=0.1)
    assert decay_at(config, 1) == 0.0
    assert decay_at(config, 100) == pytest.approx((1 - 1 / 100) ** (gamma + 1))


def test_the_average_is_the_recurrence_and_gives_the_weights_back():
    stage = ToyStage()
    config = LoopConfig(ema="constant", ema_value=0.9)
    average = Average(config, stage.networks)
    weight = stage.networks["net"][0].weight
    expected = weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            weight.add_(1.0)
        average.update()
        keep = min(0.9, (step - 1) / (step + 8))
        expected = keep * expected + (1 - keep) * weight.detach()
    own = weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected)
    assert torch.equal(weight, own)
