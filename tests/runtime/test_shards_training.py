"""Training on mapped files: the run that memory would give, cut and resumed or not."""

from __future__ import annotations

import json
from pathlib import Path

from starc.runtime import run as runs
from starc.runtime.corpus import Corpus, open_corpus, tokenize
from starc.runtime.run import Run, Settings
from starc.runtime.tokenizer import ByteTokenizer
from starc.runtime.train import train

TINY = (Path(__file__).parent / "fixtures" / "tiny.py").read_text()
SETTINGS = Settings(
    data="texts",
    steps=8,
    batch=4,
    length=16,
    learning_rate=1e-2,
    warmup=2,
    validate_every=4,
    validation_tokens=256,
)


def make(folder: Path, corpus: Corpus) -> Run:
    return runs.create(
        folder,
        program="model tiny { }",
        module_text=TINY,
        data_digest=corpus.digest,
        settings=SETTINGS,
        tokenizer=corpus.tokenizer,
    )


def losses(run: Run) -> list[float]:
    entries = map(json.loads, run.metrics_path.read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_a_run_on_mapped_files_is_cut_and_goes_on_as_in_memory(tmp_path: Path):
    (tmp_path / "text").write_text("the cat sat on the mat and the dog sat on the log. " * 60)
    plain = open_corpus(str(tmp_path / "text"))
    unbroken = make(tmp_path / "unbroken", plain)
    train(unbroken, plain)

    written = tokenize(plain.name, ByteTokenizer(), tmp_path / "tokens", shard_bytes=100)
    cut = make(tmp_path / "cut", written)
    asked = iter([False] * 5 + [True] * 9)
    assert train(cut, written, should_stop=lambda: next(asked)).status == "interrupted"
    assert len(losses(cut)) == 5
    again = runs.open_run(tmp_path / "cut")
    assert train(again, open_corpus(written.name, again.tokenizer())).status == "finished"
    assert losses(again) == losses(unbroken)
    assert not (tmp_path / "cut" / "tokenizer.json").exists()
