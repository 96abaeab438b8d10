"""Commands about Triton kernels: kernels check.

Owns: their arguments, help and tables. Refuses: heavy imports at the top, and the work itself
(starc/kernel_check.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from starc.cli import EXIT_WRONG
from starc.cli.arguments import File, Json, ModelName, Set, options_of

if TYPE_CHECKING:
    from starc.kernel_check import Checked

kernels = typer.Typer(no_args_is_help=True, help="The Triton kernels of a program, without a GPU.")


@kernels.callback()
def _kernels() -> None:
    """The Triton kernels of a program, without a GPU."""


@kernels.command()
def check(
    file: File,
    target: Annotated[
        str, typer.Option(metavar="NAME,...", help="GPUs to compile for; also sm_120.")
    ] = "sm_80,sm_90,sm_100,gfx942",
    element: Annotated[
        str, typer.Option(metavar="TYPE,...", help="Types of operands: bf16, fp16, fp32.")
    ] = "bf16",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that bytes are counted for.")] = 4096,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of them.")] = 1,
    model: ModelName = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Compile every kernel of a program for GPUs that need not be here, and report on each.

    Registers, spills, shared memory against the device's limit, tensor-core instructions, wide
    accesses, and the bytes that a launch moves against the least possible. Exit status 1 if one
    does not fit, spills, uses atomics, or multiplies matrices without tensor cores.

    \b
    Example: starc kernels check examples/mistral.star --target sm_90
    """
    from starc.compiler.driver import compile_program
    from starc.grammar.library import read_source
    from starc.kernel_check import check_kernels

    artifact = compile_program(read_source(file), options_of(model, set_))
    found = check_kernels(
        artifact,
        targets=[name.strip() for name in target.split(",")],
        elements=[name.strip() for name in element.split(",")],
        batch=batch,
        tokens=tokens,
    )
    if as_json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
    elif found:
        _print(found)
    else:
        print(f"model '{artifact.model_name}' has no kernels: PyTorch's own serve it")
    if any(one.defects for one in found):
        raise typer.Exit(EXIT_WRONG)


def _print(found: list[Checked]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("kernel", no_wrap=True)
    for name in ("target", "type"):
        table.add_column(name)
    for name in ("warps", "regs", "spills", "shared", "limit", "mma", "group", "wide", "narrow"):
        table.add_column(name, justify="right")
    table.add_column("moved/least", justify="right")
    table.add_column("")
    for one in found:
        r = one.report
        table.add_row(
            r.kernel,
            r.target,
            one.element,
            *(f"{n:,}" for n in (one.warps, r.registers, r.spills, r.shared_bytes)),
            f"{r.shared_limit:,}",
            *(str(n) for n in (r.matrix_instructions, r.group_instructions)),
            *(str(n) for n in (r.wide_accesses, r.narrow_accesses)),
            f"{one.traffic:.2f}",
            "; ".join(one.defects),
        )
    console.print(table)
    wrong = sum(bool(one.defects) for one in found)
    console.print(f"{len(found)} compiled, {wrong} with defects")
