"""`starc train` and `starc generate`: from arguments to the trainer and back to the terminal.

Owns: making or opening the run, and what is printed.
Refuses: the training loop.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from starc.cli import EXIT_INTERRUPTED, complain
from starc.cli.progress import open_display
from starc.cli.signals import stop_on_signals
from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError, render
from starc.grammar.library import read_source
from starc.runtime import run as runs
from starc.runtime.corpus import Corpus
from starc.runtime.data import Data
from starc.runtime.device import pick_device
from starc.runtime.generate import Sampling, generate
from starc.runtime.learner import Learner, SingleLearner
from starc.runtime.loader import load
from starc.runtime.metrics import described
from starc.runtime.recommend import recommended_settings
from starc.runtime.sources import open_data, require_text
from starc.runtime.tasks import Task
from starc.runtime.tokenizer import ByteTokenizer, open_tokenizer
from starc.runtime.train import Result, train


@dataclass(frozen=True)
class Request:
    """What `starc train` was asked for; None in `asked` means "as recommended, or as before"."""

    file: str | None
    out: str
    options: Options
    asked: dict[str, Any]
    resume: bool
    save_seconds: float
    tensorboard: bool
    as_json: bool
    tokenizer: str | None = None
    distributed: bool = False


def train_command(request: Request) -> int:
    """Train, showing progress on standard error; returns the exit status."""
    if request.distributed:
        return _train_distributed(request)
    run, data = _resume(request) if request.resume else _begin(request)
    return _train(run, data, request, SingleLearner)


def _train_distributed(request: Request) -> int:
    """Train in all processes of a launcher, of which the first makes the run and shows it."""
    from starc.runtime.distributed import DistributedLearner, accelerator

    folder = Path(request.out)
    if request.resume:
        asked = runs.open_run(folder).settings.device
    else:
        asked = request.asked.get("device") or "auto"
    processes = accelerator(pick_device(asked).type == "cpu")
    try:
        if processes.is_main_process:
            run, data = _resume(request) if request.resume else _begin(request)
            processes.wait_for_everyone()
            return _train(run, data, request, DistributedLearner)
        processes.wait_for_everyone()
        run = runs.open_run(folder)
        with stop_on_signals() as stop:
            result = train(
                run,
                open_data(run.settings.data, run.tokenizer()),
                should_stop=lambda: bool(stop),
                save_seconds=request.save_seconds,
                build=DistributedLearner,
            )
        return {"interrupted": EXIT_INTERRUPTED, "diverged": 1}.get(result.status, 0)
    finally:
        processes.end_training()


def _train(
    run: runs.Run,
    data: Data,
    request: Request,
    build: Callable[[nn.Module, runs.Settings, torch.device], Learner],
) -> int:
    settings = run.settings
    config = run.module().CONFIG
    complain(
        f"{run.name}: {config['parameters']:,} parameters, {settings.precision} on "
        f"{settings.device}, {settings.batch} x {settings.length} tokens a step\n"
        f"{settings.data}: {_description(data)}\n"
    )
    with stop_on_signals() as stop, open_display(settings.steps) as display:
        result = train(
            run,
            data,
            observe=display,
            should_stop=lambda: bool(stop),
            save_seconds=request.save_seconds,
            tensorboard=request.tensorboard,
            build=build,
        )
    return _report(run, data, result, request.as_json)


def generate_command(
    folder: str,
    prompt: str,
    count: int,
    sampling: Sampling,
    *,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Print the prompt and its continuation as it comes, or one JSON object at the end."""
    if not math.isfinite(sampling.temperature) or math.isnan(sampling.top_p):
        raise _error("bad-sampling", "--temperature and --top-p must be numbers.")
    run = runs.open_run(Path(folder))
    require_text(run)
    model = runs.trained_model(run, pick_device(device))
    tokenizer = run.tokenizer()
    given = os.fsencode(prompt)  # bytes of the command line that are no text stay as they are
    tokens = generate(
        model,
        tokenizer.encode([given])[0].tolist() or [tokenizer.end],
        count=count,
        context=run.module().CONFIG["context"],
        sampling=sampling,
        seed=seed,
        allowed=tokenizer.vocab,
    )
    if as_json:
        print(json.dumps({"prompt": prompt, "text": "".join(tokenizer.decode(tokens))}))
        return
    sys.stdout.write(given.decode("utf-8", "replace"))
    for text in tokenizer.decode(tokens):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _begin(request: Request) -> tuple[runs.Run, Data]:
    asked = {name: value for name, value in request.asked.items() if value is not None}
    missing = [
        word
        for word, value in (
            ("FILE", request.file),
            ("--data", asked.get("data")),
            ("--steps", asked.get("steps")),
        )
        if value is None
    ]
    folder = Path(request.out)
    if missing:
        raise _error(
            "missing-argument",
            f"a new run needs {' and '.join(missing)}.",
            "starc train FILE --data stdlib --steps 1000 --out RUN; or add --resume.",
        )
    if runs.exists(folder):
        raise _error(
            "run-exists",
            f"there is a run in '{folder}' already.",
            "add --resume to go on with it, or name another folder with --out.",
        )
    source = read_source(request.file or "")
    artifact = compile_program(source, request.options)
    if artifact.warnings:
        complain(render(artifact.warnings))
    tokenizer = None if request.tokenizer is None else open_tokenizer(request.tokenizer)
    name = asked.pop("data")
    data = open_data(name, tokenizer)
    settings = recommended_settings(load(artifact.text), data, asked.pop("steps"), **asked)
    settings = replace(settings, data=name)
    data.batch(1, batch=1, length=settings.length, seed=0)  # too short a text is said before
    data.held_out("validation", length=settings.length, limit=1)  # a run is made
    try:
        run = runs.create(
            folder,
            program=source.text,
            module_text=artifact.text,
            data_digest=data.digest,
            settings=settings,
            tokenizer=data.tokenizer if isinstance(data, Corpus) else None,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise _error("cannot-write", f"cannot make a run in '{folder}': {reason}.") from error
    return run, data


def _resume(request: Request) -> tuple[runs.Run, Data]:
    run = runs.open_run(Path(request.out))
    steps = request.asked.pop("steps")
    recorded = asdict(run.settings)
    different = [
        f"{name} {recorded[name]}, not {value}"
        for name, value in request.asked.items()
        if value not in (None, "auto", recorded[name])
    ]
    if request.file is not None:
        artifact = compile_program(read_source(request.file), request.options)
        if artifact.digest != run.digest:
            different.append(f"another program than '{request.file}'")
    if request.tokenizer is not None:
        if open_tokenizer(request.tokenizer).digest != run.tokenizer().digest:
            different.append(f"another tokenizer than '{request.tokenizer}'")
    if different:
        raise _error(
            "run-differs",
            f"the run in '{run.folder}' has {'; '.join(different)}.",
            "a run is resumed as it was begun; begin another with a new --out.",
        )
    if steps is not None:
        run = runs.extend(run, steps)
    return run, open_data(run.settings.data, run.tokenizer())


def _description(data: Data) -> str:
    """What there is to learn from, and what a model that learns nothing of it would reach."""
    if isinstance(data, Corpus):
        return (
            f"{len(data.train):,} {_unit(data)}s, {len(data.validation):,} held out, "
            f"{data.unigram_bits():.2f} bits per byte by {_unit(data)} frequencies alone"
        )
    if isinstance(data, Task):
        return (
            f"{data.examples:,} examples of {data.tokens:,} tokens, {data.held_out_examples:,} "
            f"held out, {data.chance:.1%} right by chance"
        )
    return f"{data.vocab:,} kinds of tokens"


def _unit(data: Corpus) -> str:
    return "byte" if isinstance(data.tokenizer, ByteTokenizer) else "token"


def _report(run: runs.Run, data: Data, result: Result, as_json: bool) -> int:
    scores = described(result.score, data.bytes_per_token) if result.score else {}
    if as_json:
        finite = result.loss if math.isfinite(result.loss) else None
        report = {**asdict(result), "loss": finite, **scores}
        if isinstance(data, Corpus):
            report["unigram_bits"] = data.unigram_bits()
        print(json.dumps(report, indent=2))
    if result.status == "diverged":
        raise _error(
            "diverged",
            f"training diverged: {result.reason}.",
            "try a smaller --lr; the weights before that are in the checkpoint.",
        )
    if result.status == "interrupted":
        complain(
            f"stopped after step {result.step:,} of {run.settings.steps:,}, and saved. "
            f"Go on with: starc train --resume --out {run.folder}\n"
        )
        return EXIT_INTERRUPTED
    if as_json:
        return 0
    if result.status == "stopped-early":
        print(f"stopped early: {result.reason}")
    print(f"{result.step:,} steps done ({result.seconds:.0f} s): {_verdict(data, scores)}")
    if isinstance(data, Corpus):
        print(f"sample it: starc generate {run.folder} --prompt TEXT")
    return 0


def _verdict(data: Data, scores: dict[str, float]) -> str:
    if isinstance(data, Corpus):
        return (
            f"{scores.get('validation_bits', math.nan):.3f} bits per byte on held-out text, "
            f"{data.unigram_bits():.3f} by {_unit(data)} frequencies alone"
        )
    return (
        f"{scores.get('validation_accuracy', math.nan):.1%} of held-out tokens right, loss "
        f"{scores.get('validation_loss', math.nan):.3f} nats"
    )


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
