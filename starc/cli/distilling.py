"""`starc distill`: long filters of a program become sums of exponentials.

Owns: what the command writes and prints. Refuses: the work itself (starc/distilling.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from starc.cli import complain, files
from starc.cli.importing import save_tensors
from starc.compiler.options import Options
from starc.distilling import distill
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source


def distill_command(
    file: str,
    order: int,
    options: Options,
    weights: str | None,
    output: str | None,
    *,
    steps: int,
    seed: int,
    as_json: bool,
) -> None:
    """Write OUT.star, OUT.py and OUT.safetensors, and print the error of every filter."""
    if output is None or not output.endswith(".star"):
        raise StarError(
            Diagnostic(
                "missing-argument",
                "'starc distill' needs -o OUT.star.",
                hint="the module and its weights go to OUT.py and OUT.safetensors.",
            )
        )
    files.refuse_overwriting_program(file, output)
    found = distill(read_source(file), order, options, weights, steps=steps, seed=seed)
    target = Path(output)
    files.write_text(str(target), found.text)
    files.write_text(str(target.with_suffix(".py")), found.artifact.text)
    metadata = {
        "format": "pt",
        "model": found.artifact.model_name,
        "digest": found.artifact.digest,
    }
    save_tensors(found.tensors, target.with_suffix(".safetensors"), metadata)
    if as_json:
        filters = [asdict(f) for f in found.filters]
        print(json.dumps({"order": order, "filters": filters, "logits": found.logits}, indent=2))
        return
    width = max(len("filter"), *(len(f.name) for f in found.filters))
    print(f"{'filter':{width}}  lanes  mean error  max error   (relative, over the context)")
    for f in found.filters:
        print(f"{f.name:{width}}  {f.lanes:5}  {f.mean:10.2e}  {f.largest:9.2e}")
    print(f"largest difference of logits: {found.logits:.2e} of the largest logit")
    complain(f"wrote {target}, {target.with_suffix('.py')}, {target.with_suffix('.safetensors')}\n")
