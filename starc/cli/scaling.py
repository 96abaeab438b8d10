"""`starc scale`: from arguments to a plan, its trainings, and what the fits say.

Owns: what is printed and written. Refuses: planning, training and fitting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starc.cli import EXIT_INTERRUPTED, complain
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.scaling_plan import Rate, Request, Training, find_device, plan_family, spelt

LARGEST_TIMED = 1e11
"""Operations of a step that is timed, at most; larger models are taken to run as fast."""


@dataclass(frozen=True)
class Order:
    """What `starc scale` was asked for."""

    files: Sequence[str]
    options: Options
    plan: dict[str, Any]
    vocab: int | None
    data: str
    tokenizer: str | None
    out: Path
    dry_run: bool
    device_name: str
    predict: Sequence[float]
    state: bool
    plot: Path | None
    as_json: bool
    choices: dict[str, Any]


def scale_command(order: Order) -> int:
    """Plan, train what is missing, fit, and print; returns the exit status."""
    if order.plot:
        from starc.scaling_plot import check_plot

        check_plot(order.plot)
    data = None
    if not order.dry_run or order.vocab is None or order.device_name == "cpu":
        from starc.runtime.corpus import open_corpus
        from starc.runtime.tokenizer import open_tokenizer

        data = open_corpus(order.data, open_tokenizer(order.tokenizer) if order.tokenizer else None)
    vocab = order.vocab or (data.vocab if data else 0)
    plan = _plan(order, Request(vocab=vocab, **order.plan))
    if order.dry_run:
        _print_plan(order, plan, _rate(order, plan, data))
        return 0
    from starc.cli.progress import open_display
    from starc.cli.signals import stop_on_signals
    from starc.scaling import Choices, fits, run_plan

    done = 0

    @contextmanager
    def display(training: Training, steps: int) -> Iterator[Any]:
        nonlocal done
        done += 1
        size = training.size
        complain(
            f"{size.model}, {spelt(training.budget)} operations: width {size.width}, "
            f"{size.units} units, {size.parameters:,} parameters, {training.tokens:,} tokens\n"
        )
        with open_display(steps) as observe:
            yield observe

    assert data is not None
    with stop_on_signals() as stop:
        outcomes = run_plan(
            plan,
            data,
            order.out,
            Choices(**order.choices),
            display=display,
            should_stop=lambda: bool(stop),
        )
    if len(outcomes) < len(plan):
        complain(
            f"stopped: {len(outcomes)} of {len(plan)} trainings are done, and the last is saved. "
            "The same command goes on.\n"
        )
        return EXIT_INTERRUPTED
    if done == 0:
        complain(f"all {len(plan)} trainings were done before\n")
    laws = fits(outcomes)
    if order.as_json:
        print(json.dumps(_report(order, outcomes, laws), indent=2))
    else:
        from starc.cli.scaling_tables import print_laws

        print_laws(outcomes, laws, order.predict, state=order.state)
    if order.plot:
        from starc.runtime.files import write_atomic
        from starc.scaling_plot import plot

        picture = plot(outcomes, laws, order.plot.suffix, state=order.state)
        try:
            write_atomic(order.plot, picture)
        except OSError as error:
            reason = error.strerror or str(error)
            raise _error("cannot-write", f"cannot write '{order.plot}': {reason}.") from error
    return 0


def _plan(order: Order, request: Request) -> list[Training]:
    found: dict[str, list[Training]] = {}
    for file in order.files:
        trainings = plan_family(read_source(file), order.options, request)
        model = trainings[0].size.model
        if model in found:
            raise _error(
                "duplicate",
                f"two programs have a model '{model}': their trainings would share a folder.",
                "rename one of them.",
            )
        found[model] = trainings
    return [training for trainings in found.values() for training in trainings]


def _rate(order: Order, plan: Sequence[Training], data: Any) -> tuple[str, Rate]:
    """A device in words, and the seconds that a training takes on it."""
    if order.device_name.lower() != "cpu":
        device = find_device(order.device_name)
        words = (
            f"{device.name}: {device.peak / 1e12:,.0f} TFLOP/s at an assumed utilisation of "
            f"{device.utilisation:.0%}"
        )
        return words, lambda training: device.seconds(training.flops)
    rates = {name: dict(_measured(order, own, data)) for name, own in _by_model(plan).items()}

    def seconds(training: Training) -> float:
        return training.flops / _between(rates[training.size.model], training.size.parameters)

    low, high = (f(r for known in rates.values() for r in known.values()) for f in (min, max))
    return f"this CPU: {low / 1e9:.2g} to {high / 1e9:.2g} GFLOP/s, measured", seconds


def _measured(order: Order, plan: Sequence[Training], data: Any) -> Iterator[tuple[int, float]]:
    """Operations a second by parameters: of the smallest size and the largest that can be timed."""
    from dataclasses import replace

    from starc.scaling import Choices, measured_rate

    sizes = sorted({t.size.width: t for t in plan}.values(), key=lambda t: t.size.parameters)
    cheap = [t for t in sizes if t.size.flops * t.length <= LARGEST_TIMED]
    for training in dict.fromkeys([sizes[0], (cheap or sizes)[-1]]):
        each = training.size.flops * training.length
        batch = max(1, min(training.batch, int(LARGEST_TIMED / each)))
        timed = replace(training, batch=batch)
        choices = Choices(**{**order.choices, "device": "cpu"})
        yield training.size.parameters, measured_rate(timed, data, choices)


def _between(rates: dict[int, float], parameters: int) -> float:
    """The rate of a size between the measured ones, evenly in log; beyond them the nearest."""
    (small, slow), (large, fast) = min(rates.items()), max(rates.items())
    if large == small:
        return slow
    share = math.log(parameters / small) / math.log(large / small)
    return float(slow * (fast / slow) ** min(max(share, 0.0), 1.0))


def _by_model(plan: Sequence[Training]) -> dict[str, list[Training]]:
    found: dict[str, list[Training]] = {}
    for training in plan:
        found.setdefault(training.size.model, []).append(training)
    return found


def _print_plan(order: Order, plan: Sequence[Training], rate: tuple[str, Rate]) -> None:
    words, seconds = rate
    if not order.as_json:
        from starc.cli.scaling_tables import print_plan

        print_plan(plan, words, seconds)
        return
    total = sum(seconds(t) for t in plan) / 3600
    trainings = [{**t.as_dict(), "hours": seconds(t) / 3600} for t in plan]
    print(json.dumps({"device": words, "hours": total, "trainings": trainings}, indent=2))


def _report(order: Order, outcomes: Sequence[Any], laws: Any) -> dict[str, Any]:
    from dataclasses import asdict

    found: dict[str, Any] = {"trainings": [o.as_dict() for o in outcomes], "laws": {}}
    for name, law in laws.items():
        own = {
            key: {"exponent": asdict(known.exponent), "intercept": known.intercept}
            for key in ("size", "tokens", "loss", "state_loss")
            if (known := getattr(law, key)) is not None
        }
        predictions = [
            {
                "budget": budget,
                **{
                    key: asdict(known.at(budget))
                    for key in ("size", "tokens", "loss")
                    if (known := getattr(law, key)) is not None
                },
            }
            for budget in order.predict
        ]
        optima = [asdict(o) for o in law.optima]
        found["laws"][name] = {
            "noise": law.noise,
            "optima": optima,
            **own,
            "predictions": predictions,
        }
    return _finite(found)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
