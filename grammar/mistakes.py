"""What to say about a token that cannot stand where it stands.

Owns: the slips that people make, by the place they make them in, and what is said about any other.
Refuses: finding the token (parser.py) and describing its surroundings (situation.py).
"""

from __future__ import annotations

from starc.grammar import tables
from starc.grammar.errors import Diagnostic
from starc.grammar.mistakes_backbone import in_layers, in_modifier, misplaced_text
from starc.grammar.situation import (
    BLOCKS,
    BODIES,
    CLOSERS,
    DECLARATIONS,
    KEYWORDS,
    MODIFIERS,
    Opener,
    Situation,
    leads_line,
)

_ENDS_VALUE = frozenset({"NAME", "NUMBER", "STRING", ")", "]"})
_STARTS_VALUE = frozenset({"NAME", "NUMBER", "(", "?"})
_BEGINS = frozenset({"NAME", "backbone", "}"})
_OPERATORS = frozenset({"+", "-", "*", "/", "@", "|>"})

_USE = "write use std.attention.gqa: the file, then the operator."
_OPERATOR = "write operator name(heads: int = 8) { ... }."
_STAGES = "a value goes into a stage with '|>': x |> dense(width) |> silu."


def explain(s: Situation) -> Diagnostic:
    """The diagnostic for a situation: of the first slip that it is, or a plain one."""
    slips = (
        _bracket,
        _foreign_word,
        _at_file,
        _in_head,
        in_modifier,
        in_layers,
        _in_model,
        _in_operator,
        _in_list,
        _in_expression,
        _reserved_word,
    )
    for slip in slips:
        if (found := slip(s)) is not None:
            return found
    return _unexpected(s)


# --- brackets ----------------------------------------------------------------------------------


def _bracket(s: Situation) -> Diagnostic | None:
    if s.kind in CLOSERS and (not s.openers or s.kind not in map(s.closer, s.openers)):
        if not s.openers:
            hint = f"remove it, or see which '{CLOSERS[s.kind]}' before it was closed too early."
            return s.say("stray-bracket", f"this '{s.kind}' closes nothing.", hint)
        opener = s.openers[-1]
        return Diagnostic(
            "stray-bracket",
            f"this '{s.kind}' closes nothing.",
            s.span(),
            hint=f"'{s.closer(opener)}' would close what is open.",
            related=((s.tokens.span(opener.index), "open here"),),
        )
    if not s.openers:
        return None
    opener = s.openers[-1]
    if s.kind == tables.END or (s.kind in CLOSERS and s.kind != s.closer(opener)):
        return _unclosed(s, opener)
    if (s.kind in DECLARATIONS or opener.place not in BODIES) and _dedented(s, opener):
        return _unclosed(s, opener)
    if s.kind == "{" and opener.place == "parameters":
        return _unclosed(s, opener)
    return None


def _dedented(s: Situation, opener: Opener) -> bool:
    """The next item has begun: on a line of its own, no deeper than the bracket's."""
    first = s.index - 1 if s.kind == "=" and s.near(-1) == "NAME" else s.index
    if s.kind in CLOSERS or not leads_line(s.tokens, first):
        return False
    return s.indent(first) <= s.indent(opener.index)


def _unclosed(s: Situation, opener: Opener) -> Diagnostic:
    bracket = s.tokens.kinds[opener.index]
    related = () if s.kind == tables.END else ((s.span(), "this cannot stand inside it"),)
    return Diagnostic(
        "unclosed-bracket",
        f"this '{bracket}' is never closed.",
        s.tokens.span(opener.index),
        label=f"its '{s.closer(opener)}' is missing",
        related=related,
        hint=f"close it with '{s.closer(opener)}' behind what it encloses.",
    )


# --- between declarations, and their heads -----------------------------------------------------


def _foreign_word(s: Situation) -> Diagnostic | None:
    """A word of another language at the beginning of a declaration, binding, setting or unit."""
    word = s.text()
    if s.place == "file":
        if word in ("def", "func", "function", "fn", "fun", "op", "class", "struct", "module"):
            message = f"'{word}' declares nothing."
            hint = f"{_OPERATOR[:-1]}, or model name {{ ... }}."
            return s.say("not-a-declaration", message, hint)
        if word in ("import", "include", "from", "require", "using"):
            return s.say("not-a-declaration", f"'{word}' brings in nothing.", _USE)
        if word == "as":
            message = "an operator keeps its name when it is used."
            return s.say("no-renaming", message, "leave out 'as ...'.")
        return None
    word = s.text(-1)
    if s.place not in BODIES or s.near(-1) != "NAME" or s.near(-2) in (":", "=", "|>"):
        return None
    if word in ("let", "const", "var", "val", "auto", "int", "float", "real", "feature"):
        message = f"'{word}' is not needed to bind a name."
        return s.say("not-a-binding", message, "write NAME = expression.", at=-1)
    if word in ("return", "yield", "output"):
        message = "an operator gives what its 'y' is bound to."
        return s.say("not-a-binding", message, "write y = ... .", at=-1)
    if word in ("if", "else", "elif", "while", "for", "switch", "match", "when"):
        message = f"there is no '{word}': a program is the same for every input."
        hint = "repeat n { ... } stacks copies; ?[a(), b()] leaves a choice to a search."
        return s.say("no-control-flow", message, hint, at=-1)
    return None


def _at_file(s: Situation) -> Diagnostic | None:
    if s.place != "file":
        return None
    word = s.text()
    if "." in s.expected and s.near(-1) == "NAME" and s.kind in ("/", "-", ":", "@"):
        return s.say("bad-use", "the parts of a 'use' are joined by dots.", _USE)
    if "use" in s.expected and s.kind == ",":
        message = "one 'use' brings in one operator."
        return s.say("bad-use", message, "begin another use for the next one.")
    if s.near(-1) == "." and s.kind in ("*", "{", "("):
        return s.say("bad-use", "one 'use' brings in one operator.", "name it.")
    if s.near(-1) == "use" and s.kind == "STRING":
        hint = f"{_USE[:-1]}, or use blocks.conv.mine for ./blocks/conv.star."
        return s.say("bad-use", "a 'use' is written without quotes.", hint)
    if s.near(-1) in ("use", ".") and (s.leads_line or s.kind not in KEYWORDS):
        return s.say("bad-use", "this 'use' is not complete.", _USE, at=-1)
    if "use" not in s.expected:
        return None
    if s.kind == "NAME" and s.near(1) == "(":
        message = f"'{word}(...)' stands outside every declaration."
        hint = f"units stand in a backbone; an operator is declared by operator {word}(...)."
        return s.say("not-a-declaration", message, hint)
    if s.kind == "NAME" and s.near(1) == "{":
        message = f"'{word}' declares nothing."
        return s.say(
            "not-a-declaration", message, f"write model {word} {{ ... }} or {_OPERATOR[6:]}"
        )
    if s.kind == "NAME" and s.near(1) in ("=", ":"):
        message = f"'{word}' stands outside every declaration."
        hint = "bindings stand in an operator, settings in a model, units in its backbone."
        return s.say("not-a-declaration", message, hint)
    if s.kind in KEYWORDS:
        message = f"'{word}' stands outside a model."
        return s.say("not-a-declaration", message, "write model name { ... backbone { ... } }.")
    if s.kind == "STRING":
        message = "documentation stands outside what it documents."
        hint = "move it behind the '{' of an operator or model, or write a comment: # ... ."
        return s.say("string-not-allowed", message, hint)
    message = f"'{word}' begins no declaration."
    return s.say("not-a-declaration", message, "a file holds use, operator and model.")


def _in_head(s: Situation) -> Diagnostic | None:
    before = s.near(-1)
    if before in ("operator", "model") and s.kind not in KEYWORDS | {"NAME"}:
        hint = _OPERATOR if before == "operator" else "write model name { ... }."
        return s.say("missing-name", f"this {before} has no name.", hint, at=-1)
    if s.near(-2) == "operator" and s.kind != "(" and before == "NAME":
        message = f"operator '{s.text(-1)}' has no list of parameters."
        hint = f"write operator {s.text(-1)}() {{ ... }}."
        return s.say("missing-parenthesis", message, hint, at=-1)
    if s.near(-2) == "model" and s.kind == "(" and before == "NAME":
        message = "a model has no parameters."
        hint = f"its numbers are settings: model {s.text(-1)} {{ width = 768 ... }}."
        return s.say("bad-model", message, hint)
    if s.expected == {"{"}:
        if s.kind == ":":
            return s.say("missing-brace", "a body stands in braces.", "write { ... }.")
        if s.kind == "=":
            return s.say("missing-brace", "a body is not bound with '='.", "leave out '='.")
        message = f"the body behind '{s.text(-1)}' is missing."
        return s.say("missing-brace", message, "write { ... }.", at=-1)
    if s.place == "parameters":
        if s.kind == "NAME" and before == "NAME":
            message = "the kind of a parameter stands behind its name."
            return s.say("bad-parameter", message, f"write {s.text()}: {s.text(-1)}.", at=-1)
        if before == ":" and s.kind != "NAME" and s.kind not in KEYWORDS:
            message = "the kind of this parameter is missing."
            return s.say("bad-parameter", message, "write heads: int = 8.", at=-1)
        if s.kind == "*":
            message = "every parameter of an operator has a name."
            return s.say("bad-parameter", message, "write heads: int, theta: real = 10_000.")
        if s.kind == "NUMBER" and s.expected & {"NAME"}:
            message = "a parameter is a name, not a number."
            return s.say("bad-parameter", message, "a default follows '=': heads: int = 8.")
    return None


# --- bodies of models and operators ------------------------------------------------------------


def _in_model(s: Situation) -> Diagnostic | None:
    if s.place != "model":
        return None
    word = s.text()
    if s.expected == {"="} and s.near(-1) == "NAME":
        if s.kind == "(" or (s.kind == ":" and s.near(1) == "NAME" and s.near(2) == "("):
            message = "a unit stands outside the backbone."
            return s.say("unit-outside-backbone", message, "write backbone { ... }.", at=-1)
        message = "a setting is written with '='."
        return s.say("missing-equals", message, f"write {s.text(-1)} = ... .")
    if s.kind in BLOCKS | {"?"} | MODIFIERS:
        message = f"'{word}' stands outside the backbone."
        return s.say("unit-outside-backbone", message, "write backbone { ... }.")
    if s.leads_line and s.kind in DECLARATIONS:
        message = f"'{word}' cannot stand in a model."
        return s.say("misplaced", message, "close the model first.")
    return _in_body(s, "settings")


def _in_operator(s: Situation) -> Diagnostic | None:
    if s.place != "operator":
        return None
    word, name = s.text(), s.text(-1)
    if s.expected == {"="} and s.near(-1) == "NAME":
        joined = s.near(-2) in _ENDS_VALUE and not leads_line(s.tokens, s.index - 1)
        if joined:
            message = f"nothing joins '{s.text(-2)}' and '{name}'."
            return s.say("missing-operator", message, _STAGES, at=-1)
        if s.kind == ":":
            message = "a binding is written with '='."
            return s.say("missing-equals", message, f"write {name} = ... .")
        if s.kind == ",":
            message = "one binding binds one name."
            return s.say("bad-binding", message, f"write {name} = ..., and another for the next.")
        message = "this value is not bound to a name."
        return s.say("not-a-binding", message, "write NAME = expression.", at=-1)
    if s.leads_line and s.kind in BLOCKS - {"repeat"} | MODIFIERS | {"backbone"}:
        message = f"'{word}' cannot stand in an operator."
        return s.say("misplaced", message, "it belongs in the backbone of a model.")
    if s.leads_line and s.kind in DECLARATIONS:
        message = f"'{word}' cannot stand in an operator."
        return s.say("misplaced", message, "close the operator first.")
    return _in_body(s, "bindings")


def _in_body(s: Situation, items: str) -> Diagnostic | None:
    if s.kind == "," and "|>" in s.expected:
        message = f"{items} are not separated by commas."
        return s.say("no-comma", message, "leave the comma out; blanks are enough.")
    if s.kind == "=" and s.near(-1) == "NAME" and s.near(-2) == "=":
        return s.say("bad-binding", "one '=' binds one name.", "write two bindings.")
    if s.kind == "{":
        message = "this brace opens nothing."
        return s.say("bad-block", message, "values are grouped by parentheses: (a + b).")
    if s.kind not in KEYWORDS | {"STRING", tables.END} and s.expected - {"STRING"} <= _BEGINS:
        item = items.removesuffix("s")
        return s.say(f"not-a-{item}", f"'{s.text()}' begins no {item}.", "write NAME = value.")
    return None


# --- lists and expressions ---------------------------------------------------------------------


def _in_list(s: Situation) -> Diagnostic | None:
    before, word = s.near(-1), s.text()
    if s.place in ("arguments", "parameters", "hole"):
        if s.kind == "," and before in (",", "(", "["):
            message = "nothing stands before this comma."
            return s.say("missing-expression", message, "remove it, or write what is missing.")
        if s.kind == ":" and before == "NAME" and s.place == "arguments":
            message = "an argument is named with '='."
            return s.say("missing-equals", message, f"write {s.text(-1)} = {s.text(1)}.")
        if s.kind in _STARTS_VALUE | BLOCKS and "," in s.expected:
            message = f"a comma or an operator is missing before '{word}'."
            hint = "what stands in a list is separated by commas."
            return s.say("missing-comma", message, hint)
    if s.kind == "=" and s.place in ("arguments", "group", "hole"):
        message = "this '=' names nothing."
        return s.say("bad-equals", message, "arguments are named in a call: conv(kernel = 4).")
    if s.place == "group":
        if s.kind == ",":
            message = "parentheses hold one value."
            return s.say("no-tuple", message, "features are joined by concat(a, b).")
        if s.kind == ")" and before == "(":
            message = "nothing stands in these parentheses."
            return s.say("missing-expression", message, "parentheses hold one value.")
    if s.place == "hole" and s.kind == "]" and before == "[":
        message = "this hole has no choices."
        return s.say("bad-hole", message, "write ?[4, 8, 12] or ?[1 .. 16].")
    if s.place == "hole" and (s.kind == ".." or (s.kind == "," and ".." not in s.expected)):
        message = "a hole is a list of choices or one range."
        return s.say("bad-hole", message, "write ?[4, 8, 12] or ?[1 .. 16].")
    return None


def _in_expression(s: Situation) -> Diagnostic | None:
    before, word = s.near(-1), s.text()
    if s.kind == "STRING":
        return misplaced_text(s)
    if s.kind in _OPERATORS and s.kind not in s.expected and "|>" in s.expected:
        message = f"a pipe cannot be an operand of '{word}' without parentheses."
        return s.say("bare-pipe", message, f"write (x |> silu) {word} y.")
    if before == "repeat" and s.expected == {"("}:
        message = "the stage 'repeat' says how often."
        return s.say("missing-parenthesis", message, "write x |> repeat(4).", at=-1)
    if s.expected <= {"[", "NAME"} and "?" in (before, s.near(-2)):
        message = "a hole says what it chooses from."
        return s.say("bad-hole", message, "write ?[4, 8, 12], ?[1 .. 16] or ?name[...].", at=-1)
    if s.kind == "[" and before in _ENDS_VALUE:
        message = "values are not indexed."
        return s.say("no-indexing", message, "channels are taken by x |> slice(0, 64).")
    if s.kind == "..":
        return s.say("bad-range", "a range stands in a hole.", "write ?[1 .. 16].")
    if s.kind == "." or (s.kind == "(" and s.near(-2) == "." and before == "NAME"):
        message = "values have no methods or parts."
        hint = "stages follow '|>': x |> heads(8); LABEL.NAME is a feature of an earlier unit."
        return s.say("no-method", message, hint)
    if before == "|>" or (s.kind == "=" and s.near(-2) == "|>"):
        message = "'|>' is followed by a stage."
        at = -1 if before == "|>" else -2
        return s.say("missing-stage", message, f"{_STAGES[:-1]}.", at=at)
    at = -2 if s.kind == "=" and before == "NAME" and s.near(-2) in _OPERATORS else -1
    operator = s.near(at)
    if operator in _OPERATORS | {"="} and s.kind not in KEYWORDS:
        message = f"nothing stands behind this '{operator}'."
        return s.say("missing-expression", message, "an expression must follow it.", at=at)
    if s.kind in _OPERATORS and before in ("(", ",", "["):
        message = f"nothing stands before this '{word}'."
        return s.say("missing-expression", message, "an expression must precede it.")
    if s.kind == "(" and before in (")", "NUMBER", "]"):
        message = "only a name can be called."
        return s.say("not-callable", message, "a product is written with '*'.")
    if s.kind in _STARTS_VALUE and before in _ENDS_VALUE and "|>" in s.expected:
        message = f"nothing joins '{s.text(-1)}' and '{word}'."
        return s.say("missing-operator", message, _STAGES)
    return None


def _reserved_word(s: Situation) -> Diagnostic | None:
    if s.kind in KEYWORDS and ("NAME" in s.expected or s.place not in BODIES | {"file"}):
        message = f"'{s.kind}' is a word of the language and cannot be a name."
        return s.say("reserved-word", message, f"for example {s.kind}_.")
    return None


# --- anything else -----------------------------------------------------------------------------

_EXPRESSION = frozenset({"NAME", "NUMBER", "(", "?", "-", "repeat"})
_SPOKEN = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "documentation",
    tables.END: "the end of the text",
}


def _unexpected(s: Situation) -> Diagnostic:
    expected = set(s.expected)
    choices: list[str] = []
    if expected >= _EXPRESSION:
        expected -= _EXPRESSION
        choices.append("an expression")
    if expected >= _OPERATORS:
        expected -= _OPERATORS
        choices.append("an operator")
    choices += [_SPOKEN.get(kind, f"'{kind}'") for kind in sorted(expected)]
    label = f"expected {' or '.join(choices)}" if len(choices) <= 4 else ""
    found = _SPOKEN[tables.END] if s.kind == tables.END else f"'{s.text()}'"
    return s.say("unexpected-token", f"{found} cannot stand here.", label=label)
