"""`hwdkit checkpoint strip`: smaller, silent about the machine that trained it, and the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Pair, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands.checkpoint import strip as checkpoint_strip
from hwdkit.commands.checkpoint.strip import without_paths
from hwdkit.engine.networks import load_network


def stripped(source: Path, out: Path, *more: object) -> dict[str, Any]:
    done = hwdkit("checkpoint", "strip", source, "-o", out, *more, "--json")
    assert done.code == 0, done.err
    return done.document


def logits(path: Path) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    image = torch.randint(256, (2, 3, 40, 56), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        return load_network(path).model.eval()(image).logits


def test_the_network_is_the_same_without_its_auxiliary_head(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    result = stripped(pair.student, out)
    before, after = load_network(pair.student), load_network(out)
    assert before.model.aux_head is not None
    assert after.model.aux_head is None
    assert not any(name.startswith("aux_head") for name in load_model(out)[0])
    assert torch.equal(logits(out), logits(pair.student))
    assert result["difference"] == {"logits": 0, "relative": 0, "classes": 0}
    removed = sum(p.numel() for p in before.model.aux_head.parameters())
    assert (result["aux_parameters"], result["bytes"]) == (removed, out.stat().st_size)
    assert result["bytes_before"] - result["bytes"] > 4 * removed
    kept = (
        "classes",
        "palette",
        "dataset",
        "dataset_fingerprint",
        "metrics",
        "recipe",
        "recipe_sha256",
        "step",
    )
    assert {key: after.metadata[key] for key in kept} == {key: before.metadata[key] for key in kept}


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_the_bits_give_half_the_file_and_a_float32_network(
    pair: Pair, tmp_path: Path, dtype: str, kind: torch.dtype
) -> None:
    out = tmp_path / "out.safetensors"
    result = stripped(pair.student, out, "--dtype", dtype)
    state, metadata = load_model(out)
    assert {tensor.dtype for tensor in state.values()} == {kind, torch.int64}
    assert (metadata["stripped"]["weights"], metadata["stripped"]["loads_as"]) == (dtype, "fp32")
    assert {p.dtype for p in load_network(out).model.parameters()} == {torch.float32}
    assert result["bytes"] < 0.75 * result["bytes_before"]
    assert 0 < result["difference"]["relative"] < 0.1
    apart = (logits(out) - logits(pair.student)).abs().max()
    assert 0 < apart < 0.1
    told = hwdkit("checkpoint", "inspect", out).out
    assert f"weights {dtype}, auxiliary head removed" in told


def test_evaluate_and_predict_take_the_result(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    stripped(pair.student, out)
    on_cpu = ["--gpus", 0, "--json"]
    of_data = ["--data-root", pair.data, "-q", *on_cpu]
    whole, small = (hwdkit("evaluate", "-c", path, *of_data).document for path in (pair.student, out))
    assert small["per_class"] == whole["per_class"]
    image = next((pair.data / "scenes").rglob("*.png"))
    assert hwdkit("predict", image, "-c", out, "-o", tmp_path / "masks", "-q", *on_cpu).code == 0
    assert hwdkit("checkpoint", "verify", out).code == 0


@pytest.mark.slow
def test_profile_takes_the_result(pair: Pair, tmp_path: Path) -> None:
    stripped(pair.student, tmp_path / "out.safetensors", "--dtype", "fp16")
    done = hwdkit("profile", "-c", tmp_path / "out.safetensors", "--input", "64x64", "--json")
    assert done.code == 0, done.err


def test_stripping_twice_changes_nothing(pair: Pair, tmp_path: Path) -> None:
    stripped(pair.student, tmp_path / "a.safetensors")
    result = stripped(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result["aux_parameters"] == 0
    one, two = (load_model(tmp_path / f"{name}.safetensors")[0] for name in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_no_path_of_the_machine_is_left(pair: Pair, tmp_path: Path) -> None:
    state, metadata = load_model(pair.student / "student.safetensors")
    private = {
        "teacher": "/home/ann/my runs/teacher.safetensors",
        "argv": [
            "distill",
            "--teacher=/home/ann/t.pth",
            "~/runs/x",
            "C:\\Users\\ann\\y.pth",
            "file:///home/ann/z",
        ],
        "note": "from https://example.org/a/b, kept in '/home/ann/k.pth', 3/4 done",
    }
    save_model(tmp_path / "a.safetensors", state, {**metadata, **private})
    result = stripped(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    _, kept = load_model(tmp_path / "b.safetensors")
    assert kept["teacher"] == "teacher.safetensors"
    assert kept["argv"] == ["distill", "--teacher=t.pth", "x", "y.pth", "z"]
    assert kept["note"] == "from https://example.org/a/b, kept in 'k.pth', 3/4 done"
    assert result["shortened"] == ["argv.1", "argv.2", "argv.3", "argv.4", "note", "teacher"]
    assert b"/home" not in (tmp_path / "b.safetensors").read_bytes()[:20_000]


def test_class_names_stay_as_they_are() -> None:
    facts = {"classes": ["/", "/road", "C:\\x"], "dataset": "a/b"}
    assert without_paths(facts) == (facts, [])


def test_nothing_is_written_where_the_logits_would_differ(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint_strip.save_model

    def damaging(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        name = next(key for key in state if key.startswith("head.") and key.endswith("weight"))
        real(path, {**state, name: state[name] * 1.001}, metadata)

    monkeypatch.setattr(checkpoint_strip, "save_model", damaging)
    done = hwdkit("checkpoint", "strip", pair.student, "-o", tmp_path / "out.safetensors")
    assert done.code == 5
    assert "its logits differ by" in done.err
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_fp16_are_refused_with_what_holds_them(pair: Pair, tmp_path: Path) -> None:
    state, metadata = load_model(pair.student / "student.safetensors")
    state["backbone.bn1.running_var"] = torch.full_like(state["backbone.bn1.running_var"], 1e6)
    save_model(tmp_path / "a.safetensors", state, metadata)
    line = ["checkpoint", "strip", tmp_path / "a.safetensors", "-o", tmp_path / "b.safetensors", "--dtype"]
    done = hwdkit(*line, "fp16")
    assert done.code == 5
    assert "too large for fp16: NaN or infinity in backbone.bn1.running_var" in done.err
    assert "--dtype bf16" in done.err
    assert not (tmp_path / "b.safetensors").exists()
    assert hwdkit(*line, "bf16").code == 0


def test_an_output_that_cannot_be_is_told_before_anything_is_read(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").write_text("mine")
    for name, complaint in (
        ("there.safetensors", "nothing is overwritten"),
        ("out.pth", "does not end in .safetensors"),
        ("there.safetensors/x.safetensors", "is a file, not a folder"),
        (f"{'a' * 300}.safetensors", "File name too long"),
        (f"{'a' * 230}.safetensors", "longer than 220 bytes"),
    ):
        done = hwdkit("checkpoint", "strip", pair.student, "-o", tmp_path / name)
        assert (done.code, "Traceback" in done.err) == (2, False)
        assert complaint in done.err
    assert hwdkit("checkpoint", "strip", pair.student, "-o", tmp_path / "b", "--dtype", "int8").code == 2
    assert (tmp_path / "there.safetensors").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.safetensors"]


@pytest.mark.parametrize("command", ["inspect", "verify", "card"])
def test_a_name_that_no_file_can_have_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    done = hwdkit("checkpoint", command, tmp_path / ("a" * 300))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "File name too long" in done.err
