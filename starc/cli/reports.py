"""Commands about finished and running searches: report, watch, scale-up.

Owns: their arguments and help. Refuses: heavy imports at the top, and the work itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starc.cli import files
from starc.cli.arguments import (
    Context,
    Json,
    ParameterCount,
    ProgramOutput,
    RepeatCount,
    UnitCount,
    Vocab,
    Width,
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search.")]


def report(
    run: Run,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="One page that needs no network.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Every plot as PNG and SVG.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", metavar="FILE", help="A program to compare with; repeatable."),
    ] = None,
    optuna_journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The search as a study for optuna-dashboard."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a search found, also while it runs: its front, progress, failures, baselines.

    Baselines are the programs that the search was given, and those of --baseline, as far as the
    search has evaluated them. --json prints everything that the page is made of.

    \b
    Example: starc report runs/search --html report.html --plots plots/
    """
    from starc.cli.reporting import Outputs, report_command

    report_command(run, baseline or (), Outputs(html, plots, optuna_journal, as_json))


def watch(
    run: Run,
    every: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and end.")] = False,
) -> None:
    """Show a search while it runs: how far it is, its front, what failed, and the time left.

    It only reads, and ends with the search. Where standard output is no terminal, there is a line
    now and then.

    \b
    Example: starc watch runs/search
    """
    from starc.cli.watching import watch_command

    watch_command(run, every=every, once=once)


def scale_up(
    run: Run,
    member: Annotated[int, typer.Argument(metavar="MEMBER", help="Its number in the search.")],
    width: Width = None,
    units: UnitCount = None,
    repeat: RepeatCount = None,
    vocab: Vocab = None,
    context: Context = None,
    parameters: ParameterCount = None,
    output: ProgramOutput = files.STANDARD,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens that costs are for; default: the context.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type of cached values: fp32, bf16, fp16.")] = "bf16",
    as_json: Json = False,
) -> None:
    """Write a program that a search found at another size, and print what it costs.

    The table goes to standard error where the program goes to standard output.

    \b
    Example: starc scale-up runs/search 142 --width 2048 --units 48 -o found.star
    """
    from starc.cli.scaling_up import Sizes, scale_up_command

    sizes = Sizes(width, units, repeat, vocab, context, parameters)
    scale_up_command(run, member, sizes, output=output, length=length, dtype=dtype, as_json=as_json)
