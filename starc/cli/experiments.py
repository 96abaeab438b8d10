"""Commands that run experiments on programs: mad, scale.

Owns: their arguments and help. Refuses: heavy imports at the top, and the work itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starc.cli.arguments import LARGE, Files, Json, ModelName, Set, options_of


def mad(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help=".star programs; with --compare folders.")
    ],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; repeatable.")
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="quick|standard|paper", help="The protocol: docs/mad.md.")
    ] = "quick",
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Seeds 0 to N - 1; default: the profile's.")
    ] = None,
    state: Annotated[
        int | None, typer.Option(min=1, help="Give programs so many state elements in all.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Where to save; default: runs/mad-PROFILE."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run nothing: put saved results side by side.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=256, help="Runs side by side; default: one a core.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Default: a GPU if there is one.")
    ] = "auto",
    model: ModelName = None,
    set_: Set = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every chosen run.")] = False,
    as_json: Json = False,
) -> None:
    """Judge programs by the six tasks of MAD: recall, memory, compression, copying.

    Programs are brought to the protocol's width and depth first. All runs are saved as they go; the
    same command goes on where it was stopped, and repeats no run. Several programs are compared.

    \b
    Example: starc mad hybrid.star --seeds 3

    \b
    Side by side: starc mad --compare runs/mad-quick
    """
    from starc.cli.mad import Request, mad_command

    request = Request(
        arguments=tuple(files),
        tasks=tuple(task or ()),
        profile=profile,
        seeds=seeds,
        state=state,
        out=out,
        device=device,
        jobs=jobs,
        options=options_of(model, set_),
        compare=compare,
        as_json=as_json,
        verbose=verbose,
    )
    status = mad_command(request)
    if status:
        raise typer.Exit(status)


def scale(
    files: Files,
    budgets: Annotated[
        str, typer.Option(metavar="C1,C2,...", help="Operations; or FIRST:LAST:COUNT.")
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH|stdlib|hf:NAME",
            help="A text, a folder of texts or of tokens, Python's library, a data set.",
        ),
    ] = "stdlib",
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A tokenizer's JSON file; default: tokens are bytes."),
    ] = None,
    sizes: Annotated[int, typer.Option(min=1, max=50, help="Models per budget.")] = 5,
    span: Annotated[float, typer.Option(help="Largest model of a budget over smallest.")] = 16.0,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 256,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Sequences a step; default: about 300 steps.")
    ] = None,
    vocab: Annotated[int | None, typer.Option(min=1, help="Default: the data's.")] = None,
    aspect: Annotated[int, typer.Option(min=1, help="Channels of width per unit.")] = 32,
    ratio: Annotated[float, typer.Option(help="Tokens per parameter of the middle model.")] = 20.0,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where runs go.")] = "runs/scale",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print models, tokens, operations and hours.")
    ] = False,
    device_name: Annotated[
        str, typer.Option(metavar="NAME", help="For --dry-run: H100, A100, ..., or cpu: measured.")
    ] = "H100",
    predict: Annotated[
        str | None, typer.Option(metavar="C1,C2,...", help="Budgets to predict an optimum for.")
    ] = None,
    state: Annotated[
        bool, typer.Option("--state", help="Loss against the total state, too.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="A picture: .png, .svg or .pdf.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate; default: falls with width.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGE, help="Weights and batches.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="auto|fp32|bf16", help="Default: the faster one, for all.")
    ] = "auto",
    save_seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    validation_tokens: Annotated[
        int, typer.Option(min=1, help="Held-out tokens that all are judged on.")
    ] = 65_536,
    model: ModelName = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Train programs at many sizes over compute budgets, and fit their scaling laws.

    The same command goes on where it was stopped. docs/scaling.md says how sizes are chosen.

    \b
    Example: starc scale hybrid.star --budgets 1e11,3e11,1e12 --out runs/scale --plot law.png

    \b
    How long it takes: starc scale hybrid.star --budgets 1e18:1e20:5 --dry-run --device-name H100
    """
    from starc.cli.scaling import Order, scale_command
    from starc.scaling_plan import parse_budgets

    plan = {
        "budgets": parse_budgets(budgets),
        "sizes": sizes,
        "span": span,
        "length": length,
        "batch": batch,
        "aspect": aspect,
        "ratio": ratio,
    }
    choices = {
        "learning_rate": lr,
        "seed": seed,
        "device": device,
        "precision": precision,
        "validation_tokens": validation_tokens,
        "save_seconds": save_seconds,
    }
    status = scale_command(
        Order(
            files,
            options_of(model, set_),
            plan,
            vocab,
            data,
            tokenizer,
            Path(out),
            dry_run,
            device_name,
            parse_budgets(predict) if predict else (),
            state,
            Path(plot) if plot else None,
            as_json,
            choices,
        )
    )
    if status:
        raise typer.Exit(status)
