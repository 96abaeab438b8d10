"""The commands: their arguments, their help, and which function of the project does the work.

Owns: the words a user types. Refuses: heavy imports at the top (each command imports what it needs,
so that `starc compile` loads neither torch nor rich) and any work worth testing without a terminal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from starc import __version__
from starc.cli import EXIT_WRONG, complain, files
from starc.grammar.errors import Diagnostic, StarError, render

if TYPE_CHECKING:
    from starc.compiler.options import Options

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # both keep typer from importing rich
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STAGES = ("nodes", "ir", "plan")

_LARGE = 2**63 - 1

File = Annotated[str, typer.Argument(metavar="FILE", help="A .star program; - is standard input.")]
Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help=".star programs; - is standard input.")
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Which model, where the program has several.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a model setting; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
MaxUnits = Annotated[
    int | None, typer.Option(min=1, help="Raise the limit on units after unrolling.")
]
MaxParameters = Annotated[
    int | None, typer.Option(min=1, help="Raise the limit on the model's parameters.")
]
MaxCharacters = Annotated[
    int | None, typer.Option(min=1, help="Raise the limit on the program's size.")
]
MaxNesting = Annotated[int | None, typer.Option(min=1, help="Raise the limit on nesting.")]
MaxDepth = Annotated[
    int | None, typer.Option(min=1, help="Raise the limit on operators in operators.")
]
MaxValues = Annotated[
    int | None, typer.Option(min=1, help="Raise the limit on an operator written out.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def starc(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compile, train and sample neural sequence architectures written in .star."""


@app.command()
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
    options = _options(model, set_, *limits)
    found = check_programs(programs, options)
    if as_json:
        print(json.dumps([as_dict(diagnostic) for diagnostic in found], indent=2))
    elif found:
        complain(render(found))
    else:
        print(f"{len(programs)} program{'s' * (len(programs) > 1)}: no errors, no warnings")
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise typer.Exit(EXIT_WRONG)


@app.command()
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


@app.command("compile")
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
    options = _options(model, set_, *limits)
    artifact = compile_program(read_source(file), options)
    if artifact.warnings:
        complain(render(artifact.warnings))
    target = output or files.default_output(file, artifact.model_name)
    files.refuse_overwriting_program(file, target)
    files.write_text(target, artifact.text)
    if target != files.STANDARD:
        complain(f"wrote {target}: model '{artifact.model_name}', {artifact.digest[:12]}\n")


@app.command()
def show(
    file: File,
    stage: Annotated[
        str, typer.Option(metavar="nodes|ir|plan", help="The representation to print.")
    ] = "ir",
    print_after: Annotated[
        list[str] | None,
        typer.Option(
            "--print-after", metavar="PASS", help="Print the IR after a pass; repeatable."
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
    """Print a program as the compiler sees it.

    nodes: the syntax tree; ir: typed operators, before passes unless --print-after names one;
    plan: what templates are given.

    \b
    Example: starc show hybrid.star --print-after fuse_projections
    """
    from dataclasses import replace

    from starc.compiler import driver
    from starc.grammar.library import read_source

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = _options(model, set_, *limits)
    options = replace(options, print_after=tuple(print_after or ()))
    if stage not in STAGES:
        raise StarError(
            Diagnostic(
                "unknown-stage",
                f"there is no stage '{stage}'.",
                hint=f"stages: {', '.join(STAGES)}.",
            )
        )
    text = driver.show(read_source(file), options, stage)
    files.write_text(files.STANDARD, text if text.endswith("\n") else text + "\n")


@app.command()
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
    options = _options(model, set_, *limits)
    resolved, _ = resolve_source(read_source(file), options)
    report = cost_report(resolved, length=length, batch=batch, dtype=dtype)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        from starc.cli.tables import print_cost

        print_cost(report.as_dict())


@app.command()
def train(
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run.")],
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A .star program; not needed to resume.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH|stdlib", help="A text, a folder of texts, or Python's library."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=2**31, help="Sequences a step; default: 4,096 tokens a step."),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sequence; default: context, at most 512.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate; default: falls with width.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=_LARGE, help="Weights and batches; default 0.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Default: a GPU if there is one.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="auto|fp32|bf16", help="Default: the faster one here, measured."),
    ] = None,
    save_seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN from its checkpoint.")
    ] = False,
    model: ModelName = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Train a program on text, read as bytes.

    The run is saved as it goes, and on Ctrl-C; --resume goes on exactly where it stopped.

    \b
    Example: starc train hybrid.star --data stdlib --steps 1000 --out runs/hybrid

    \b
    Go on after a stop: starc train --resume --out runs/hybrid
    """
    from starc.cli.training import Request, train_command

    asked = {
        "data": data,
        "steps": steps,
        "batch": batch,
        "length": length,
        "learning_rate": lr,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    options = _options(model, set_)
    status = train_command(
        Request(
            file, out, options, asked, resume=resume, save_seconds=save_seconds, as_json=as_json
        )
    )
    if status:
        raise typer.Exit(status)


@app.command()
def generate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")],
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option(min=0, help="Bytes to generate.")] = 400,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 safer, above 1 wilder, 0 the likeliest.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k likeliest; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest with this share.")
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=_LARGE, help="The same seed gives the same text.")
    ] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to run.")] = "auto",
    as_json: Json = False,
) -> None:
    """Sample text from a trained run.

    \b
    Example: starc generate runs/hybrid --prompt "def main(" --tokens 300
    """
    from starc.cli.training import generate_command
    from starc.runtime.generate import Sampling

    sampling = Sampling(temperature, top_k, top_p)
    generate_command(run, prompt, tokens, sampling, seed=seed, device=device, as_json=as_json)


@app.command("import")
def import_(
    from_: Annotated[
        tuple[str, str],
        typer.Option("--from", metavar="FORMAT PATH", help="transformers DIR, safetensors FILE."),
    ],
    program: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A .star program; default: the map's.")
    ] = None,
    map_: Annotated[
        str | None, typer.Option("--map", metavar="FILE", help="Which tensor is which parameter.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="OUT", help="The .safetensors file to write."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only print names and shapes on both sides.")
    ] = False,
    dtype: Annotated[str, typer.Option(metavar="keep|fp32|bf16|fp16")] = "keep",
    model: ModelName = None,
    set_: Set = None,
    max_units: MaxUnits = None,
    max_parameters: MaxParameters = None,
    max_characters: MaxCharacters = None,
    max_nesting: MaxNesting = None,
    max_depth: MaxDepth = None,
    max_values: MaxValues = None,
) -> None:
    """Bring the weights of a published model to a program; the module is written beside them.

    docs/import.md describes maps. Nothing of the checkpoint is executed.

    \b
    Example: starc import --from transformers DIR --map llama.map -o llama.safetensors
    """
    from starc.cli import importing

    limits = max_units, max_parameters, max_characters, max_nesting, max_depth, max_values
    options = _options(model, set_, *limits)
    request = importing.Request(program, *from_, map_, output, options, dtype)
    (importing.list_command if list_ else importing.import_command)(request)


@app.command("distill")
def distill_(
    file: File,
    order: Annotated[int, typer.Option(help="Exponentials per filter: the state of a channel.")],
    model: ModelName = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A safetensors file or a run; else initial values."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT.star", help="The new program.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of gradient descent after the fit.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="For initial values and the tokens compared.")] = 0,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Turn long filters into sums of exponentials, which decode in constant memory.

    Every implicit filter, and every explicit one of many taps, becomes ssm(channels, order).
    Writes OUT.star, OUT.py and OUT.safetensors, and prints the error of every filter.

    \b
    Example: starc distill hyena.star --order 16 --weights runs/hyena -o distilled.star
    """
    from starc.cli.distilling import distill_command

    options = _options(model, set_)
    distill_command(file, order, options, weights, output, steps=steps, seed=seed, as_json=as_json)


def _options(
    model: str | None,
    overrides: list[str] | None,
    units: int | None = None,
    parameters: int | None = None,
    characters: int | None = None,
    nesting: int | None = None,
    depth: int | None = None,
    values: int | None = None,
) -> Options:
    from starc.compiler.options import Limits, Options

    given = {
        "units": units,
        "parameters": parameters,
        "characters": characters,
        "nesting": nesting,
        "depth": depth,
        "values": values,
    }
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    pairs = tuple(_pair(override) for override in overrides or ())
    return Options(model=model, overrides=pairs, limits=limits)


def _pair(override: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in override.partition("="))
    if not (name and equals and value):
        message = f"'--set {override}' gives no setting a value."
        raise StarError(Diagnostic("bad-override", message, hint="write --set width=128."))
    return name, value
