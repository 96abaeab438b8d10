"""Commands about programs: check, fmt, compile, show, cost, resize.

Owns: their arguments and help. Refuses: heavy imports at the top (each command imports what it
needs, so that `starc compile` loads neither torch nor rich) and work worth testing without a
terminal.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from starc.cli import EXIT_WRONG, complain, files
from starc.cli.arguments import (
    Context,
    File,
    Files,
    Json,
    MaxCharacters,
    MaxDepth,
    MaxNesting,
    MaxParameters,
    MaxUnits,
    MaxValues,
    ModelName,
    ParameterCount,
    ProgramOutput,
    RepeatCount,
    Set,
    UnitCount,
    Vocab,
    Width,
    options_of,
)
from starc.grammar.errors import Diagnostic, StarError, render

STAGES = ("nodes", "ir", "plan", "kernels")


def check(
    programs: Files,
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with programs, without compiling them.

    Exit status 1 if there is an error; warnings alone are fine.

    \b
    Example: starc check examples/*.star
    """
    from starc.cli.programs import as_dict, check_programs

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = options_of(model, set_, *limits)
    found = check_programs(programs, options)
    if as_json:
        print(json.dumps([as_dict(diagnostic) for diagnostic in found], indent=2))
    elif found:
        complain(render(found))
    else:
        print(f"{len(programs)} program{'s' * (len(programs) > 1)}: no errors, no warnings")
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise typer.Exit(EXIT_WRONG)


def fmt(
    programs: Files,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit status 1 if a file would change.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Change nothing; print what would change.")
    ] = False,
) -> None:
    """Write programs in canonical form, comments kept. A program from - goes to standard output.

    \b
    Example: starc fmt --diff hybrid.star
    """
    from starc.cli.programs import format_programs

    changed, failures = format_programs(programs, write=not (check or diff), show_diff=diff)
    if failures:
        complain(render(failures))
    if failures or (check and changed):
        raise typer.Exit(EXIT_WRONG)


def compile_(
    file: File,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="OUT", help="The file to write; - is standard output."
        ),
    ] = None,
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
) -> None:
    """Write a model as one PyTorch file.

    Without -o, the file is MODEL.py in the current folder, or standard output for a program from
    standard input.

    \b
    Example: starc compile hybrid.star -o hybrid.py --set width=128
    """
    from starc.compiler.driver import compile_program
    from starc.grammar.library import read_source

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = options_of(model, set_, *limits)
    artifact = compile_program(read_source(file), options)
    if artifact.warnings:
        complain(render(artifact.warnings))
    target = output or files.default_output(file, artifact.model_name)
    files.refuse_overwriting_program(file, target)
    files.write_text(target, artifact.text)
    if target != files.STANDARD:
        complain(f"wrote {target}: model '{artifact.model_name}', {artifact.digest[:12]}\n")


def show(
    file: File,
    stage: Annotated[
        str, typer.Option(metavar="nodes|ir|plan|kernels", help="The representation to print.")
    ] = "ir",
    print_after: Annotated[
        list[str] | None,
        typer.Option(
            "--print-after", metavar="PASS", help="Print the IR after a pass; repeatable."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="For kernels: H100, A100, RTX4090 or MI300X.")
    ] = "H100",
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
) -> None:
    """Print a program as the compiler sees it.

    nodes: the syntax tree; ir: typed operators, before passes unless --print-after names one;
    plan: what templates are given; kernels: what is fused into each kernel, its FLOPs and bytes at
    the model's context, and the time that the device needs for them at least.

    \b
    Example: starc show hybrid.star --print-after fuse_projections
    """
    from dataclasses import replace

    from starc.compiler import driver
    from starc.grammar.library import read_source

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = options_of(model, set_, *limits)
    options = replace(options, print_after=tuple(print_after or ()))
    if stage not in STAGES:
        raise StarError(
            Diagnostic(
                "unknown-stage",
                f"there is no stage '{stage}'.",
                hint=f"stages: {', '.join(STAGES)}.",
            )
        )
    text = driver.show(read_source(file), options, stage, device)
    files.write_text(files.STANDARD, text if text.endswith("\n") else text + "\n")


def cost(
    file: File,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 4096,
    batch: Annotated[int, typer.Option(min=1, help="Sequences.")] = 1,
    dtype: Annotated[str, typer.Option(help="Type of cached values: fp32, bf16, fp16.")] = "bf16",
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
    as_json: Json = False,
) -> None:
    """Count parameters, FLOPs and cache, unit by unit.

    \b
    Example: starc cost hybrid.star --length 4096 --dtype bf16 --json
    """
    from starc.compiler.cost import cost_report
    from starc.compiler.driver import resolve_source
    from starc.grammar.library import read_source

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = options_of(model, set_, *limits)
    resolved, _ = resolve_source(read_source(file), options)
    report = cost_report(resolved, length=length, batch=batch, dtype=dtype)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        from starc.cli.tables import print_cost

        print_cost(report.as_dict())


def resize_(
    file: File,
    width: Width = None,
    units: UnitCount = None,
    repeat: RepeatCount = None,
    vocab: Vocab = None,
    context: Context = None,
    parameters: ParameterCount = None,
    output: ProgramOutput = files.STANDARD,
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
    as_json: Json = False,
) -> None:
    """Write a program at another size: its numbers follow, and the result passes the checks.

    Head counts, hidden sizes and ranks follow the width, windows the context, counts of repeats
    the number of units. --json prints what became of it instead of the program.

    \b
    Example: starc resize examples/llama.star --width 64 --units 8 --vocab 256 --context 128
    """
    from starc.compiler.cost import cost_report
    from starc.compiler.driver import resolve_source
    from starc.compiler.fitting import fit_parameters
    from starc.compiler.resize import count_units, resize
    from starc.grammar.library import read_source

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = options_of(model, set_, *limits)
    source = read_source(file)
    if parameters is None:
        sizes = {"width": width, "units": units, "repeat": repeat}
        found = resize(source, options, vocab=vocab, context=context, **sizes)
    elif width is not None:
        raise StarError(
            Diagnostic("wrong-argument", "--width and --parameters both set the width.")
        )
    else:
        found = fit_parameters(
            source,
            options,
            parameters=parameters,
            units=units,
            repeat=repeat,
            vocab=vocab,
            context=context,
        ).source
    if not as_json or output != files.STANDARD:
        files.refuse_overwriting_program(file, output)
        files.write_text(output, found.text)
    if as_json:
        plain = options_of(None, None, *limits)
        resolved, _ = resolve_source(found, plain)
        report = {
            "model": resolved.name,
            "width": resolved.width,
            "units": count_units(found, plain),
            "vocab": resolved.vocab,
            "context": resolved.context,
            "parameters": cost_report(resolved, length=1).parameters,
            "program": found.text,
        }
        print(json.dumps(report, indent=2))
