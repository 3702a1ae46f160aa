"""What `hwdkit compare` reads, which runs it joins, what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import Outcome, Pair, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands.compare.counts import read_counts
from hwdkit.commands.compare.seed_paths import SeedPaths, parse
from hwdkit.engine.networks import load_network
from hwdkit.errors import UsageError
from hwdkit.recipe.load import dump, loads_resolved


@pytest.fixture(scope="module")
def runs(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs of the pair's student with other seeds, weights and recipes; each made once.

    After two steps it sees one class everywhere, so its logits are centred, and moved a little by the seed.
    """
    folder = tmp_path_factory.mktemp("runs")
    model = load_network(pair.student).model.eval()
    state, description = load_model(pair.student / "student.safetensors")
    with torch.no_grad():
        noise = torch.randint(
            0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        mean = model(noise).logits.mean((0, 2, 3))
    (bias,) = [name for name in state if name.startswith("head.") and state[name].shape == (12,)]

    def make(name: str, *, seed: int = 0, set_: tuple[str, ...] = (), **facts: Any) -> Path:
        path = folder / name
        if path.exists():
            return path
        shutil.copytree(pair.student, path)
        text = (pair.student / "recipe.yaml").read_text()
        recipe = loads_resolved(text, overrides=[f"seed={seed}", *set_])
        (path / "recipe.yaml").write_text(dump(recipe))
        moved = 0.02 * torch.randn(12, generator=torch.Generator().manual_seed(seed + 100 * len(set_)))
        save_model(
            path / "student.safetensors",
            {**state, bias: state[bias] - mean + moved},
            {**description, **facts},
        )
        return path

    return make


def baseline(runs: Callable[..., Path], seed: int = 0) -> Path:
    """A run whose recipe has no distillation loss."""
    path = runs(f"alone-{seed}", seed=seed + 40)
    recipe = loads_resolved((path / "recipe.yaml").read_text())
    update = {"losses": {"ce": recipe.losses["ce"]}, "teacher": None, "name": "alone", "seed": seed}
    (path / "recipe.yaml").write_text(dump(recipe.model_copy(update=update)))
    return path


def compared(pair: Pair, *arguments: object) -> Outcome:
    """A comparison on the CPU, of the first image unless the arguments say otherwise."""
    own: tuple[object, ...] = () if "--data-root" in arguments else ("--data-root", pair.data)
    own += () if "--limit" in arguments else ("--limit", 1)
    return hwdkit("compare", *arguments, *own, "--gpus", 0, "--workers", 0, "-q", "--resamples", 200)


def document(pair: Pair, *arguments: object) -> dict[str, Any]:
    done = compared(pair, *arguments, "--json")
    assert done.code == 0, done.err
    return done.document


def test_scores_and_costs_are_those_of_evaluate_and_profile(pair: Pair, runs: Callable[..., Path]) -> None:
    rows = document(pair, runs("a"), pair.teacher, "--absent", "paper", "--limit", 4)["methods"]
    line = ["--data-root", pair.data, "--gpus", 0, "--absent", "paper", "--workers", 0, "--json", "-q"]
    for row, path in zip(rows, (pair.teacher, runs("a")), strict=True):
        truth = hwdkit("evaluate", "-c", path, *line).document
        assert row["miou"] == pytest.approx(truth["miou"], abs=1e-15)
        assert [each["iou"] for each in row["per_class"]] == [each["iou"] for each in truth["per_class"]]
        assert row["seeds"][0]["checkpoint_sha256"] == truth["checkpoint_sha256"]
    (cost,) = hwdkit("profile", "-c", runs("a"), "--gpus", 0, "--json", "-q").document["profiles"]
    assert (rows[1]["params"], rows[1]["gmacs"] * 1e9) == (
        cost["params_deployed"],
        cost["macs_deployed"]["true"],
    )


def test_runs_that_differ_in_their_seed_alone_are_one_method(pair: Pair, runs: Callable[..., Path]) -> None:
    other = runs("hotter", seed=7, set_=("losses.hwd.temperature=2.0",))
    result = document(pair, runs("a"), baseline(runs), runs("b", seed=1), other, runs("c", seed=2))
    found = {row["name"]: [seed["seed"] for seed in row["seeds"]] for row in result["methods"]}
    assert found == {"alone": [0], "scenes-r10-hwd (a)": [0, 1, 2], "scenes-r10-hwd (hotter)": [7]}
    assert result["baseline"] == "alone"
    assert [each["against"] for each in result["differences"]] == ["alone", "alone"]
    assert result["methods"][1]["miou_std"] is not None
    assert result["methods"][2]["miou_std"] is None


def test_what_moves_no_weight_parts_no_seeds_and_an_unknown_teacher_is_told_by_its_path(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    def other(name: str, *, info: str | None = None, set_: tuple[str, ...]) -> Path:
        path = shutil.copytree(runs(f"seed-{name}", seed=len(name)), tmp_path / name)
        text = (path / "recipe.yaml").read_text()
        (path / "recipe.yaml").write_text(dump(loads_resolved(text, overrides=set_)))
        if info is not None:
            (path / "run.json").write_text(info)
        return path

    told = other("told", set_=("train.log_every=7", "train.save_every=9", "train.evaluate_every=3"))
    elsewhere = other("elsewhere", set_=("teacher.checkpoint=moved/teacher.safetensors",))
    unknown = [
        other(name, info="{}", set_=(f"teacher.checkpoint={name}/teacher.safetensors",))
        for name in ("one", "another")
    ]
    result = document(pair, runs("a"), told, elsewhere, *unknown, "--limit", 1)
    assert [len(row["seeds"]) for row in result["methods"]] == [3, 1, 1]


def test_named_groups_are_as_the_command_line_says(pair: Pair, runs: Callable[..., Path]) -> None:
    checkpoint = runs("b", seed=1) / "student.safetensors"
    result = document(pair, f"mine={runs('a')},{checkpoint}", f"theirs={runs('c', seed=2)}")
    mine, theirs = result["methods"]
    assert [seed["seed"] for seed in mine["seeds"]] == [0, None]
    assert (mine["name"], theirs["name"]) == ("mine", "theirs")
    assert [(each["method"], each["against"]) for each in result["differences"]] == [("theirs", "mine")]


def folder_of(folder: Path, *members: Path) -> Path:
    """What a recipe's folder below runs/ is after some runs without --out."""
    for member in members:
        shutil.copytree(member, folder / f"20260101T000000Z-{member.name}")
    return folder


def stopped(path: Path) -> Path:
    """Make a run one that has not finished."""
    (path / "student.safetensors").unlink()
    (path / "run.json").write_text('{"status": "interrupted"}')
    return path


def test_folder_of_runs_stands_for_the_seeds_in_it(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    alone = folder_of(tmp_path / "runs" / "scenes-alone", baseline(runs))
    hwd = folder_of(tmp_path / "runs" / "scenes-hwd", runs("a"), runs("b", seed=1), runs("c", seed=2))
    teacher = folder_of(tmp_path / "runs" / "scenes-teacher", pair.teacher)
    (hwd / "notes").mkdir()
    stopped(next(hwd.glob("*-c")))
    done = compared(pair, alone, hwd, teacher, "--json")
    assert done.code == 0, done.err
    assert f"{hwd}: left out, not finished: 20260101T000000Z-c" in done.err.replace("\n", "")
    found = {row["name"]: [seed["seed"] for seed in row["seeds"]] for row in done.document["methods"]}
    assert found == {"scenes-alone": [0], "scenes-hwd": [0, 1], "scenes-teacher": [0]}
    assert done.document["baseline"] == "scenes-alone"
    named = document(
        pair, f"mine={hwd},{runs('c', seed=2)}", alone, "--teacher", teacher, "--baseline", alone
    )
    assert {row["name"]: len(row["seeds"]) for row in named["methods"]} == {
        "teacher": 1,
        "scenes-alone": 1,
        "mine": 3,
    }
    assert named["baseline"] == "scenes-alone"


def test_runs_of_one_folder_that_differ_in_more_than_their_seed_are_no_seeds(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    hotter = runs("hotter", seed=7, set_=("losses.hwd.temperature=2.0",))
    folder = folder_of(tmp_path / "mixed", runs("a"), runs("b", seed=1), hotter)
    assert [len(row["seeds"]) for row in document(pair, folder)["methods"]] == [2, 1]
    assert [len(row["seeds"]) for row in document(pair, f"x={folder}")["methods"]] == [3]


def test_of_runs_of_one_recipe_and_seed_the_newest_counts(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "twice", runs("a"), runs("b", seed=1))
    shutil.copytree(runs("a"), folder / "20270101T000000Z-a")
    done = compared(pair, folder, "--json")
    assert done.code == 0, done.err
    assert [seed["seed"] for row in done.document["methods"] for seed in row["seeds"]] == [0, 1]
    assert "run again later with the same recipe and seed: 20260101T000000Z-a" in done.err.replace("\n", "")


def test_folders_of_one_name_are_told_by_their_paths(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(Path("old/hwd"), runs("a"))
    folder_of(Path("new/hwd"), runs("b", seed=1))
    names = [row["name"] for row in document(pair, "old/hwd", "new/hwd")["methods"]]
    assert names == ["hwd (old/hwd)", "hwd (new/hwd)"]
    monkeypatch.chdir(tmp_path / "old" / "hwd")
    assert [row["name"] for row in document(pair, ".")["methods"]] == ["hwd"]


def test_folder_without_networks_says_so(pair: Pair, runs: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder_of(tmp_path / "stopped", runs("a"))
    run = stopped(next((tmp_path / "stopped").iterdir()))
    for folder in (tmp_path / "empty", tmp_path / "stopped"):
        done = compared(pair, runs("b", seed=1), f"x={folder}")
        assert done.code == 5
        assert "holds no network, and directly below it there is no finished run" in done.err
    assert f"--resume {run}" in done.err.replace("\n", "")
    alone = compared(pair, run)
    assert alone.code == 5
    assert "continue it: --resume" in alone.err


def test_order_of_arguments_changes_no_number(pair: Pair, runs: Callable[..., Path]) -> None:
    base, a, b = baseline(runs), runs("a"), runs("b", seed=1)
    there = document(pair, base, a, b, "--limit", 2)
    back = document(pair, b, a, base, "--limit", 2)
    assert {row["name"]: row["miou"] for row in there["methods"]} == {
        row["name"]: row["miou"] for row in back["methods"]
    }
    assert there["differences"] == back["differences"]


def test_teacher_stands_first_and_is_no_baseline(pair: Pair, runs: Callable[..., Path]) -> None:
    result = document(pair, runs("a"), pair.teacher, "--limit", 1)
    assert [row["role"] for row in result["methods"]] == ["teacher", "student"]
    assert result["baseline"] is None
    named = document(pair, runs("a"), "--teacher", pair.teacher, "--limit", 1)
    assert [row["name"] for row in named["methods"]] == ["teacher", "scenes-r10-hwd"]


def test_baseline_is_chosen_by_name_or_by_path(pair: Pair, runs: Callable[..., Path]) -> None:
    arguments = [f"one={runs('a')}", f"two={runs('b', seed=1)}", f"three={runs('c', seed=2)}"]
    for wanted, more, found in (("two", "--all-pairs", 3), (runs("b", seed=1), "-q", 2)):
        result = document(pair, *arguments, "--limit", 1, "--baseline", wanted, more)
        assert result["baseline"] == "two"
        assert len(result["differences"]) == found
    missing = compared(pair, *arguments, "--baseline", "four")
    assert missing.code == 2
    assert "one, two, three" in missing.err


def test_two_methods_without_distillation_leave_the_baseline_open(
    pair: Pair, runs: Callable[..., Path]
) -> None:
    arguments = [f"x={baseline(runs)}", f"y={baseline(runs, 1)}", f"z={runs('a')}"]
    result = document(pair, *arguments, "--limit", 1)
    assert (result["baseline"], result["differences"]) == (None, [])


def test_costs_come_from_the_log_and_are_unknown_for_a_checkpoint(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs("a"), tmp_path / "run")
    rows = [{"step": 2, "step_ms": 300.0, "memory_mib": 70.5}, {"step": 2, "miou": 0.1}]
    rows += [{"step": 12, "step_ms": 500.0, "memory_mib": 60.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row, alone = document(pair, run, f"x={runs('b', seed=1) / 'student.safetensors'}")["methods"]
    assert (row["step_seconds"], row["memory_mib"]) == (0.4, 70.5)
    assert row["training_hours"] == pytest.approx((2 * 0.3 + 10 * 0.5) / 3600)
    assert row["miou_per_hour"] == pytest.approx(row["miou"] / row["training_hours"])
    assert [alone[key] for key in ("step_seconds", "memory_mib", "training_hours")] == [None] * 3
    assert "unknown" in compared(pair, f"x={runs('b', seed=1) / 'student.safetensors'}").out


@pytest.mark.parametrize(
    ("file", "text"),
    [("run.json", "[1"), ("run.json", "[]"), ("metrics.jsonl", "nonsense\n"), ("metrics.jsonl", "[]\n3\n")],
)
def test_records_that_cannot_be_read_cost_their_columns_alone(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path, file: str, text: str
) -> None:
    run = shutil.copytree(runs("a"), tmp_path / "run")
    (run / file).write_text(text)
    assert document(pair, run, "--limit", 1)["methods"][0]["seeds"][0]["seed"] == 0


def test_run_without_recipe_or_records_is_a_checkpoint(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs("a"), tmp_path / "run")
    for name in ("run.json", "metrics.jsonl"):
        (run / name).unlink()
    (run / "recipe.yaml").write_text("losses: [no")
    done = compared(pair, run, runs("b", seed=1), "--json")
    assert done.code == 0, done.err
    assert "its seed is unknown" in done.err
    assert [len(row["seeds"]) for row in done.document["methods"]] == [1, 1]


def test_limit_is_kept_and_told(pair: Pair, runs: Callable[..., Path]) -> None:
    result = document(pair, runs("a"), "--limit", 2)
    assert (result["images"], result["images_in_split"]) == (2, 4)
    assert "Only the first 2 of 4 images were evaluated." in result["notes"]


def test_the_published_number_of_a_recipe_stands_beside_the_measured_one(
    pair: Pair, runs: Callable[..., Path]
) -> None:
    known = runs("published", set_=("name=ade20k-r18-hwd-released",))
    unknown = runs("unpublished", set_=("name=mine",))
    notes = document(pair, known, unknown)["notes"]
    assert [note for note in notes if note.startswith("mIoU of the recipe")] == [
        "mIoU of the recipe ade20k-r18-hwd-released: 33.85 (HWD, Table II) published."
    ]


def test_other_training_data_is_told(pair: Pair, runs: Callable[..., Path]) -> None:
    done = compared(pair, runs("moved", dataset_fingerprint="0" * 64), "--json")
    assert any("fingerprint differs" in note for note in done.document["notes"])
    assert "fingerprint differs" in done.err
    assert not any("fingerprint" in note for note in document(pair, runs("a"))["notes"])


def test_formats_go_to_stdout_alone_or_to_a_folder_together(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    pair_of_runs = [f"x={runs('a')}", f"y={runs('b', seed=1)}", "--baseline", "x"]
    latex = compared(pair, *pair_of_runs, "--format", "latex")
    assert r"\toprule" in latex.out
    assert latex.out.count("y − x") == 1
    assert json.loads(compared(pair, *pair_of_runs, "--format", "json").out)["baseline"] == "x"
    out = tmp_path / "out"
    done = compared(pair, *pair_of_runs, "-o", out, "--per-class")
    assert done.code == 0, done.err
    assert "y − x: " in done.out
    names = {path.name for path in out.iterdir()}
    assert names == {*(f"compare.{end}" for end in ("json", "csv", "md", "tex", "png")), "counts"}
    assert (out / "compare.tex").read_text().count(r"\begin{tabular}") == 3
    refused = compared(pair, *pair_of_runs, "--format", "md", "--format", "csv")
    assert refused.code == 2
    assert "--out" in refused.err


def test_counts_are_kept_for_the_next_time(pair: Pair, runs: Callable[..., Path], tmp_path: Path) -> None:
    line = [runs("a"), "-o", tmp_path / "out", "--format", "csv"]
    first = document(pair, *line)["methods"]
    (kept,) = (tmp_path / "out" / "counts").iterdir()
    counts = np.load(kept)
    np.save(kept, counts[:, [0, 1, 1]])  # what is kept is what is read
    assert document(pair, *line, "--absent", "paper")["methods"] != first
    kept.write_bytes(b"no array")
    done = compared(pair, *line, "--json")
    assert done.document["methods"] == first
    assert "evaluating again" in done.err
    document(pair, *line, "--limit", 2)
    assert len(list((tmp_path / "out" / "counts").iterdir())) == 2  # the rule comes after counting


def test_counts_that_cannot_be_are_not_read(tmp_path: Path) -> None:
    path, counts = tmp_path / "kept.npy", np.array([[[1, 2], [3, 2], [1, 4]]] * 5)
    assert read_counts(path, (5, 3, 2)) is None
    np.save(path, counts)
    np.testing.assert_array_equal(read_counts(path, (5, 3, 2)), counts)
    for damage in (b"", b"\x80\x04no array", path.read_bytes()[:-8]):
        path.write_bytes(damage)
        assert read_counts(path, (5, 3, 2)) is None
    for wrong in (counts[:2], -counts, counts.astype(float), counts[:, [1, 0, 2]], np.array(["x"])):
        np.save(path, wrong)
        assert read_counts(path, (5, 3, 2)) is None
    np.save(path, np.array([{}]), allow_pickle=True)
    assert read_counts(path, (5, 3, 2)) is None


def test_one_network_twice_is_no_second_seed(pair: Pair, runs: Callable[..., Path]) -> None:
    for arguments in ([runs("a"), runs("a")], [f"x={runs('a')},{runs('a') / 'student.safetensors'}"]):
        done = compared(pair, *arguments)
        assert done.code == 2
        assert "one seed counts once" in done.err
    result = document(pair, f"x={runs('a')}", f"y={runs('a')}")
    assert result["verdicts"] == ["y − x: the same networks under two names; no difference."]


def test_networks_that_do_not_fit_together_are_refused(
    pair: Pair, runs: Callable[..., Path], tmp_path: Path
) -> None:
    classes = load_network(pair.student).classes
    renamed = runs("renamed", classes=["street", *classes[1:]])
    elsewhere = runs("elsewhere", dataset="camvid")
    for other, words in ((renamed, "classes"), (elsewhere, "trained on camvid")):
        done = compared(pair, runs("a"), other)
        assert done.code == 5
        assert words in done.err
    mixed = compared(pair, f"x={runs('a')},{pair.teacher}")
    assert mixed.code == 5
    assert "seeds of 'x'" in mixed.err
    alone = compared(pair, renamed)
    assert alone.code == 5
    assert "'street' against 'road'" in alone.err
    assert compared(pair, elsewhere).code == 4
    assert compared(pair, runs("a"), "--split", "test").code == 4
    assert compared(pair, runs("a"), "--data-root", tmp_path).code == 4
    assert compared(pair, runs("a"), tmp_path / "none").code == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["=a"],
        ["x="],
        ["x=a,,b"],
        ["x=a", "x=b"],
        ["teacher=a", "--teacher", "b"],
        ["a", "--format", "html"],
        ["a", "--format", "png"],
        ["a", "--absent", "never"],
        ["a", "--confidence", "100"],
        ["a", "--resamples", "5"],
        ["a", "--out", __file__],
        ["a", "--json", "--format", "csv"],
        ["a", "--confidence", "nan"],
        [],
    ],
)
def test_command_lines_that_mean_nothing_are_usage_errors(arguments: list[str]) -> None:
    assert hwdkit("compare", *arguments).code == 2


def test_path_that_exists_is_a_path_whatever_signs_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1,seed=0").mkdir()
    odd = Path("lr=0.1,seed=0")
    assert parse(["lr=0.1,seed=0", "x=lr=0.1,seed=0", "y=a,b"], None) == (
        SeedPaths((odd,)),
        SeedPaths((odd,), "x"),
        SeedPaths((Path("a"), Path("b")), "y"),
    )
    with pytest.raises(UsageError, match="no name"):
        parse([" =a"], None)
    assert parse(["x" * 5000, "a\0b"], None)[0].name is None
