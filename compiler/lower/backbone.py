"""Backbone of the IR to Block classes and the class Model.

A body that repeats becomes a class of its own; bodies that say the same share it. Features that
later units read, and values computed once for all units, travel as arguments.

Owns: residual lines, repeats, loops, parallel branches, ties. Refuses: the inside of operators.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from starc.compiler.cost import CostModel
from starc.compiler.ir import (
    STREAM,
    FeatureRef,
    Layer,
    Loop,
    Model,
    Norm,
    Operator,
    Parallel,
    Repeat,
    Residual,
    Unit,
    parallels,
    streams_read,
    units,
)
from starc.compiler.lower.depth import gate_module, hyper_module
from starc.compiler.lower.functions import Functions, is_reserved
from starc.compiler.lower.kernels import add_norm
from starc.compiler.lower.modules import norm_module
from starc.compiler.lower.operator import Ambient, Lowered, OperatorLowering
from starc.compiler.lower.residuals import FormulaLowering
from starc.compiler.naming import Names
from starc.compiler.plan import Line, ModuleClass


def class_names(model: Model, names: Names) -> dict[str, str]:
    """CamelCase names of the operators' classes."""
    found = {}
    for operator in model.operators:
        words = re.split(r"_+", operator.name)
        name = "".join(w[:1].upper() + w[1:] for w in words if w) or "Operator"
        found[operator.name] = names.take(name + "Operator" if is_reserved(name) else name)
    return found


_BLOCK_DOC = ("One iteration of the repeat.",)
_LOOP_DOC = ("One application of the loop's body; set `times` for another number of them.",)


@dataclass
class Scope:
    """A class under construction: Model itself or a Block."""

    path: str
    init: list[Line] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    """Arguments that come from outside: name -> type."""
    locals: dict[tuple[str, str], str] = field(default_factory=dict)
    """(unit path, feature) -> local variable, for units of this scope."""
    cache: list[tuple[str, str]] = field(default_factory=list)
    """(name, expression) of what its parts keep while decoding."""


class Backbone:
    """Lowers the layers of a model."""

    def __init__(self, model: Model, functions: Functions) -> None:
        self.model, self.functions = model, functions
        self.classes: list[ModuleClass] = []
        self.operators: dict[str, Lowered] = {}
        """By path of the unit: units of one operator that keep the same have one class."""
        self._blocks: dict[ModuleClass, str] = {}
        self._variables: dict[tuple[str, str], str] = {}
        self._variable_names = Names(
            frozenset("x block read kept beta streams depths average".split())
        )
        self._class_names = functions.names
        functions.function("module/unit", "Unit")
        self._units = {unit.path: unit for unit in units(model.layers)}
        self._names = {place.path: place.name for place in parallels(model.layers)}
        self._names |= {path: unit.name for path, unit in self._units.items()}
        self._streams = streams_read(model.layers)
        self._costs = CostModel()
        self._layouts = self._costs.layouts(model)
        for operator_name, class_name in class_names(model, self._class_names).items():
            self._lower_operator(model.operator(operator_name), class_name)

    def _lower_operator(self, operator: Operator, class_name: str) -> None:
        """The classes of an operator: one for each choice of what its units keep."""
        made: dict[object, Lowered] = {}
        profile = self._costs.profile(operator)
        for path, unit in self._units.items():
            if unit.operator != operator.name:
                continue
            layout = self._layouts[path]
            choice = tuple(sorted(layout.kept.items())), layout.demanded, layout.offered
            if choice not in made:
                name = self._class_names.take(f"{class_name}Kept") if made else class_name
                lowering = OperatorLowering(
                    operator, name, self.functions, self.model.context, profile, layout
                )
                made[choice] = lowering.lower()
                self.classes.append(made[choice].module)
            self.operators[path] = made[choice]

    # --- layers ---------------------------------------------------------------------------------

    def layers(self, layers: tuple[Layer, ...], scope: Scope) -> None:
        read = ""
        for layer, following in zip(layers, (*layers[1:], None), strict=True):
            match layer:
                case Unit() | Parallel():
                    read = self._residual(layer.name, layer.residual, layer, scope, read, following)
                case Repeat():
                    self._repeat(layer, scope)
                case Loop():
                    self._loop(layer, scope, "x")
                    self._mark(layer, scope)

    def _residual(
        self,
        name: str,
        residual: Residual,
        layer: Unit | Parallel,
        scope: Scope,
        given: str,
        following: Layer | None,
    ) -> str:
        """The lines by which a layer meets the stream x.

        `given` is the local with the norm that it reads, where the layer before made it with its
        sum; what this gives is the same for the `following` layer.
        """
        if residual.hyper:
            made = hyper_module(residual.hyper, self.model.width, self.functions)
            scope.init.append(Line(f"self.{name}_hyper = {made}"))
            scope.init.append(Line(f"self.{name}_norm = {self._norm(residual.norms[0][1])}"))
            scope.lines.append(Line(f"read, kept, beta = self.{name}_hyper(x)"))
            result = self._branch(layer, f"self.{name}_norm(read)", scope)
            scope.lines.append(Line(f"x = kept + beta.unsqueeze(-1) * {result}.unsqueeze(-2)"))
            self._mark(layer, scope)
            return ""
        if residual.formula:
            FormulaLowering(
                residual.formula,
                name,
                self.functions,
                scope.init,
                scope.lines,
                lambda read: self._branch(layer, read, scope),
            ).run()
            self._mark(layer, scope)
            return ""
        norms = {suffix: f"self.{name}_{suffix}" for suffix, _ in residual.norms}
        for suffix, norm in residual.norms:
            made = self._norm(norm)
            scope.init.append(Line(f"self.{name}_{suffix} = {made}"))
        read = "x"
        if residual.scheme in ("pre", "sandwich"):
            read = given or f"{norms['norm']}(x)"
        result = self._branch(layer, read, scope)
        if residual.scheme == "sandwich":
            result = f"{norms['post_norm']}({result})"
        kernel = self._next_norm(layer, following)
        added = ""
        if residual.scheme in ("pre", "sandwich") and kernel and following:
            added = "read"
            line = f"x, {added} = {kernel}(x, {result}, self.{following.name}_norm)"
        elif residual.scheme in ("pre", "sandwich"):
            line = f"x = x + {result}"
        elif residual.scheme == "post":
            kernel = add_norm(residual.norms[0][1], self.model.width, self.functions)
            line = f"x = {norms['norm']}(x + {result})"
            if kernel:
                line = f"_, x = {kernel}(x, {result}, {norms['norm']})"
        else:
            line = f"x = {result}"
        scope.lines.append(Line(line))
        self._mark(layer, scope)
        return added

    def _next_norm(self, layer: Unit | Parallel, following: Layer | None) -> str:
        """The kernel that adds a layer's result to the stream and norms the sum for the following
        layer, if that reads a norm of just this sum."""
        if not isinstance(following, Unit | Parallel) or layer.marks:
            return ""
        residual = following.residual
        if residual.hyper or residual.formula or residual.scheme not in ("pre", "sandwich"):
            return ""
        return add_norm(dict(residual.norms)["norm"], self.model.width, self.functions)

    def _mark(self, layer: Unit | Parallel | Loop, scope: Scope) -> None:
        """What is done with the stream behind a layer: kept for later units, averaged, read out."""
        for mark in layer.marks:
            if mark == "average":
                scope.needs |= {"streams": "list[Tensor]", "average": "nn.Module"}
                scope.lines.append(Line("x = average(x, streams)"))
            else:
                scope.needs["depths"] = "list[Tensor]"
                scope.lines.append(Line("depths.append(x)"))
        if layer.path in self._streams:
            name = self._variable(layer.name, "stream")
            scope.locals[layer.path, STREAM] = name
            scope.lines.append(Line(f"{name} = x"))

    def _norm(self, norm: Norm) -> str:
        return norm_module(norm.op, 1, self.model.width, norm.attributes, self.functions)

    def _branch(self, layer: Layer, read: str, scope: Scope) -> str:
        """An expression for F(read); statements before it go to the scope."""
        match layer:
            case Unit():
                return self._unit(layer, read, scope)
            case Parallel():
                return self._parallel(layer, read, scope)
            case Repeat() | Loop():
                return self._repeated(layer, read, scope, f"{layer.name}_output")

    def _unit(self, unit: Unit, read: str, scope: Scope) -> str:
        lowered = self.operators[unit.path]
        scope.init.append(Line(f"self.{unit.name} = {lowered.module.name}()"))
        sources = dict(unit.inputs)
        arguments = []
        for feature in lowered.features:
            if feature == "x":
                arguments.append(read)
            else:
                arguments.append(self._input(unit, feature, sources[feature], scope))
        for ambient in lowered.ambient:
            arguments.append(self._ambient(ambient, scope))
        if lowered.keeps:
            arguments.append(f'cache and cache["{unit.name}"]')
            scope.cache.append((unit.name, _empty(f"self.{unit.name}")))
        call = f"self.{unit.name}({', '.join(arguments)})"
        if len(lowered.outputs) == 1:
            return call
        targets = [self._variable(unit.name, name) for name in lowered.outputs]
        for name, target in zip(lowered.outputs[1:], targets[1:], strict=True):
            scope.locals[unit.path, name] = target
        scope.lines.append(Line(f"{', '.join(targets)} = {call}"))
        return targets[0]

    def _input(self, unit: Unit, name: str, ref: FeatureRef, scope: Scope) -> str:
        """A feature of another unit: all tokens that are kept where the reader asks for them."""
        local = self._feature(ref.unit, ref.name, scope)
        source = self._layouts.get(ref.unit)
        if (
            source
            and ref.name in dict(source.offered)
            and name not in dict(self._layouts[unit.path].demanded)
        ):
            return f"{local}[:, -x.shape[1] :]"
        return local

    def _feature(self, path: str, name: str, scope: Scope) -> str:
        if (path, name) in scope.locals:
            return scope.locals[path, name]
        local = self._variable(self._names[path], name or "stream")
        scope.needs[local] = "Tensor"
        scope.locals[path, name] = local
        return local

    def _variable(self, unit: str, feature: str) -> str:
        """The variable that carries a feature of a unit, the same in every scope: a0_V."""
        key = unit, feature
        if key not in self._variables:
            wanted = f"{unit}_{feature}"
            self._variables[key] = self._variable_names.take(
                wanted + "_" if is_reserved(wanted) else wanted
            )
        return self._variables[key]

    def _ambient(self, ambient: Ambient, scope: Scope) -> str:
        scope.needs[ambient.name] = ambient.type
        return ambient.name

    def _parallel(self, parallel: Parallel, read: str, scope: Scope) -> str:
        if read != "x" or any(_rewrites(branch) for branch in parallel.branches):
            name = f"{parallel.name}_input"
            scope.lines.append(Line(f"{name} = {read}"))
            read = name
        results = []
        for i, branch in enumerate(parallel.branches):
            if isinstance(branch, Unit | Parallel) and branch.residual.scheme == "none":
                results.append(self._plain(branch, read, scope))
            elif isinstance(branch, Repeat | Loop):
                results.append(self._repeated(branch, read, scope, f"{parallel.name}_{i + 1}"))
            else:
                results.append(self._wrapped(branch, read, scope, f"{parallel.name}_{i + 1}"))
        if parallel.mode == "difference":
            return f"({' - '.join(results)})" if len(results) > 1 else results[0]
        if parallel.mode == "gated":
            made = gate_module(len(results), self.model.width, self.functions)
            name = f"{parallel.name}_gate"
            scope.init.append(Line(f"self.{name} = {made}"))
            gate = Line(f"{name} = self.{name}({read}).softmax(-1)", f"(B, T, {len(results)})")
            scope.lines.append(gate)
            parts = [f"{name}[..., {i}:{i + 1}] * {r}" for i, r in enumerate(results)]
            return f"({' + '.join(parts)})"
        total = f"({' + '.join(results)})"
        if parallel.mode == "mean":
            return f"{total} / {len(results)}"
        return total

    def _plain(self, branch: Unit | Parallel, read: str, scope: Scope) -> str:
        """A branch without a residual scheme; what it gives is the stream behind it."""
        result = self._branch(branch, read, scope)
        if branch.path not in self._streams:
            return result
        name = scope.locals[branch.path, STREAM] = self._variable(branch.name, "stream")
        scope.lines.append(Line(f"{name} = {result}"))
        return name

    def _wrapped(self, branch: Layer, read: str, scope: Scope, target: str) -> str:
        """A branch with a residual scheme of its own, computed on a copy of the stream's name."""
        inner = Scope(scope.path, scope.init, [], scope.needs, scope.locals, scope.cache)
        self.layers((branch,), inner)
        for line in inner.lines:
            renamed = re.sub(r"(?<!\.)\bx\b", target, line.text)  # not the attribute self.x
            scope.lines.append(Line(renamed, line.comment))
        first = len(scope.lines) - len(inner.lines)
        scope.lines.insert(first, Line(f"{target} = {read}"))
        return target

    # --- repeats --------------------------------------------------------------------------------

    def _repeat(self, repeat: Repeat, scope: Scope) -> None:
        arguments = self._block_list(repeat, scope)
        if arguments is not None:
            scope.lines.append(_apply_blocks(repeat.name, "x", arguments))

    def _loop(self, loop: Loop, scope: Scope, target: str) -> None:
        inner = Scope("")
        self.layers(loop.body, inner)
        made = self._body_class(
            "Loop", _LOOP_DOC, inner, bool(inner.cache), [Line(f"self.times = {loop.times}")]
        )
        scope.init.append(Line(f"self.{loop.name} = {made}()"))
        for name, type_ in inner.needs.items():
            self._pass_on(name, type_, scope)
        arguments = [target, *inner.needs]
        index = "_"
        if inner.cache:
            index = "i"
            arguments.append(f'cache and cache["{loop.name}"][i]')
            one = _empty(f"self.{loop.name}")
            scope.cache.append((loop.name, f"[{one} for _ in range(self.{loop.name}.times)]"))
        call = f"self.{loop.name}({', '.join(arguments)})"
        scope.lines.append(
            Line(f"for {index} in range(self.{loop.name}.times):\n    {target} = {call}")
        )

    def _repeated(self, layer: Repeat | Loop, read: str, scope: Scope, target: str) -> str:
        """A repeat or loop on a copy of the stream: a branch of a parallel."""
        before = len(scope.lines)
        if isinstance(layer, Loop):
            self._loop(layer, scope, target)
        else:
            arguments = self._block_list(layer, scope)
            if arguments is None:
                return read
            scope.lines.append(_apply_blocks(layer.name, target, arguments))
        scope.lines.insert(before, Line(f"{target} = {read}"))
        return target

    def _block_list(self, repeat: Repeat, scope: Scope) -> list[str] | None:
        """Add the ModuleList of a repeat; the arguments of its blocks, or None when it has no
        layers."""
        inners: list[Scope] = []
        needs: dict[str, str] = {}
        for body in repeat.bodies:
            if not body:
                return None
            inners.append(Scope(""))
            self.layers(body, inners[-1])
            needs.update(inners[-1].needs)
        if not inners:
            return None
        made: list[str] = []
        keeps = any(inner.cache for inner in inners)
        for inner in inners:
            inner.needs = needs  # all are called alike, though some may not use everything
            made.append(self._body_class("Block", _BLOCK_DOC, inner, keeps))
        for name, type_ in needs.items():
            self._pass_on(name, type_, scope)
        if len(set(made)) == 1:
            blocks = f"{made[0]}() for _ in range({len(made)})"
        else:
            blocks = f"[{', '.join(f'{name}()' for name in made)}]"
        scope.init.append(Line(f"self.{repeat.name} = nn.ModuleList({blocks})"))
        if not keeps:
            return list(needs)
        one = _empty("block")
        scope.cache.append((repeat.name, f"[{one} for block in self.{repeat.name}]"))
        return [*needs, f'cache and cache["{repeat.name}"][i]']

    def _pass_on(self, name: str, type_: str, scope: Scope) -> None:
        if name not in scope.locals.values():
            scope.needs[name] = type_

    def _body_class(
        self,
        wanted: str,
        doc: tuple[str, ...],
        inner: Scope,
        keeps: bool,
        init: list[Line] | None = None,
    ) -> str:
        """The class of a body; bodies that say the same have one."""
        arguments = ["x: Tensor", *(f"{n}: {t}" for n, t in inner.needs.items())]
        if keeps:
            arguments.append("cache: dict | None = None")
        block = ModuleClass(
            "",
            doc,
            (*(init or ()), *inner.init),
            tuple(arguments),
            tuple(inner.lines),
            "x",
            cache=tuple(inner.cache) if keeps else None,
        )
        if block not in self._blocks:
            self._blocks[block] = name = self._class_names.take(wanted)
            self.classes.append(replace(block, name=name))
        return self._blocks[block]

    # --- ties -----------------------------------------------------------------------------------

    def ties(self) -> list[Line]:
        """Statements after construction that make tied weights one."""
        found: dict[str, None] = {}
        for unit in self._units.values():
            by_module: dict[tuple[str, str], list[str]] = {}
            for tie in unit.ties:
                module = tie.parameter.partition(".")[0]
                by_module.setdefault((module, tie.unit), []).append(tie.parameter)
            names = [p.name for p in self.model.operator(unit.operator).parameters]
            for (module, source), tied in by_module.items():
                whole = {n for n in names if n.partition(".")[0] == module} == set(tied)
                for name in [module] if whole else tied:
                    found[_tie(unit.path, source, name)] = None
        return [Line(text) for text in found]


def _empty(part: str) -> str:
    return f"{part}.init_cache(batch, length, like)"


def _apply_blocks(name: str, target: str, arguments: list[str]) -> Line:
    """A pass through all blocks of a repeat, numbered where each has a cache of its own."""
    variable = "block" if name == "blocks" else f"{name}_block"
    each = f"for {variable} in self.{name}"
    if any("[i]" in argument for argument in arguments):
        each = f"for i, {variable} in enumerate(self.{name})"
    return Line(f"{each}:\n    {target} = {variable}({', '.join([target, *arguments])})")


def _rewrites(layer: Layer) -> bool:
    return isinstance(layer, Repeat | Loop) or layer.residual.scheme != "none"


def _python_path(path: str) -> str:
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", f"self.{path}")


def _tie(path: str, source: str, name: str) -> str:
    """`self.blocks[3].f.C = self.f0.C`; iterations that all say the same become one loop."""
    return f"{_python_path(path)}.{name} = {_python_path(source)}.{name}"


def fold_iterations(lines: list[Line], counts: dict[str, int]) -> list[Line]:
    """Runs of statements that differ in the index of one ModuleList alone become a loop over it."""
    indexed = re.compile(r"self\.(\w+)\[(\d+)\]")
    grouped: dict[str, list[tuple[int, str]]] = {}
    order: list[str] = []
    for line in lines:
        found = indexed.search(line.text)
        key = line.text
        if found:
            key = line.text.replace(f"self.{found[1]}[{found[2]}]", f"self.{found[1]}[*]")
        if key not in grouped:
            grouped[key] = []
            order.append(key)
        grouped[key].append((int(found[2]) if found else 0, line.text))
    result = []
    for key in order:
        entries = grouped[key]
        name = re.search(r"self\.(\w+)\[\*\]", key)
        if name and len(entries) == counts.get(name[1], -1) and len(entries) > 1:
            body = key.replace(f"self.{name[1]}[*]", "block")
            result.append(Line(f"for block in self.{name[1]}:\n    {body}"))
        else:
            result += [Line(text) for _, text in entries]
    return result
