"""The trainer: it learns, a cut run goes on as if never cut, and faults are said, not raised."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from starc.grammar.errors import StarError
from starc.runtime import checkpoint, train
from starc.runtime import run as runs
from starc.runtime.corpus import Corpus
from starc.runtime.loader import load
from starc.runtime.recommend import LEARNING_RATE, recommended_settings
from starc.runtime.run import Run, Settings

TINY = (Path(__file__).parent / "fixtures" / "tiny.py").read_text()
TEXT = np.frombuffer(b"the cat sat on the mat and the dog sat on the log. " * 60, dtype=np.uint8)
CORPUS = Corpus.of("rhyme", TEXT[:2500], TEXT[2500:])
SETTINGS = Settings(
    data="rhyme",
    steps=24,
    batch=8,
    length=16,
    learning_rate=1e-2,
    warmup=4,
    validate_every=6,
    validation_tokens=256,
)


def make(folder: Path, module: str = TINY, **changes: Any) -> Run:
    settings = replace(SETTINGS, **changes)
    return runs.create(
        folder,
        program="model tiny { }",
        module_text=module,
        data_digest=CORPUS.digest,
        settings=settings,
    )


def losses(run: Run) -> list[tuple[int, float]]:
    entries = map(json.loads, run.metrics_path.read_text().splitlines())
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


def weights(run: Run) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(run.checkpoints)
    assert path is not None
    return checkpoint.load_weights(path)


def code_of(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make(tmp_path_factory.mktemp("runs") / "unbroken")
    train.train(run, CORPUS)
    return run


def test_it_learns_more_than_byte_frequencies(tmp_path: Path):
    run = make(tmp_path, steps=120)
    result = train.train(run, CORPUS)
    assert (result.status, result.step) == ("finished", 120)
    assert result.score is not None
    assert result.score.bits_per_byte(1) < CORPUS.unigram_bits() - 0.5


def test_metrics_have_a_line_per_step_and_per_validation(unbroken: Run):
    entries = list(map(json.loads, unbroken.metrics_path.read_text().splitlines()))
    assert [step for step, _ in losses(unbroken)] == list(range(1, 25))
    assert [e["step"] for e in entries if "validation_bits" in e] == [6, 12, 18, 24]
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_second"} <= set(entries[0])


class Killed(Exception):
    """Stands for a process that dies: nothing after it runs."""


@pytest.mark.parametrize(("saved", "died"), [(5, 5), (5, 8), (7, 20), (1, 23)])
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, unbroken: Run, saved: int, died: int
):
    run = make(tmp_path)

    def die(progress: train.Progress) -> None:
        if progress.step == died:
            raise Killed

    with pytest.raises(Killed):
        train.train(run, CORPUS, observe=die, save_steps=saved)
    with run.metrics_path.open("a") as metrics:
        metrics.write('{"step": 99, "lo')  # the line it was writing
    torch.rand(3)  # the state of the global generator must not matter
    result = train.train(runs.open_run(tmp_path), CORPUS)
    assert result.status == "finished"
    assert losses(run) == losses(unbroken)
    for name, tensor in weights(unbroken).items():
        assert torch.equal(tensor, weights(run)[name]), name


def test_a_stopped_run_saves_and_goes_on(tmp_path: Path, unbroken: Run):
    run = make(tmp_path)
    seen: list[int] = []
    result = train.train(
        run, CORPUS, observe=lambda p: seen.append(p.step), should_stop=lambda: len(seen) == 9
    )
    assert (result.status, result.step) == ("interrupted", 9)
    assert train.train(run, CORPUS).status == "finished"
    assert losses(run) == losses(unbroken)


def test_stopped_before_the_first_step(tmp_path: Path, unbroken: Run):
    run = make(tmp_path)
    assert train.train(run, CORPUS, should_stop=lambda: True).step == 0
    assert train.train(run, CORPUS, should_stop=lambda: True).step == 0
    train.train(run, CORPUS)
    assert losses(run) == losses(unbroken)


def test_resuming_a_finished_run_changes_nothing(unbroken: Run):
    before = unbroken.metrics_path.read_text()
    result = train.train(unbroken, CORPUS)
    assert (result.status, result.step) == ("finished", 24)
    assert result.score is not None
    assert unbroken.metrics_path.read_text() == before


def test_training_leaves_the_global_generator_alone(tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    train.train(make(tmp_path, steps=2), CORPUS)
    assert torch.equal(torch.rand(4), expected)


def test_another_seed_is_another_run(tmp_path: Path, unbroken: Run):
    run = make(tmp_path, seed=1)
    train.train(run, CORPUS)
    assert losses(run)[0] != losses(unbroken)[0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("return loss * (float('nan') if self.calls == 4 else 1)", "the loss is nan"),
        ("return loss + (self.gain.sum().sqrt() if self.calls == 4 else 0)", "norm is inf"),
    ],
)
def test_divergence_is_a_result_with_the_step(tmp_path: Path, fault: str, reason: str):
    module = TINY.replace(
        "        return F.cross_entropy(",
        "        self.calls = getattr(self, 'calls', 0) + self.training\n"
        "        loss = F.cross_entropy(",
    ).replace(
        "        self.head = ",
        "        self.gain = nn.Parameter(torch.zeros(1))\n        self.head = ",
    )
    run = make(tmp_path, module=f"{module}        {fault}\n")
    result = train.train(run, CORPUS)
    assert (result.status, result.step) == ("diverged", 3)
    assert reason in result.reason
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    last = json.loads(run.metrics_path.read_text().splitlines()[-1])
    assert (last["step"], last["status"]) == (4, "diverged")


def test_tied_weights_are_saved_once_and_restored(tmp_path: Path):
    tied = TINY.replace(
        "    def forward(self, tokens: Tensor)",
        "        self.head.weight = self.embedding.weight\n\n    def forward(self, tokens: Tensor)",
    )
    whole, cut = make(tmp_path / "whole", tied), make(tmp_path / "cut", tied)
    train.train(whole, CORPUS)
    train.train(cut, CORPUS, should_stop=lambda: cut.metrics_path.read_text().count("\n") > 9)
    train.train(cut, CORPUS)
    assert "head.weight" not in weights(whole)
    assert losses(cut) == losses(whole)
    model = runs.trained_model(cut)
    assert model.head.weight is model.embedding.weight


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path):
    run = make(tmp_path)
    train.train(run, CORPUS, save_steps=5)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000024"]


def test_only_matrices_decay(tmp_path: Path):
    """With a gradient of zero, a step changes what decays and nothing else."""
    still = TINY.replace("return F.cross_entropy(", "return 0 * F.cross_entropy(").replace(
        "self.gain = nn.Parameter(torch.ones(width))",
        "self.gain = nn.Parameter(torch.ones(1, width))",
    )
    run = make(tmp_path, still, steps=1)
    torch.manual_seed(run.settings.seed)
    before = run.module().Model().state_dict()
    train.train(run, CORPUS)
    changed = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
    assert changed == {"mix.gate.weight", "mix.out.weight", "head.weight"}


def test_recommended_settings_fit_the_program():
    settings = recommended_settings(load(TINY), CORPUS, 1000, device="cpu")
    assert (settings.length, settings.batch) == (32, 128)
    assert settings.precision in ("fp32", "bf16")
    assert settings.learning_rate == LEARNING_RATE


def test_bf16_trains(tmp_path: Path):
    run = make(tmp_path, precision="bf16", steps=60)
    result = train.train(run, CORPUS)
    assert result.status == "finished"
    assert result.loss < losses(run)[0][1] - 1


def cut_at(step: int) -> dict[str, Any]:
    """Arguments of `train` that stop it after a step."""
    seen = [0]
    return {
        "observe": lambda progress: seen.append(progress.step),
        "should_stop": lambda: seen[-1] == step,
    }


def rates(run: Run) -> list[float]:
    entries = map(json.loads, run.metrics_path.read_text().splitlines())
    return [entry["learning_rate"] for entry in entries if "loss" in entry]


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make(tmp_path_factory.mktemp("runs") / "stable", steps=40, schedule="wsd")
    train.train(run, CORPUS)
    return run


@pytest.mark.parametrize("cut", [3, 24, 27])
def test_a_budget_that_grows_is_the_larger_budget(tmp_path: Path, stable: Run, cut: int):
    """Cut while stable, while it decays, or at its end."""
    run = make(tmp_path, steps=27, schedule="wsd")
    train.train(run, CORPUS, **cut_at(cut))
    longer = runs.extend(runs.open_run(tmp_path), 40)
    assert longer == runs.open_run(tmp_path)
    assert longer.settings.decay_after == min(cut, 22)  # a fifth of 27 is for the decay
    train.train(longer, CORPUS)
    assert losses(run) == losses(stable)
    assert rates(run) == rates(stable)
    assert all(torch.equal(value, weights(stable)[name]) for name, value in weights(run).items())


def test_the_decay_begins_at_any_moment_and_is_not_the_end(tmp_path: Path, stable: Run):
    run = make(tmp_path, steps=1000, schedule="wsd")
    train.train(run, CORPUS, **cut_at(9))
    result = train.train(runs.extend(run, 14), CORPUS)
    assert (result.status, result.step) == ("finished", 14)
    assert rates(run)[10] == SETTINGS.learning_rate > rates(run)[11] > rates(run)[13] > 0
    assert losses(run)[:11] == losses(stable)[:11]
    train.train(runs.extend(runs.open_run(tmp_path), 40), CORPUS)
    assert losses(run) == losses(stable)


def test_budgets_that_cannot_be_changed(tmp_path: Path, unbroken: Run):
    assert runs.extend(unbroken, 24) == unbroken
    with pytest.raises(StarError) as error:
        runs.extend(unbroken, 30)
    assert code_of(error) == "run-differs"
    run = make(tmp_path, steps=100, schedule="constant")
    train.train(run, CORPUS, **cut_at(9))
    with pytest.raises(StarError) as error:
        runs.extend(run, 9)
    assert "9 steps already" in str(error.value)


def test_runs_of_older_versions_go_on(tmp_path: Path, unbroken: Run):
    run = make(tmp_path)
    train.train(run, CORPUS, **cut_at(13))
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("schedule", "decay_share", "decay_after", "accumulate", "stop_accuracy"):
        del config["settings"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = run.checkpoints / "step-00000013" / "state.json"
    state.write_text(json.dumps({"step": 13, "loss": 3.0, "validation_bits": 4.0}))
    assert train.train(runs.open_run(tmp_path), CORPUS).status == "finished"
    assert losses(run) == losses(unbroken)


def test_accumulation_takes_the_same_steps(tmp_path: Path, unbroken: Run):
    run = make(tmp_path, accumulate=3)  # of a batch of 8: parts of 3, 3 and 2
    train.train(run, CORPUS)
    expected = [loss for _, loss in losses(unbroken)]
    assert [loss for _, loss in losses(run)] == pytest.approx(expected, rel=1e-4)


def test_tensorboard_gets_the_metrics(tmp_path: Path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = make(tmp_path, steps=12)
    train.train(run, CORPUS, tensorboard=True, **cut_at(5))
    train.train(run, CORPUS, tensorboard=True)
    board = events.EventAccumulator(str(run.board))
    board.Reload()
    scalars = [(event.step, event.value) for event in board.Scalars("training/loss")]
    assert scalars == [(step, pytest.approx(loss)) for step, loss in losses(run)]
    assert [event.step for event in board.Scalars("validation/bits")] == [6, 12]


def test_tensorboard_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(StarError) as error:
        train.train(make(tmp_path), CORPUS, tensorboard=True)
    assert code_of(error) == "missing-extra"


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({"vocab": 128}, {}, "vocab-too-small"),
        ({}, {"length": 33}, "length-beyond-context"),
        ({}, {"schedule": "linear"}, "bad-schedule"),
        ({}, {"batch": 4, "accumulate": 5}, "bad-accumulate"),
        ({}, {"device": "meta"}, "no-device"),
        ({}, {"device": "nowhere"}, "no-device"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], options: dict[str, Any], code: str):
    module = load(TINY)
    module.CONFIG = {**(original := module.CONFIG), **changes}
    try:
        with pytest.raises(StarError) as error:
            recommended_settings(module, CORPUS, 10, **{"precision": "fp32", **options})
    finally:
        module.CONFIG = original
    assert code_of(error) == code


@pytest.mark.parametrize("raised", ["MemoryError()", 'RuntimeError("can\'t allocate memory")'])
def test_too_little_memory_is_diagnosed(tmp_path: Path, raised: str):
    run = make(
        tmp_path,
        TINY.replace("        return F.cross", f"        raise {raised}\n        return F.cross"),
    )
    with pytest.raises(StarError) as error:
        train.train(run, CORPUS)
    assert code_of(error) == "out-of-memory"


def test_data_that_changed_is_refused(tmp_path: Path):
    run = make(tmp_path)
    other = Corpus.of("rhyme", TEXT[:2400], TEXT[2400:])
    with pytest.raises(StarError) as error:
        train.train(run, other)
    assert code_of(error) == "data-changed"


@pytest.mark.parametrize("file", ["state.json", "weights.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
def test_damaged_checkpoints_are_diagnosed(tmp_path: Path, file: str, damage: str):
    run = make(tmp_path, steps=2)
    train.train(run, CORPUS)
    path = run.checkpoints / "step-00000002" / file
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff" * 64)
    with pytest.raises(StarError) as error:
        train.train(run, CORPUS)
    assert code_of(error) == "checkpoint-damaged"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    run = make(tmp_path, steps=2)
    train.train(run, CORPUS)
    run.model_path.write_text(TINY.replace("self.mix", "self.mixer"))
    with pytest.raises(StarError) as error:
        runs.trained_model(run)
    assert code_of(error) == "checkpoint-damaged"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, "no-run"),
        ("{", "run-damaged"),
        ("[]", "run-damaged"),
        ("{}", "run-damaged"),
        ('{"settings": {}}', "run-damaged"),
    ],
)
def test_runs_that_cannot_be_opened(tmp_path: Path, config: str | None, code: str):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(StarError) as error:
        runs.open_run(tmp_path)
    assert code_of(error) == code


def test_settings_of_a_wrong_type_are_diagnosed(tmp_path: Path):
    run = make(tmp_path)
    path = run.folder / "config.json"
    path.write_text(path.read_text().replace('"steps": 24', '"steps": "many"'))
    with pytest.raises(StarError) as error:
        runs.open_run(tmp_path)
    assert code_of(error) == "run-damaged"
