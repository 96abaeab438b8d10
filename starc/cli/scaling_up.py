"""`starc scale-up`: a program of a search at another size, with its costs before and after.

Owns: finding the member, and the table. Refuses: resizing (compiler/resize.py) and counting
(compiler/cost.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starc.cli import complain, files
from starc.compiler.cost import cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.fitting import fit_parameters
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.report.words import NONE, shown
from starc.search.store import Store

_ROWS = (
    ("width", "width", ""),
    ("units", "units", ""),
    ("vocabulary", "vocab", ""),
    ("context", "context", ""),
    ("parameters", "parameters", ""),
    ("parameters that a token uses", "active_parameters", ""),
    ("cache", "cache_bytes", "bytes"),
    ("FLOPs, training step", "flops_train", ""),
    ("FLOPs, reading a prompt", "flops_prefill", ""),
    ("FLOPs, decoding a token", "flops_decode", ""),
)


@dataclass(frozen=True)
class Sizes:
    """What was asked for; None leaves it as it is."""

    width: int | None
    units: int | None
    repeat: int | None
    vocab: int | None
    context: int | None
    parameters: int | None


def scale_up_command(
    run: Path,
    number: int,
    sizes: Sizes,
    *,
    output: str,
    length: int | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Write member `number` at another size and print its costs; raises StarError."""
    text = program_of(run, number)
    source = Source(f"member {number} of {run}", text)
    found = _resized(source, sizes)
    length = length or resolve_source(found, Options())[0].context
    before, after = (_costs(s, length, dtype) for s in (source, found))
    if as_json:
        if output != files.STANDARD:
            files.write_text(output, found.text)
        report = {"member": number, "length": length, "dtype": dtype}
        print(
            json.dumps(
                {**report, "found": before, "scaled": after, "program": found.text}, indent=2
            )
        )
        return
    files.write_text(output, found.text)
    table = _table(f"member {number}", before, after, length, dtype)
    if output == files.STANDARD:
        complain(table)
    else:
        print(table, end="")


def program_of(run: Path, number: int) -> str:
    """The text of a member; raises StarError when the search has none of that number."""
    with Store.read(run) as store:
        proposals = store.proposals()
        for proposal in proposals:
            if proposal.number == number:
                texts = {row.id: row.text for row in store.programs()}
                return texts[proposal.program]
    last = proposals[-1].number if proposals else None
    raise StarError(
        Diagnostic(
            "no-such-member",
            f"the search in '{run}' has no member {number}.",
            hint="it has none yet." if last is None else f"members are numbered 0 to {last}.",
        )
    )


def _resized(source: Source, sizes: Sizes) -> Source:
    if sizes.parameters is not None:
        if sizes.width is not None:
            raise StarError(
                Diagnostic("wrong-argument", "--width and --parameters both set the width.")
            )
        return fit_parameters(
            source,
            Options(),
            parameters=sizes.parameters,
            units=sizes.units,
            repeat=sizes.repeat,
            vocab=sizes.vocab,
            context=sizes.context,
        ).source
    return resize(
        source,
        Options(),
        width=sizes.width,
        units=sizes.units,
        repeat=sizes.repeat,
        vocab=sizes.vocab,
        context=sizes.context,
    )


def _costs(source: Source, length: int, dtype: str) -> dict[str, Any]:
    model, _ = resolve_source(source, Options())
    report = cost_report(model, length=length, dtype=dtype)
    costs = {name: getattr(report, name) for _, name, _ in _ROWS[4:]}
    return {
        "width": model.width,
        "units": model.depth,
        "vocab": model.vocab,
        "context": model.context,
        **costs,
    }


def _table(
    name: str, before: dict[str, Any], after: dict[str, Any], length: int, dtype: str
) -> str:
    lines = [f"{name}, one sequence of {length:,} tokens, cache in {dtype}"]
    lines.append(f"{'':30}{'found':>12}{'scaled':>12}{'times':>9}")
    for title, key, unit in _ROWS:
        a, b = before[key], after[key]
        times = f"{b / a:,.{0 if b >= 100 * a else 1}f}" if a else NONE
        lines.append(f"{title:30}{_spelt(a, unit):>12}{_spelt(b, unit):>12}{times:>9}")
    return "\n".join(lines) + "\n"


def _spelt(value: int, unit: str) -> str:
    return shown(value, unit) if unit or value >= 100_000 else f"{value:,}"
