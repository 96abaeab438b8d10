"""Processes that train beside each other.

Owns: starting them, sending them calls, and what comes back: answers, progress, faults.
Refuses: knowing what a call is for; a worker finds functions by name in a module of starc.

A worker is `python -m starc.runtime.workers`, not a fork and no copy of the caller's main module.
Calls and answers are pickles through its standard input and output, between a process and its own
child. A worker whose caller is gone reads the end of its input and stops as if it were told to.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Literal

from starc.grammar.errors import Diagnostic, StarError

Kind = Literal["answer", "progress", "refused", "failed", "gone"]


@dataclass(frozen=True)
class Message:
    """What worker `worker` says: `refused` carries diagnostics, `failed` and `gone` a text."""

    worker: int
    kind: Kind
    value: Any


class Workers:
    """`count` processes of `threads` threads each; leaving the context ends them."""

    def __init__(self, count: int, threads: int) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "starc.runtime.workers", str(threads)]
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            for _ in range(count)
        ]
        self._listeners = []
        for i, process in enumerate(self._processes):
            assert process.stdout is not None
            listener = threading.Thread(target=self._listen, args=(i, process.stdout), daemon=True)
            listener.start()
            self._listeners.append(listener)

    def __len__(self) -> int:
        return len(self._processes)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if error is not None:
                process.terminate()
            assert process.stdin is not None
            try:
                process.stdin.close()
            except OSError:
                pass  # it is gone already
        for listener in self._listeners:  # each waits for the end of its process
            listener.join()

    def call(self, worker: int, function: str, *arguments: Any) -> None:
        """Have a worker call `module:function` of starc; its messages tell how that goes.

        Raises StarError for arguments that cannot be sent.
        """
        try:
            call = pickle.dumps((function, arguments))
        except Exception as error:  # whatever an object's own pickling raises
            raise _error("cannot-send", f"a worker cannot be given this data: {error}.") from error
        self._send(worker, call)

    def stop(self) -> None:
        """Ask all workers to stop what they do at the next step; they still answer."""
        for worker in range(len(self)):
            self._send(worker, pickle.dumps(None))

    def receive(self, seconds: float) -> Message | None:
        """The next message, or None when there is none for so long."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def answers(self, function: str, *arguments: Any) -> list[Any]:
        """What all workers answer to the same call, made at once.

        Raises StarError for the first that does not.
        """
        for worker in range(len(self)):
            self.call(worker, function, *arguments)
        found: dict[int, Any] = {}
        while len(found) < len(self):
            message = self._messages.get()
            if message.kind != "progress":
                found[message.worker] = answer(message)
        return [found[i] for i in range(len(self))]

    def _send(self, worker: int, call: bytes) -> None:
        stream = self._processes[worker].stdin
        assert stream is not None
        try:
            stream.write(call)
            stream.flush()
        except OSError:
            pass  # it is gone, which its listener says

    def _listen(self, worker: int, stream: IO[bytes]) -> None:
        with stream:
            for kind, value in _read(stream):
                self._messages.put(Message(worker, kind, value))
        status = self._processes[worker].wait()
        self._messages.put(Message(worker, "gone", f"a worker ended with status {status}"))


def answer(message: Message) -> Any:
    """The answer that a message carries; raises StarError when it is none."""
    if message.kind == "answer":
        return message.value
    if message.kind == "refused":
        raise StarError(message.value)
    raise _error("worker-failed", f"{message.value}.", "what was saved is there: try again.")


def _read(stream: IO[bytes]) -> Iterator[Any]:
    """Objects until the stream ends, wherever it is cut."""
    while True:
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError, OSError):
            return


def serve(threads: int) -> None:
    """Answer calls from standard input until it ends."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to act on
    torch.set_num_threads(threads)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed must not stand among the answers
    calls: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()

    def listen() -> None:
        try:
            for call in _read(sys.stdin.buffer):
                if call is None:
                    stopped.set()
                else:
                    calls.put(call)
        except Exception as error:  # whatever it takes to make a foreign object
            calls.put(error)
        stopped.set()
        calls.put(None)

    def say(kind: Kind, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    threading.Thread(target=listen, daemon=True).start()
    while (call := calls.get()) is not None:
        try:
            if isinstance(call, Exception):
                raise call
            name, arguments = call
            function = _function(name)
            say(
                "answer", function(*arguments, lambda value: say("progress", value), stopped.is_set)
            )
        except BrokenPipeError:
            return
        except StarError as error:
            say("refused", error.diagnostics)
        except Exception as error:
            say("failed", f"{type(error).__name__}: {error}")


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
