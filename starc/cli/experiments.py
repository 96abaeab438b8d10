"""Commands that run experiments on programs: mad.

Owns: their arguments and help. Refuses: heavy imports at the top, and the work itself.
"""

from __future__ import annotations

from typing import Annotated

import typer

from starc.cli.arguments import Json, ModelName, Set, options_of


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
