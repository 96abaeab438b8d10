"""`starc scale`: plans, the operations they count, trainings that are resumed, and what is said."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starc.compiler.cost import CostReport, cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.errors import StarError
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.runtime import run as runs
from starc.runtime.corpus import open_corpus
from starc.runtime.data import Data
from starc.scaling import Choices, fits, measured_rate, run_plan
from starc.scaling_plan import (
    ASPECT,
    DEVICES,
    FEWEST_STEPS,
    Request,
    Training,
    find_device,
    parse_budgets,
    plan_family,
    spelt,
    width_at,
)

Command = Callable[..., Any]
ROOT = Path(__file__).parents[2]
PLAIN = Options(format=False)
FAST = Choices(precision="fp32", validation_tokens=512)
TINY = Request([4e7, 8e7], sizes=3, span=4.0, length=16, batch=2)


@pytest.fixture
def text(small: Path) -> Path:
    """A text of twenty thousand bytes with something to learn in it."""
    path = small.parent / "text.txt"
    path.write_text("".join(f"{i} plus {i} is {2 * i}.\n" for i in range(1000)))
    return path


@pytest.fixture
def data(text: Path) -> Data:
    return open_corpus(str(text))


@pytest.fixture
def plan(small: Path) -> list[Training]:
    return plan_family(read_source(small), PLAIN, TINY)


# --- plans -------------------------------------------------------------------------------------


def test_tokens_are_the_budget_over_exact_operations() -> None:
    source = read_source(ROOT / "examples" / "transformer_pp.star")
    request = Request([1e15, 1e16], sizes=4, span=8.0, length=128, vocab=512)
    plan = plan_family(source, PLAIN, request)
    assert [t.budget for t in plan] == [1e15] * 4 + [1e16] * 4
    for training in plan:
        model, _ = resolve_source(training.size.source, PLAIN)
        report = cost_report(model, length=128)
        assert training.size.parameters == report.parameters
        assert training.size.flops == report.flops_train / 128
        assert training.flops == training.steps * training.batch * report.flops_train
        # Steps are whole.
        assert abs(training.flops / training.budget - 1) <= 0.5 / training.steps
        assert (model.width, model.vocab, model.context) == (training.size.width, 512, 128)
        assert training.size.units == max(4, 2 * round(training.size.width / ASPECT / 2))
    for budget in request.budgets:
        own = [t.size.parameters for t in plan if t.budget == budget]
        assert own == sorted(set(own))
        assert own[-1] / own[0] == pytest.approx(8.0, rel=0.5)
        middle = math.sqrt(budget / 6 / request.ratio)
        assert own[0] < middle < own[-1]


def test_all_sizes_of_a_budget_take_steps_of_one_size() -> None:
    source = read_source(ROOT / "examples" / "byte_hybrid.star")
    plan = plan_family(source, PLAIN, Request([1e12, 1e14], length=64))
    for budget in (1e12, 1e14):
        (batch,) = {t.batch for t in plan if t.budget == budget}
        assert math.log2(batch).is_integer()
        steps = sorted(t.steps for t in plan if t.budget == budget)
        assert steps[0] >= FEWEST_STEPS
        assert steps[0] < 300 < steps[-1]


def test_a_motif_is_never_cut() -> None:
    source = read_source(ROOT / "examples" / "striped_hyena.star")
    plan = plan_family(source, PLAIN, Request([1e13], length=64, sizes=3))
    assert {t.size.units for t in plan} == {8}


def test_the_grid_of_widths_rises() -> None:
    widths = [width_at(i) for i in range(60)]
    assert widths[:9] == [8, 16, 24, 32, 40, 48, 56, 64, 80]
    assert widths == sorted(set(widths))
    assert {256, 288, 1024, 1088} <= set(widths)


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ("1e12", [1e12]),
        ("1e12,3e12", [1e12, 3e12]),
        ("1e12:1e14:3", [1e12, 1e13, 1e14]),
    ],
)
def test_budgets_are_read(text: str, budgets: list[float]) -> None:
    assert parse_budgets(text) == budgets


@pytest.mark.parametrize("text", ["", "much", "1e12:1e13", "1e13:1e12:3", "1:2:1", "1e12:1e13:x"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(StarError) as refused:
        parse_budgets(text)
    assert refused.value.diagnostics[0].code == "bad-budget"


@pytest.mark.parametrize("budgets", [[], [-1.0], [math.nan], [1.0]])
def test_budgets_without_a_training_are_refused(small: Path, budgets: list[float]) -> None:
    with pytest.raises(StarError) as refused:
        plan_family(read_source(small), PLAIN, replace(TINY, budgets=budgets))
    assert refused.value.diagnostics[0].code == "bad-budget"


def test_devices_are_found_and_take_time() -> None:
    device = find_device("h100")
    assert device.seconds(989e12 * 0.4) == pytest.approx(1.0)
    with pytest.raises(StarError) as refused:
        find_device("H10")
    assert "H100" in refused.value.diagnostics[0].hint


def test_budgets_are_spelt_short() -> None:
    assert [spelt(b) for b in (1e18, 3.5e9, 2e12)] == ["1e18", "3.5e09", "2e12"]


# --- operations, as the paper counts them --------------------------------------------------------


def report(text: str, length: int, batch: int = 1) -> CostReport:
    model, _ = resolve_source(Source("program.star", text), PLAIN)
    return cost_report(model, length=length, batch=batch)


H, F, V, L = 128, 384, 1000, 256


def test_operations_of_attention_are_those_of_the_paper() -> None:
    """MAD (2403.17844): projections 2 B L in out, attention 4 B H L^2, read-out 2 B L H V.

    Attention is halved here: a causal mixer sees L (L + 1) / 2 of L^2 pairs.
    """
    text = (
        "use std.attention.mha  use std.channel.swiglu\n"
        f"model m {{ vocab = {V}  width = {H}  context = {L}  "
        f"backbone {{ repeat 3 {{ mha(heads = 4)  swiglu(hidden = {F}) }} }} }}"
    )
    for batch in (1, 4):
        projections = 4 * 2 * batch * L * H * H
        attention = 4 * batch * H * L**2 * (L + 1) // (2 * L)
        glu = 3 * 2 * batch * L * H * F
        readout = 2 * batch * L * H * V
        found = report(text, L, batch)
        assert found.flops_forward == 3 * (projections + attention + glu) + readout
        assert found.flops_train == 3 * found.flops_forward  # backward is twice forward


def test_operations_of_convolutions_are_those_of_the_paper() -> None:
    """Short convolutions 2 B L k H, by FFT 10 B L log2(L) H. The network that makes the filter
    works once per position, whatever the batch; so it falls out of a difference."""
    text = (
        "use std.convolution.hyena\n"
        f"model m {{ vocab = {V}  width = {H}  context = {L}  "
        "backbone { hyena(kernel = 3) } }"
    )
    projections = 4 * 2 * L * H * H
    short = 3 * 2 * L * 3 * H
    long = 10 * L * round(math.log2(L)) * H
    one, two = (report(text, L, batch).flops_forward for batch in (1, 2))
    assert two - one == projections + short + long + 2 * L * H * V


# --- trainings ---------------------------------------------------------------------------------


def test_a_plan_is_trained_and_fitted(plan: list[Training], data: Data, tmp_path: Path) -> None:
    outcomes = run_plan(plan, data, tmp_path / "out", FAST)
    assert [o.training for o in outcomes] == plan
    assert all(o.status == "finished" and 0 < o.loss < 6 for o in outcomes)
    assert {o.bits for o in outcomes} == {o.loss / math.log(2) for o in outcomes}
    law = fits(outcomes, samples=20)["small"]
    assert [o.sizes for o in law.optima] == [3, 3]
    run = runs.open_run(tmp_path / "out" / plan[0].place)
    assert run.settings.steps == plan[0].steps
    assert run.settings.validation_tokens == 512


def test_trainings_go_on_where_they_were_stopped(
    plan: list[Training], data: Data, tmp_path: Path
) -> None:
    """Stopped after every 25 steps and called again, until it is done: the same losses."""
    whole = run_plan(plan[:3], data, tmp_path / "whole", FAST)
    calls, outcomes = 0, []
    while len(outcomes) < 3:
        steps = iter(range(25))
        outcomes = run_plan(
            plan[:3],
            data,
            tmp_path / "cut",
            FAST,
            should_stop=lambda steps=steps: next(steps, None) is None,  # type: ignore[misc]
        )
        calls += 1
    assert calls > 3
    assert [o.loss for o in outcomes] == [o.loss for o in whole]


def test_what_is_done_is_not_done_again(plan: list[Training], data: Data, tmp_path: Path) -> None:
    first = run_plan(plan[:2], data, tmp_path, FAST)

    def never() -> bool:
        raise AssertionError("a training has begun")

    assert run_plan(plan[:2], data, tmp_path, FAST, should_stop=never) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"precision": "bf16"}, "precision fp32, not bf16"),
    ],
)
def test_other_arguments_need_another_folder(
    plan: list[Training], data: Data, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run_plan(plan[:1], data, tmp_path, FAST)
    with pytest.raises(StarError) as refused:
        run_plan(plan[:2], data, tmp_path, replace(FAST, **change))
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "run-differs"
    assert message in diagnostic.message


def test_a_result_of_another_plan_or_a_damaged_one_is_refused(
    plan: list[Training], data: Data, tmp_path: Path
) -> None:
    run_plan(plan[:1], data, tmp_path, FAST)
    with pytest.raises(StarError) as refused:
        run_plan([replace(plan[0], steps=plan[0].steps + 1)], data, tmp_path, FAST)
    assert refused.value.diagnostics[0].code == "run-differs"
    (tmp_path / plan[0].place / "result.json").write_text("{")
    with pytest.raises(StarError) as refused:
        run_plan(plan[:1], data, tmp_path, FAST)
    assert refused.value.diagnostics[0].code == "run-damaged"


def test_a_training_that_diverges_is_noted_and_left_out(
    plan: list[Training], data: Data, tmp_path: Path
) -> None:
    wild = replace(FAST, learning_rate=1e30)
    outcomes = run_plan(plan[:3], data, tmp_path, wild)
    assert {o.status for o in outcomes} == {"diverged"}
    assert fits(outcomes) == {}
    assert json.loads((tmp_path / plan[0].place / "result.json").read_text())["loss"] is None
    assert run_plan(plan[:3], data, tmp_path, wild)[0].status == "diverged"


def test_a_rate_is_measured(plan: list[Training], data: Data) -> None:
    assert 1e5 < measured_rate(plan[0], data, Choices(precision="fp32")) < 1e15


# --- the command -------------------------------------------------------------------------------

ARGUMENTS = (
    "--data text.txt --budgets 5e7,1e8 --sizes 3 --span 4 --length 16 --batch 2 --out out "
    "--precision fp32 --validation-tokens 512"
).split()


def test_scale_prints_laws_and_draws_them(command: Command, small: Path, text: Path) -> None:
    pytest.importorskip("matplotlib")
    more = ["--predict", "1e9", "--state", "--plot", "law.svg"]
    outcome = command("scale", small, *ARGUMENTS, *more)
    assert outcome.status == 0
    assert "small" in outcome.out
    assert "5e07" in outcome.out
    assert "state" in outcome.out
    assert Path("law.svg").read_text().startswith("<?xml")
    again = command("scale", small, *ARGUMENTS, "--json", "--predict", "1e9")
    assert again.err == "all 6 trainings were done before\n"
    report = json.loads(again.out)
    assert len(report["trainings"]) == 6
    assert len(report["laws"]["small"]["optima"]) == 2


def test_texts_are_read_by_a_tokenizer(command: Command, small: Path, text: Path) -> None:
    made = command("tokenizer", "train", "--data", text, "--vocab", 300, "-o", "tok.json")
    assert made.status == 0, made.err
    one = ["--budgets", "4e7", "--sizes", "1", "--length", "16", "--batch", "2", "--data", text]
    some = ["--precision", "fp32", "--validation-tokens", "512", "--out", "laws"]
    outcome = command("scale", small, *one, *some, "--tokenizer", "tok.json", "--json")
    assert outcome.status == 0, outcome.err
    (path,) = Path("laws").rglob("config.json")
    run = runs.open_run(path.parent)
    assert run.tokenizer().vocab == run.module().Model().embedding.num_embeddings == 300


def test_dry_run_prints_a_plan_and_trains_nothing(command: Command, small: Path) -> None:
    arguments = ["--budgets", "1e15,1e16", "--vocab", "256", "--sizes", "3", "--dry-run"]
    outcome = command("scale", small, *arguments, "--device-name", "A100")
    assert outcome.status == 0
    assert "6 trainings, 3.29e+16 operations" in outcome.out
    assert "A100: 312 TFLOP/s at an assumed utilisation of 45%" in outcome.out
    report = json.loads(command("scale", small, *arguments, "--json").out)
    assert report["hours"] == pytest.approx(
        sum(t["flops"] for t in report["trainings"]) / (989e12 * 0.4) / 3600
    )
    assert not Path("runs").exists()


def test_dry_run_on_this_cpu_measures(command: Command, small: Path, text: Path) -> None:
    outcome = command("scale", small, *ARGUMENTS, "--dry-run", "--device-name", "cpu")
    assert outcome.status == 0
    assert "GFLOP/s, measured" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--budgets", "many"], "bad-budget"),
        (["--budgets", "1e15", "--span", "0.5"], "bad-budget"),
        (["--budgets", "1e15", "--device-name", "abacus"], "no-device"),
        (["--budgets", "1e15", "--plot", "law.txt"], "wrong-argument"),
    ],
)
def test_scale_refuses(command: Command, small: Path, arguments: list[str], code: str) -> None:
    outcome = command("scale", small, *arguments, "--vocab", "256", "--dry-run")
    assert (outcome.status, outcome.out) == (1, "")
    assert f"error[{code}]" in outcome.err


def test_two_models_of_one_name_are_refused(command: Command, small: Path) -> None:
    Path("other.star").write_text(small.read_text())
    outcome = command(
        "scale", small, "other.star", "--budgets", "1e12", "--vocab", "256", "--dry-run"
    )
    assert outcome.status == 1
    assert "error[duplicate]: two programs have a model 'small'" in outcome.err


def test_the_table_of_devices_is_in_the_docs() -> None:
    docs = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| (\d+) % \|$", docs, flags=re.MULTILINE)
    told = {
        (name, float(peak.replace(",", "")), float(share))
        for names, peak, share in rows
        for name in names.split(", ")
    }
    assert told == {(d.name, d.peak / 1e12, 100 * d.utilisation) for d in DEVICES.values()}


def test_help_has_an_example(command: Command) -> None:
    assert "Example: starc scale" in command("scale", "--help").out
