"""The compiler from end to end: text in, artifact out.

Owns: the order of the stages. Refuses: the work of any of them, files and the terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from starc.compiler.digest import digest
from starc.compiler.inventory import model_parameters
from starc.compiler.ir import Model
from starc.compiler.kernel_plan import KernelPlan
from starc.compiler.options import Limits, Options
from starc.compiler.passes import PIPELINE
from starc.compiler.printer import print_model
from starc.compiler.program import Linked, choose_model, link, parse_limited
from starc.compiler.resolve import resolve_model
from starc.compiler.verify import verify
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source, Span

Watch = Callable[[str, Model], None]
"""Called after every pass with its name and result."""


@dataclass(frozen=True)
class Artifact:
    """A generated Python file: `text`, the name of its model, the digest of what it means."""

    model_name: str
    text: str
    digest: str
    warnings: tuple[Diagnostic, ...]
    kernels: tuple[KernelPlan, ...] = ()
    """The Triton kernels in the file; equal ones stand there once."""


def resolve_source(source: Source, options: Options) -> tuple[Model, tuple[Diagnostic, ...]]:
    """Parse, link and resolve: the model's IR before any pass, and warnings about it."""
    return _resolve(link(parse_limited(source, options.limits), options.limits), options)


def _resolve(linked: Linked, options: Options) -> tuple[Model, tuple[Diagnostic, ...]]:
    chosen = choose_model(linked, options)
    model, warnings = resolve_model(chosen, linked.operators, options.limits)
    _check_size(model, options.limits, chosen.name_span)
    source = linked.program.source
    return model, tuple(w for w in warnings if w.span is None or w.span.source == source)


def _check_size(model: Model, limits: Limits, span: Span) -> None:
    size = sum(p.size for p in model_parameters(model).values())
    if size > limits.parameters:
        raise StarError(
            Diagnostic(
                "too-many-parameters",
                f"model '{model.name}' has {size:,} parameters; "
                f"the limit is {limits.parameters:,}.",
                span,
                hint="raise the limit with --max-parameters.",
            )
        )


def run_passes(model: Model, watch: Watch | None = None) -> Model:
    """The model after every pass, verified after each."""
    verify(model, "resolve")
    for name, run in PIPELINE:
        before, model = model, run(model)
        verify(model, name, before)
        if watch:
            watch(name, model)
    return model


def identity(model: Model) -> str:
    """The digest of a resolved model, which says whether two programs mean the same."""
    for name, run in PIPELINE:
        model = run(model)
        if name == "drop_unused":
            break
    return digest(model)


def compile_program(source: Source, options: Options, watch: Watch | None = None) -> Artifact:
    """Compile one model of a program.

    Raises StarError with every fault of the first stage that has one.
    """
    from starc.compiler.emit import emit
    from starc.compiler.lower import lower

    model, warnings = resolve_source(source, options)
    identity = ""

    def observe(name: str, after: Model) -> None:
        nonlocal identity
        if name == "drop_unused":
            identity = digest(after)
        if watch:
            watch(name, after)

    model = run_passes(model, observe)
    plan = lower(model, identity, source.text)
    text = emit(plan, format=options.format)
    return Artifact(model.name, text, identity, warnings, plan.kernels)


def check_program(source: Source, options: Options) -> tuple[Diagnostic, ...]:
    """Everything short of rendering; the warnings. Raises StarError.

    Without a chosen model all are checked; a library without models is only linked.
    """
    linked = link(parse_limited(source, options.limits), options.limits)
    models = [m.name for m in linked.models]
    if options.model is not None or (not models and not linked.operators):
        models = [options.model or ""]
    warnings: dict[Diagnostic, None] = {}
    failures: dict[Diagnostic, None] = {}
    for name in models:
        try:
            model, found = _resolve(linked, replace(options, model=name or None))
            run_passes(model)
            warnings.update(dict.fromkeys(found))
        except StarError as failure:
            failures.update(dict.fromkeys(failure.diagnostics))
    if failures:
        raise StarError(failures)
    return tuple(warnings)


def show(source: Source, options: Options, stage: str, device: str = "H100") -> str:
    """A stage as text: nodes, ir (after resolve), plan, or kernels on a device (for the context of
    the model); `print_after` adds passes."""
    if stage == "nodes":
        return _pretty(parse_limited(source, options.limits))
    model, _ = resolve_source(source, options)
    shown: list[str] = []
    wanted = set(options.print_after)
    unknown = wanted - {name for name, _ in PIPELINE}
    if unknown:
        known = ", ".join(name for name, _ in PIPELINE)
        raise StarError(
            Diagnostic(
                "wrong-argument", f"there is no pass '{min(unknown)}'.", hint=f"passes are {known}."
            )
        )

    def watch(name: str, after: Model) -> None:
        if name in wanted:
            shown.append(f"# after {name}\n{print_model(after)}")

    if stage == "ir" and not wanted:
        return print_model(model)
    model = run_passes(model, watch)
    if stage == "plan":
        from starc.compiler.lower import lower

        shown.append(_pretty(lower(model, digest(model), "")))
    elif stage == "kernels":
        from starc.compiler.kernel_roofline import find_device, kernel_table
        from starc.compiler.lower import lower

        kernels = lower(model, digest(model), "").kernels
        shown.append(kernel_table(kernels, find_device(device), tokens=model.context))
    return "\n".join(shown)


def _pretty(value: object) -> str:
    from pprint import pformat

    return pformat(value, width=100, sort_dicts=False) + "\n"
