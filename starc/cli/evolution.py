"""Commands about genomes and spaces of programs: genome, sample, mutate.

Owns: their arguments and help. Refuses: heavy imports at the top, and the work itself.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from starc.cli import files
from starc.cli.arguments import LARGE, File, Json, ModelName, Set, options_of

genome = typer.Typer(no_args_is_help=True, help="STAR's numbers for programs, and back.")

Output = Annotated[
    str,
    typer.Option("-o", "--output", metavar="OUT", help="The file to write; - for the terminal."),
]


@genome.command()
def encode(file: File, model: ModelName = None, set_: Set = None, as_json: Json = False) -> None:
    """Print the genome of a program that is made of STAR's LIV classes.

    \b
    Example: starc genome encode examples/star.star
    """
    from starc.compiler.genome import encode, print_genome
    from starc.grammar.library import read_source

    found = encode(read_source(file), options_of(model, set_))
    if as_json:
        print(json.dumps({"genome": print_genome(found), "genes": [g.integers for g in found]}))
    else:
        print(print_genome(found))


@genome.command()
def decode(
    numbers: Annotated[
        str, typer.Argument(metavar="GENOME", help="Genes of five integers, joined by hyphens.")
    ],
    output: Output = "-",
    name: Annotated[str, typer.Option(help="The model's name.")] = "decoded",
    set_: Set = None,
) -> None:
    """Write the program of a genome. Model settings are given by --set.

    \b
    Example: starc genome decode 21211-31112-21221-32112 --set width=256 -o found.star
    """
    from starc.compiler.driver import check_program
    from starc.compiler.genome import SETTINGS, decode, parse_genome
    from starc.compiler.options import Options
    from starc.grammar.parser import parse
    from starc.grammar.printer import format_program
    from starc.grammar.source import Source

    settings = {**SETTINGS, **dict(options_of(None, set_).overrides)}
    source = Source("<genome>", decode(parse_genome(numbers), settings, name))
    check_program(source, Options())
    files.write_text(output, format_program(parse(source)))


@genome.command()
def table() -> None:
    """Print what every integer of a genome means, and its range."""
    from starc.compiler.genome import table

    print(table(), end="")


def sample(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A program with holes.")],
    count: Annotated[int, typer.Option("-n", min=1, help="How many programs.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGE, help="The same seed gives the same programs.")
    ] = 0,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="A folder for one file per program."),
    ] = None,
    size: Annotated[bool, typer.Option("--size", help="Only count the programs.")] = False,
    model: ModelName = None,
    set_: Set = None,
) -> None:
    """Print random programs of a space, every hole filled.

    Fillings that do not verify are drawn again; standard error says how many there were, and how
    large the space is.

    \b
    Example: starc sample space.star -n 10 --seed 1 -o drawn/
    """
    from starc.cli.sampling import count_command, sample_command

    options = options_of(model, set_)
    if size:
        count_command(space, options)
    else:
        sample_command(space, options, count=count, seed=seed, folder=output)


def mutate(
    file: File,
    count: Annotated[int, typer.Option("-n", min=1, help="How many mutations.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGE, help="The same seed gives the same programs.")
    ] = 0,
    unconstrained: Annotated[
        bool, typer.Option("--unconstrained", help="Draw blindly, and repair.")
    ] = False,
    level: Annotated[
        str | None, typer.Option(help="Only backbone, operator or featurizer.")
    ] = None,
    units: Annotated[
        int, typer.Option(min=1, max=LARGE, help="No program grows beyond so many units.")
    ] = 64,
    table: Annotated[
        bool, typer.Option("--table", help="Print what came of the mutations, not programs.")
    ] = False,
    output: Output = "-",
    model: ModelName = None,
    set_: Set = None,
) -> None:
    """Print random mutations of a program, each of which verifies.

    Of a program with holes, mutations of a random filling. Standard error says what was changed.

    \b
    Example: starc mutate examples/hybrid.star -n 3 --level backbone
    """
    from starc.cli.mutating import mutate_command

    _check_level(level)
    mutate_command(
        file,
        options_of(model, set_),
        count=count,
        seed=seed,
        level=level,
        constrained=not unconstrained,
        units=units,
        table=table,
        output=output,
    )


def _check_level(level: str | None) -> None:
    """Refuse a level that mutations do not have."""
    from starc.grammar.errors import Diagnostic, StarError
    from starc.search.mutate import LEVELS

    if level is not None and level not in LEVELS:
        message = f"there is no level '{level}'."
        raise StarError(
            Diagnostic("wrong-argument", message, hint=f"levels are {', '.join(LEVELS)}.")
        )
