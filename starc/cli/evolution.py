"""Commands about genomes and spaces of programs: genome, sample, mutate, search.

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


def search(
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="A program, with or without holes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="RUN", help="The folder of the search.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,OPTION=VALUE]", help="nsga2 (usual), random, evolution, ga, ..."
        ),
    ] = None,
    population: Annotated[int | None, typer.Option(min=2, max=LARGE)] = None,
    generations: Annotated[
        int | None, typer.Option(min=1, max=LARGE, help="The budget in populations (10).")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, max=LARGE, help="The budget in full evaluations.")
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAMES", help="quality,parameters,cache_bytes, ...")
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help='"parameters <= 90M"; repeatable.'),
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,OPTION=VALUE]", help="lm (usual), mad, static or module:function."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The text of the evaluator lm; stdlib is everywhere.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Evaluations side by side.")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="Who evaluates.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster; auto: the one here.")
    ] = None,
    cpus: Annotated[float, typer.Option(help="Ray: processors of a worker.")] = 1.0,
    gpus: Annotated[float, typer.Option(help="Ray: GPUs of a worker; 0.25 shares one.")] = 0.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGE, help="The same seed finds the same.")
    ] = None,
    steady_state: Annotated[
        bool | None,
        typer.Option("--steady-state/--generational", help="Never wait for a generation."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="star: the settings of the paper.")] = None,
    seed_programs: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A program to start from; repeatable."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds that an evaluation may take.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of an evaluation, such as 4G.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, max=LARGE, help="Tokens that caches are costed at.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, max=LARGE, help="No program grows beyond so many units.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="FILE", help="Evaluations that searches share.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it costs.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in RUN.")] = False,
    as_json: Json = False,
    model: ModelName = None,
    set_: Set = None,
) -> None:
    """Search a space for programs that are best in several objectives.

    Says what that will cost before it starts. What was found is kept in RUN, whatever happens;
    --resume goes on exactly where it stopped. Options of algorithms and evaluators follow their
    names: --evaluator lm,tokens=1M,length=256 --algorithm nsga2,mutation=0.2.

    \b
    Example: starc search space.star --out runs/first --objectives quality,cache_bytes
    """
    from starc.cli.searching import Request, search_command
    from starc.compiler.options import Options
    from starc.grammar.library import read_source
    from starc.search.engines import EngineRequest
    from starc.search.variation import alone

    options = options_of(model, set_)
    seeds = [(file, alone(read_source(file), Options())) for file in seed_programs or ()]
    given = {
        "algorithm": algorithm,
        "population": population,
        "generations": generations,
        "evaluations": evaluations,
        "objectives": None if objectives is None else tuple(objectives.split(",")),
        "constraints": tuple(constraint) if constraint else None,
        "evaluator": evaluator,
        "data": data,
        "seed": seed,
        "steady": steady_state,
        "seed_programs": tuple(seeds) or None,
        "seconds": timeout,
        "memory": None if memory is None else _bytes(memory),
        "length": length,
        "units": units,
        "model": model,
        "overrides": options.overrides or None,
    }
    wanted = EngineRequest(engine, address, cpus, gpus)
    request = Request(space, out, given, preset, workers, cache, dry_run, resume, as_json, wanted)
    raise typer.Exit(search_command(request))


def _bytes(text: str) -> int:
    """A size such as 4G; raises StarError for what is none."""
    from starc.grammar.errors import Diagnostic, StarError
    from starc.search.settings import parse_option

    size = parse_option(text)
    if isinstance(size, str | bool) or not 1 <= size < 2**63:
        message = f"'{text}' is no size of memory."
        raise StarError(Diagnostic("wrong-argument", message, hint="write --memory 4G."))
    return int(size)


def _check_level(level: str | None) -> None:
    """Refuse a level that mutations do not have."""
    from starc.grammar.errors import Diagnostic, StarError
    from starc.search.mutate import LEVELS

    if level is not None and level not in LEVELS:
        message = f"there is no level '{level}'."
        raise StarError(
            Diagnostic("wrong-argument", message, hint=f"levels are {', '.join(LEVELS)}.")
        )
