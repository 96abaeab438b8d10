"""`starc tokenize`, `starc tokenizer train`, `starc evaluate`: from arguments to what is printed.

Owns: what is printed, and which corpus and tokenizer a run is judged with.
Refuses: tokens and losses themselves.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from starc.cli import complain
from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import run as runs
from starc.runtime.corpus import Corpus, open_corpus, tokenize
from starc.runtime.data import Score
from starc.runtime.device import memory_errors, pick_device
from starc.runtime.documents import find, pieces
from starc.runtime.evaluation import Report, examine, perplexity
from starc.runtime.files import write_atomic
from starc.runtime.shards import PARTS, Part
from starc.runtime.sources import require_text
from starc.runtime.tokenizer import open_tokenizer, train_tokenizer

SHOWN_SECONDS = 1.0


def tokenize_command(
    data: str, tokenizer: str, out: str, shard_bytes: int, *, as_json: bool
) -> None:
    """Write a folder of tokens and say what is in it."""
    try:
        corpus = tokenize(
            data, open_tokenizer(tokenizer), Path(out), shard_bytes=shard_bytes, observe=_Counter()
        )
    except OSError as error:
        raise _error("cannot-write", f"cannot write '{out}': {error.strerror or error}.") from error
    if as_json:
        parts = {name: _figures(corpus.part(name)) for name in PARTS}
        print(json.dumps({"folder": out, "vocab": corpus.vocab, "parts": parts}, indent=2))
        return
    print(f"{out}: {corpus.vocab:,} tokens in the vocabulary, {corpus.tokenizer.name}")
    print(f"{'part':10}  {'documents':>10}  {'tokens':>14}  {'bytes':>14}  bytes per token")
    for name in PARTS:
        part = corpus.part(name)
        print(
            f"{name:10}  {len(part.ends):10,}  {len(part):14,}  {part.text_bytes:14,}  "
            f"{part.bytes_per_token:15.3f}"
        )
    print(
        f"train on it: starc train FILE --data {out} --set vocab={corpus.vocab} --steps N --out RUN"
    )


def train_tokenizer_command(data: str, vocab: int, out: str) -> None:
    """Train a tokenizer on the training part of a corpus and write it."""
    texts = (piece.content for piece in pieces(find(data)) if piece.part == "train")
    made = train_tokenizer(texts, vocab, out)
    try:
        write_atomic(Path(out), made.to_json())
    except OSError as error:
        reason = error.strerror or str(error)
        raise _error("cannot-write", f"cannot write '{out}': {reason}.") from error
    held_out = [piece.content for piece in pieces(find(data)) if piece.part == "validation"]
    count = sum(map(len, made.encode(held_out)))
    size = sum(map(len, held_out))
    ratio = f", {size / count:.3f} bytes per token of held-out text" if count else ""
    print(f"{out}: {made.vocab:,} tokens{ratio}")


def evaluate_command(
    folder: str,
    data: str | None,
    split: str,
    length: int | None,
    tokens: int,
    rare: int,
    device: str,
    precision: str | None,
    *,
    as_json: bool,
) -> None:
    """Judge a trained run on held-out text and print the report."""
    if split not in ("validation", "test"):
        raise _error("bad-split", f"there is no held-out part '{split}'.", "validation or test.")
    run = runs.open_run(Path(folder))
    require_text(run)
    context = run.module().CONFIG["context"]
    length = length or run.settings.length
    if length > context:
        raise _error(
            "length-beyond-context",
            f"the length {length:,} is beyond the model's context of {context:,}.",
            f"give --length {context} or less.",
        )
    precision = precision or run.settings.precision
    if precision not in ("fp32", "bf16"):
        raise _error("bad-precision", f"there is no precision '{precision}'.", "fp32 or bf16.")
    corpus, learnt = _corpora(run, data)
    model = runs.trained_model(run, pick_device(device))
    with memory_errors():
        report = examine(
            model,
            corpus,
            "test" if split == "test" else "validation",
            length=length,
            limit=max(1, tokens // length),
            learnt=learnt,
            rare=rare,
            precision=precision,
        )
    if as_json:
        print(json.dumps({"run": folder, "data": corpus.name, **report.to_dict()}, indent=2))
    else:
        _print(report, corpus, rare)


def _corpora(run: runs.Run, data: str | None) -> tuple[Corpus, Part | None]:
    """What a run is judged with, in its own tokens, and what it learnt from, if it is there."""
    own = run.settings.data
    if data is not None and data != own:
        corpus = open_corpus(data, run.tokenizer())
        try:
            learnt = open_corpus(own, run.tokenizer())
        except StarError:
            complain(f"the text that the run learnt from, '{own}', cannot be read any more\n")
            return corpus, None
        return corpus, learnt.train if learnt.digest == run.data_digest else None
    corpus = open_corpus(own, run.tokenizer())
    if corpus.digest != run.data_digest:
        raise _error(
            "data-changed",
            f"'{own}' is not the data that the run in '{run.folder}' began with: what was held out "
            "may have been learnt.",
            "bring the old data back, or judge the run on another text with --data.",
        )
    return corpus, corpus.train


def _print(report: Report, corpus: Corpus, rare: int) -> None:
    score = report.score
    print(
        f"{corpus.name}, {report.split}: {score.scored:,} tokens in {report.windows:,} windows of "
        f"{report.length:,}, {report.bytes_per_token:.3f} bytes per token\n"
        f"{report.bits(score):.4f} bits per byte, perplexity {perplexity(score):.3f}, "
        f"{score.accuracy:.1%} right\n"
    )
    rows = [
        (f"  {least}" if least == most else f"  {least} to {most}", found)
        for least, most, found in report.positions
    ]
    split: list[tuple[str, Score]] = []
    if report.recall is not None and report.other is not None:
        split = [("recall hits", report.recall), ("other tokens", report.other)]
    print(f"{'':22}  {'tokens':>12}  share  perplexity  bits per byte   right")
    for name, found in split:
        _print_row(name, found, report)
    if not split:
        print("recall hits are unknown without the text that the run learnt from")
    print("tokens of context")
    for name, found in rows:
        _print_row(name, found, report)
    if split:
        print(
            "recall hits: the pair with the token before stands earlier in the window, and at most "
            f"{rare:,} times in the training text"
        )


def _print_row(name: str, score: Score, report: Report) -> None:
    share = score.scored / report.score.scored
    if not score.scored:
        print(f"{name:22}  {0:12}  {share:5.1%}")
        return
    print(
        f"{name:22}  {score.scored:12,}  {share:5.1%}  {perplexity(score):10.3f}  "
        f"{report.bits(score):13.4f}  {score.accuracy:6.1%}"
    )


def _figures(part: Part) -> dict[str, Any]:
    return {
        "documents": len(part.ends),
        "tokens": len(part),
        "text_bytes": part.text_bytes,
        "bytes_per_token": part.bytes_per_token,
    }


class _Counter:
    """A line on a terminal that counts the text done."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()

    def __call__(self, size: int) -> None:
        now = time.monotonic()
        if sys.stderr is None or not sys.stderr.isatty() or now - self._shown < SHOWN_SECONDS:
            return
        self._shown = now
        speed = size / 1e6 / (now - self._began)
        sys.stderr.write(f"\r{size / 1e6:,.0f} MB read, {speed:,.1f} MB/s \r")
        sys.stderr.flush()


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
