"""The command line: which commands there are.

Owns: the order in which they are listed. Refuses: their arguments, which stand with them, and heavy
imports (`starc compile` loads neither torch nor rich).
"""

from __future__ import annotations

from typing import Annotated

import typer

from starc import __version__
from starc.cli import evolution, experiments, kernels, language, models, reports

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # both keep typer from importing rich
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


for name, command in (
    ("check", language.check),
    ("fmt", language.fmt),
    ("compile", language.compile_),
    ("show", language.show),
    ("cost", language.cost),
    ("resize", language.resize_),
    ("train", models.train),
    ("generate", models.generate),
    ("evaluate", models.evaluate),
    ("tokenize", models.tokenize),
    ("import", models.import_),
    ("distill", models.distill_),
    ("sample", evolution.sample),
    ("mutate", evolution.mutate),
    ("search", evolution.search),
    ("mad", experiments.mad),
    ("scale", experiments.scale),
    ("report", reports.report),
    ("watch", reports.watch),
    ("scale-up", reports.scale_up),
):
    app.command(name)(command)

app.add_typer(evolution.genome, name="genome")
app.add_typer(kernels.kernels, name="kernels")
app.add_typer(models.tokenizer, name="tokenizer")
