"""A process that trains a run in children and kills them; test_killing.py starts it.

Arguments: the folder of an opened run, the task's name, how many children to SIGKILL and how many
to SIGTERM. Forking after the imports spares each child the seconds that torch takes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # which the first optimiser would import, in every child

from starc.cli.signals import stop_on_signals
from starc.runtime import run as runs
from starc.runtime.sources import open_data
from starc.runtime.train import train


def child(folder: Path, data: str) -> int:
    """Train in a process of its own, saving after every other step; its id."""
    pid = os.fork()
    if not pid:
        status = 70
        try:
            with stop_on_signals() as stop:
                run = runs.open_run(folder)
                result = train(run, open_data(data), should_stop=lambda: bool(stop), save_steps=2)
            status = {"finished": 0, "interrupted": 30}.get(result.status, 71)
        finally:
            os._exit(status)
    return pid


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    torch.set_num_threads(1)
    folder, data, kills, terms = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    rng = random.Random(7)
    order = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    rng.shuffle(order)
    metrics = folder / "metrics.jsonl"
    for number in order:
        pid = child(folder, data)
        # Wait for a few steps, from where the newest checkpoint left the record, and then for a
        # moment anywhere within a step or the writing of a checkpoint.
        until = rng.randint(2, 14)
        before, most = lines(metrics), time.monotonic() + 60
        while lines(metrics) < before + until and time.monotonic() < most:
            before = min(before, lines(metrics))
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.01)
        os.kill(pid, number)
        _, how = os.waitpid(pid, 0)
        ended = "signal" if os.WIFSIGNALED(how) else f"exit {os.waitstatus_to_exitcode(how)}"
        print(number.name, ended, lines(metrics), flush=True)
    _, how = os.waitpid(child(folder, data), 0)
    print("finally", os.waitstatus_to_exitcode(how))


main()
