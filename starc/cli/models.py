"""Commands about models: train, generate, evaluate, tokenize, tokenizer, import, distill.

Owns: their arguments and help. Refuses: heavy imports at the top, and the work itself.
"""

from __future__ import annotations

from typing import Annotated

import typer

from starc.cli.arguments import (
    LARGE,
    File,
    Json,
    MaxCharacters,
    MaxDepth,
    MaxNesting,
    MaxParameters,
    MaxUnits,
    MaxValues,
    ModelName,
    Set,
    options_of,
)


def train(
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run.")],
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A .star program; not needed to resume.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|stdlib|hf:NAME|task:NAME",
            help="A text, a folder of texts or of tokens, Python's library, a data set, a task.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A tokenizer's JSON file; default: tokens are bytes."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=2**31, help="Sequences a step; default: 4,096 tokens, 128 of a task."
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sequence; default: context, at most 512.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate at width 128; default 4e-3.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGE, help="Weights and batches; default 0.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Default: a GPU if there is one.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="auto|fp32|bf16", help="Default: the faster one here, measured."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="cosine|wsd|constant", help="Of the learning rate; default cosine."),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts of a batch, computed one after the other.")
    ] = None,
    stop_accuracy: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Stop when so much of the held-out data is right."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many validations without a lower loss."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write RUN/tensorboard as well.")
    ] = False,
    save_seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN from its checkpoint.")
    ] = False,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Take part in the processes of a launcher.")
    ] = False,
    model: ModelName = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Train a program on text, or on a synthetic task.

    The run is saved as it goes, and on Ctrl-C; --resume goes on exactly where it stopped.
    docs/training.md describes runs, schedules and tasks.

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
        "schedule": schedule,
        "accumulate": accumulate,
        "stop_accuracy": stop_accuracy,
        "patience": patience,
    }
    options = options_of(model, set_)
    status = train_command(
        Request(
            file,
            out,
            options,
            asked,
            resume=resume,
            save_seconds=save_seconds,
            as_json=as_json,
            tokenizer=tokenizer,
            tensorboard=tensorboard,
            distributed=distributed,
        )
    )
    if status:
        raise typer.Exit(status)


def generate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")],
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option(min=0, help="Tokens to generate.")] = 400,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 safer, above 1 wilder, 0 the likeliest.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k likeliest; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest with this share.")
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGE, help="The same seed gives the same text.")
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


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH|stdlib|hf:NAME", help="Another text than the run's own."),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="validation|test", help="Which held-out part.")
    ] = "validation",
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a window; default: as in training.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="At most so many tokens, spread over the part.")
    ] = 1
    << 20,
    rare: Annotated[
        int, typer.Option(min=0, help="A pair more frequent in training needs no recall.")
    ] = 1250,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to run.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|bf16", help="Default: as in training.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a trained run on held-out text.

    Prints bits per byte, and perplexity by what a token needs: recall from its context, or not,
    and how much context it has.

    \b
    Example: starc evaluate runs/hybrid --split test
    """
    from starc.cli.text import evaluate_command

    evaluate_command(run, data, split, length, tokens, rare, device, precision, as_json=as_json)


def tokenize(
    data: Annotated[
        str, typer.Argument(metavar="PATH|stdlib|hf:NAME", help="The text, as for train.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    tokenizer: Annotated[
        str, typer.Option(metavar="bytes|FILE", help="A tokenizer's JSON file.")
    ] = "bytes",
    shard_megabytes: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="The size of one file of tokens.")
    ] = 256,
    as_json: Json = False,
) -> None:
    """Write a text as a folder of tokens, which training maps into memory.

    For texts larger than memory, or to tokenise once. DIR is whole or not there.

    \b
    Example: starc tokenize texts --tokenizer tok.json --out texts.tokens
    """
    from starc.cli.text import tokenize_command

    tokenize_command(data, tokenizer, out, shard_megabytes << 20, as_json=as_json)


tokenizer = typer.Typer(no_args_is_help=True, help="Make tokenizers.")


@tokenizer.callback()
def _tokenizer() -> None:
    """Without this, a group of one command would be the command."""


@tokenizer.command("train")
def train_tokenizer(
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT.json", help="The file to write.")
    ],
    data: Annotated[
        str, typer.Option(metavar="PATH|stdlib|hf:NAME", help="The text, as for train.")
    ] = "stdlib",
    vocab: Annotated[int, typer.Option(min=1, max=1 << 24, help="Tokens at most.")] = 4096,
) -> None:
    """Train a byte-level BPE on the training part of a text.

    \b
    Example: starc tokenizer train --data stdlib --vocab 4096 -o tok.json
    """
    from starc.cli.text import train_tokenizer_command

    train_tokenizer_command(data, vocab, output)


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
    options = options_of(model, set_, *limits)
    request = importing.Request(program, *from_, map_, output, options, dtype)
    (importing.list_command if list_ else importing.import_command)(request)


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

    options = options_of(model, set_)
    distill_command(file, order, options, weights, output, steps=steps, seed=seed, as_json=as_json)
