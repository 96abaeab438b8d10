"""Weights of foreign checkpoints: values of maps, coverage, and what is said about bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import starc
from starc.grammar.errors import StarError, render
from starc.grammar.source import Source
from starc.grammar.weight_map import parse_map
from starc.runtime.importing import collapse
from starc.runtime.loader import load
from starc.weights import import_checkpoint

PROGRAM = """\
operator mlp(hidden: int) {
    a = x |> dense(hidden, bias = true)
    b = x |> dense(hidden)
    y = a * b |> dense(width)
}

model tiny {
    vocab  = 11
    width  = 4
    context = 8
    layers = 1
    hidden = 6
    residual = pre(rmsnorm)
    backbone { repeat layers { mlp(hidden = hidden) } }
}
"""
MAP = """\
program "tiny.star"
settings { layers = n_layer  hidden = ffn.size or 3 * n_embd / 2 }  # nested keys
embedding.weight = wte.weight
blocks.{i}.mlp_norm.weight = 1 + h.{i}.ln.weight
blocks.{i}.mlp.a.weight = h.{i}.fc.weight |> transpose |> part(0, 2)
blocks.{i}.mlp.a.bias = h.{i}.fc.bias or 0
blocks.{i}.mlp.b.weight = h.{i}.fc.weight |> transpose |> rows(hidden_rows, 2 * hidden_rows)
blocks.{i}.mlp.y.weight = h.{i}.out.weight
final_norm.weight = -log(exp(-ln_f.weight))
head.weight = lm_head.weight or wte.weight
ignore h.{i}.mask, "odd-name"
require kind = other or word  require n_layer = 2  require absent.key = 3
"""


def checkpoint() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"wte.weight": (11, 4), "ln_f.weight": (4,), "odd-name": (1,)}
    for i in range(2):
        shapes |= {f"h.{i}.ln.weight": (4,), f"h.{i}.fc.weight": (4, 12), f"h.{i}.mask": (2,)}
        shapes |= {f"h.{i}.out.weight": (4, 6)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


CONFIG = {"n_layer": 2, "n_embd": 4, "hidden_rows": 6, "theta": None, "kind": "word"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.star").write_text(PROGRAM)
    (tmp_path / "tiny.map").write_text(MAP)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(checkpoint(), tmp_path / "model.safetensors")
    return tmp_path


def refusal(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is printed about a map, or about the checkpoint in the folder."""
    monkeypatch.chdir(folder)
    Path("tiny.map").write_text(text)
    with pytest.raises(StarError) as refused:
        import_checkpoint(".", "tiny.map")
    return render(refused.value.diagnostics)


def test_every_parameter_gets_its_value(folder: Path) -> None:
    imported = import_checkpoint(folder, folder / "tiny.map")
    model = load(imported.artifact.text).Model()
    model.load_state_dict(imported.tensors, strict=True)
    given, found = checkpoint(), imported.tensors
    fused = given["h.1.fc.weight"].T
    torch.testing.assert_close(found["blocks.1.mlp_norm.weight"], 1 + given["h.1.ln.weight"])
    torch.testing.assert_close(found["blocks.1.mlp.a.weight"], fused[:6])
    torch.testing.assert_close(found["blocks.1.mlp.b.weight"], fused[6:])
    assert not found["blocks.1.mlp.a.bias"].any()
    torch.testing.assert_close(found["final_norm.weight"], given["ln_f.weight"])
    assert torch.equal(found["head.weight"], given["wte.weight"])


def test_settings_of_the_caller_come_before_those_of_the_map(folder: Path) -> None:
    from starc.compiler.options import Options

    text = MAP.replace("ignore", "ignore h.1.ln.weight, h.1.fc.weight, h.1.out.weight ignore")
    (folder / "tiny.map").write_text(text)
    imported = import_checkpoint(
        folder, folder / "tiny.map", options=Options(overrides=(("layers", "1"),))
    )
    assert not any(name.startswith("blocks.1.") for name in imported.tensors)


def test_stacked_projections_are_given_by_the_names_of_the_program(folder: Path) -> None:
    """Two projections without biases are one matrix in the module; the map knows only the two."""
    (folder / "tiny.star").write_text(PROGRAM.replace(", bias = true", ""))
    text = MAP.replace("blocks.{i}.mlp.a.bias = h.{i}.fc.bias or 0\n", "")
    (folder / "tiny.map").write_text(text)
    found = import_checkpoint(folder, folder / "tiny.map").tensors
    assert torch.equal(found["blocks.0.mlp.a_b.weight"], checkpoint()["h.0.fc.weight"].T)


def test_shards_and_pytorch_files_hold_the_same(folder: Path) -> None:
    expected = import_checkpoint(folder, folder / "tiny.map").tensors
    (folder / "model.safetensors").unlink()
    tensors = checkpoint()
    torch.save({"state_dict": tensors}, folder / "pytorch_model.bin")
    unsharded = import_checkpoint(folder, folder / "tiny.map").tensors
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = import_checkpoint(folder, folder / "tiny.map").tensors
    for name, value in expected.items():
        assert torch.equal(value, unsharded[name])
        assert torch.equal(value, sharded[name])


def test_dtypes_are_kept_or_converted(folder: Path) -> None:
    half = {name: value.bfloat16() for name, value in checkpoint().items()}
    save_file(half, folder / "model.safetensors")
    kept = import_checkpoint(folder, folder / "tiny.map").tensors
    assert kept["embedding.weight"].dtype == torch.bfloat16
    assert kept["blocks.0.mlp_norm.weight"].dtype == torch.float32  # arithmetic does not round
    converted = import_checkpoint(folder, folder / "tiny.map", dtype=torch.float32).tensors
    assert {value.dtype for value in converted.values()} == {torch.float32}


VALUES = [
    (
        "w |> reshape(2, 2, -1) |> take(1, 1) |> reshape(-1)",
        lambda w: w.view(2, 2, 3)[:, 1].ravel(),
    ),
    ("w |> permute(1, 0)", lambda w: w.T),
    ("w |> columns(1, 3) |> flip(1)", lambda w: w[:, 1:3].flip(1)),
    ("w |> slice(0, 1, axis = 1)", lambda w: w[:, :1]),
    ("w |> part(1, 2)", lambda w: w[2:]),
    ("concat(w, 2 * w, axis = 1)", lambda w: torch.cat([w, 2 * w], 1)),
    ("stack(e.{k}, axis = 1)", lambda w: torch.stack([w[0], w[1], w[2]], 1)),
    ("stack(e.{2 * 1}, e.{0})", lambda w: torch.stack([w[2], w[0]])),
    ("matmul(w, w |> transpose)", lambda w: w @ w.T),
    ("(w - 1) * w / 2 - (-w)", lambda w: (w - 1) * w / 2 + w),
    ("sqrt(square(w)) + sigmoid(w) + tanh(w)", lambda w: w.abs() + w.sigmoid() + w.tanh()),
    ("inverse_softplus(softplus(w))", lambda w: w),
    ('"odd name" or w', lambda w: w),
]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[text for text, _ in VALUES])
def test_values(text: str, expected, tmp_path: Path) -> None:
    w = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    tensors = {"w": w.clone(), **{f"e.{k}": w[k].clone() for k in range(3)}}
    save_file(tensors, tmp_path / "w.safetensors")
    wanted = expected(w)
    from starc.runtime.importing import Wanted, import_weights
    from starc.runtime.pretrained import open_pretrained

    map_ = parse_map(Source("v.map", f"p = {text}\nignore w ignore e.{{i}}"))
    found = import_weights(
        map_, open_pretrained(tmp_path / "w.safetensors"), Wanted({"p": tuple(wanted.shape)})
    )
    torch.testing.assert_close(found["p"], wanted)


BAD = [
    ("head.weight = lm_head.weight or wte.weight", "head.weight = wte.weigth", "unknown-name"),
    ("head.weight = lm_head.weight or wte.weight", "", "parameter-missing"),
    ("ignore h.{i}.mask,", "ignore", "tensor-unread"),
    ("|> part(0, 2)", "", "shape-mismatch"),
    ("|> part(0, 2)", "|> part(0, 5)", "wrong-argument"),
    ("|> part(0, 2)", "|> part(0.5, 2)", "wrong-argument"),
    ("|> part(0, 2)", "|> prat(0, 2)", "unknown-name"),
    ("|> part(0, 2)", "|> part(wte.weight, 2)", "wrong-argument"),
    ("|> part(0, 2)", "|> part", "wrong-argument"),
    ("|> part(0, 2)", "|> part(0, 2, base = 3)", "wrong-argument"),
    ("|> part(0, 2)", "|> reshape(5, -1)", "wrong-argument"),
    ("|> part(0, 2)", "+ wte.weight", "map-syntax"),
    ("1 + h.{i}.ln.weight", "wte.weight + h.{i}.fc.weight", "shape-mismatch"),
    ("hidden_rows, 2", "hidden_rows / 0, 2", "bad-number"),
    ("hidden_rows, 2", "kind, 2", "wrong-type"),
    ("hidden_rows, 2", "theta, 2", "unknown-name"),
    ("= n_layer", "= n_layers", "unknown-name"),
    ("= n_layer", "= wte.weight", "unknown-name"),
    ("layers = n_layer", "layres = n_layer", "unknown-name"),
    ("h.{i}.out", "h.{j}.out", "map-syntax"),
    ("h.{i}.out", "h.{i - 1}.out", "map-syntax"),
    ("head.weight =", "blocks.{k}.mlp.y.weight =", "duplicate"),
    ("head.weight =", "hed.weight =", "unknown-name"),
    ('program "tiny.star"', 'program "none.star"', "file-not-found"),
    ('program "tiny.star"', "", "missing-argument"),
    ('program "tiny.star"', 'program "tiny.star" program "tiny.star"', "map-syntax"),
    ("1 + h.{i}.ln.weight", "1 + ", "map-syntax"),
    ("1 + h.{i}.ln.weight", "(" * 200, "map-syntax"),
    ("1 + h.{i}.ln.weight", "1e999999999", "map-syntax"),
    ("1 + h.{i}.ln.weight", "h.{i}.ln.weight |> 3", "map-syntax"),
    ("1 + h.{i}.ln.weight", "?", "map-syntax"),
    ("require kind = other or word", "require kind = other", "checkpoint-differs"),
    ("require n_layer = 2", "require n_layer = 3", "checkpoint-differs"),
    ("require n_layer = 2", "require n_layer = (2)", "map-syntax"),
    ("= n_layer", "= count(kinds, full)", "unknown-name"),
    ("= n_layer", "= count(kind, full)", "wrong-argument"),
    ("= n_layer", "= count(3, full)", "wrong-argument"),
    ("settings {", "settings", "map-syntax"),
    ("settings { layers", "settings { layers = 1 vocab = ", "map-syntax"),
]


@pytest.mark.parametrize(("old", "new", "code"), BAD)
def test_bad_maps(
    old: str, new: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in MAP
    assert f"error[{code}]" in refusal(folder, MAP.replace(old, new), monkeypatch)


def test_a_shape_that_differs_is_shown_once_for_all_layers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MAP.replace("h.{i}.fc.weight |> transpose |> part(0, 2)", "h.{i}.out.weight")
    assert refusal(folder, text, monkeypatch) == (
        "error[shape-mismatch]: 'blocks.0.mlp.a.weight' needs shape (6, 4), but this has (4, 6).\n"
        " --> tiny.map:5:27\n"
        " 5 | blocks.{i}.mlp.a.weight = h.{i}.out.weight\n"
        "   |                           ^^^^^^^^^^^^^^^^ shape (4, 6)\n"
        "hint: add |> transpose: this matrix is stored inputs by outputs.\n"
    )


def test_what_is_missing_is_listed_without_repeating_layers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [line for line in MAP.splitlines() if ".mlp." not in line]
    assert refusal(folder, "\n".join(kept), monkeypatch) == (
        "error[parameter-missing]: no entry of 'tiny.map' gives 'blocks.{0..1}.mlp.a.bias', "
        "'blocks.{0..1}.mlp.a.weight', 'blocks.{0..1}.mlp.b.weight', "
        "'blocks.{0..1}.mlp.y.weight'.\n"
        "hint: every parameter of the program needs an entry: PARAMETER = TENSOR, or = 0.\n"
    )


def test_two_tensors_for_tied_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.star").write_text(PROGRAM.replace("hidden = 6", "hidden = 6 embedding = tied"))
    found = import_checkpoint(folder, folder / "tiny.map").tensors
    assert "head.weight" not in found
    tensors = {**checkpoint(), "lm_head.weight": torch.zeros(11, 4)}
    save_file(tensors, folder / "model.safetensors")
    assert "error[weights-not-tied]" in refusal(folder, MAP, monkeypatch)


def test_damaged_checkpoints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return refusal(folder, MAP, monkeypatch)

    assert "error[not-a-checkpoint]" in broken("config.json", b"{")
    (folder / "config.json").unlink()
    assert "error[unknown-name]" in refusal(folder, MAP, monkeypatch)  # n_layer
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert "error[not-a-checkpoint]" in broken("model.safetensors", b"nothing")
    (folder / "model.safetensors").unlink()
    assert "error[not-a-checkpoint]" in refusal(folder, MAP, monkeypatch)
    assert "error[not-a-checkpoint]" in broken("pytorch_model.bin", b"nothing")
    torch.save([1, 2], folder / "pytorch_model.bin")
    assert "error[not-a-checkpoint]" in refusal(folder, MAP, monkeypatch)
    assert "error[not-a-checkpoint]" in broken("model.safetensors.index.json", b"[]")
    index = json.dumps({"weight_map": {"a": "../../missing.safetensors"}}).encode()
    assert "missing.safetensors" in broken("model.safetensors.index.json", index)


def test_code_in_a_checkpoint_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Payload:
        def __reduce__(self):
            return Path.touch, (folder / "ran",)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Payload()}, folder / "pytorch_model.bin")
    assert "error[not-a-checkpoint]" in refusal(folder, MAP, monkeypatch)
    assert not (folder / "ran").exists()


def test_collapse() -> None:
    names = ["h.0.w", "h.1.w", "h.10.w", "k.2.b", "final"]
    assert collapse(names) == ["h.{0..10}.w", "k.2.b", "final"]


def test_saved_file_holds_the_module_state(folder: Path) -> None:
    from starc.cli import run

    arguments = ["import", "--from", "transformers", str(folder)]
    target = folder / "out.safetensors"
    assert run([*arguments, "--map", str(folder / "tiny.map"), "-o", str(target)]) == 0
    model = load(folder / "out.py").Model()
    starc.load_weights(model, target)
    assert torch.equal(model.embedding.weight, load_file(target)["embedding.weight"])
    with pytest.raises(StarError, match="does not belong"):
        starc.load_weights(torch.nn.Linear(2, 3), target)
    assert run([*arguments, "-o", str(target)]) == 1
    assert run([*arguments, "--map", str(folder / "tiny.map"), "-o", str(folder / "o.py")]) == 1
    assert run([*arguments, "--map", str(folder / "tiny.map"), "-o", "/none/o.safetensors"]) == 1
    assert run(["import", "--from", "keras", str(folder), "--list"]) == 1


def test_list_shows_both_sides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from starc.cli import run

    program = str(folder / "tiny.star")
    assert run(["import", program, "--from", "transformers", str(folder), "--list"]) == 0
    out = capsys.readouterr().out
    assert "h.{0..1}.fc.weight  4 x 12\n" in out
    assert "blocks.0.mlp.a.weight  6 x 4\n" in out
