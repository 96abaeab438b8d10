"""Arguments that several commands share, and what they make of them.

Owns: the words, limits and help of shared options. Refuses: heavy imports, and commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from starc.grammar.errors import Diagnostic, StarError

if TYPE_CHECKING:
    from starc.compiler.options import Options

LARGE = 2**63 - 1
"""The largest seed."""

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
Width = Annotated[int | None, typer.Option(min=1, help="Channels of the stream.")]
UnitCount = Annotated[
    int | None, typer.Option(min=1, help="Units, repeats unrolled; the nearest possible.")
]
RepeatCount = Annotated[
    int | None, typer.Option(min=1, help="The count of every outermost repeat.")
]
Vocab = Annotated[int | None, typer.Option(min=1, help="Entries of the vocabulary.")]
Context = Annotated[int | None, typer.Option(min=1, help="Tokens of a sequence.")]
ParameterCount = Annotated[
    int | None, typer.Option(min=1, help="Parameters, in place of --width: the nearest possible.")
]
ProgramOutput = Annotated[
    str, typer.Option("-o", "--output", metavar="OUT", help="The program to write.")
]
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


def options_of(
    model: str | None,
    overrides: list[str] | None,
    units: int | None = None,
    parameters: int | None = None,
    characters: int | None = None,
    nesting: int | None = None,
    depth: int | None = None,
    values: int | None = None,
) -> Options:
    """The compiler's options; raises StarError for an override that is none."""
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
