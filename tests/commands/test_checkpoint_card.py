"""`hwdkit checkpoint card`: what the files hold, all of it true, and nothing that a file could smuggle in."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tiny_runs import Pair, hwdkit

from hwdkit.checkpoints.files import file_digest, load_model, save_model
from hwdkit.report.card import escaped
from hwdkit.report.papers import PAPERS, papers_of


def card_of(*arguments: object) -> tuple[dict[str, Any], str]:
    """Its front matter and its text."""
    done = hwdkit("checkpoint", "card", *arguments)
    assert done.code == 0, done.err
    _, header, text = done.out.split("---\n", 2)
    return yaml.safe_load(header), text


def described(pair: Pair, path: Path, **facts: Any) -> Path:
    """The student with another description."""
    state, metadata = load_model(pair.student / "student.safetensors")
    save_model(path, state, {**metadata, **facts})
    return path


def test_a_runs_checkpoint_says_how_it_was_trained(pair: Pair) -> None:
    header, text = card_of(pair.student)
    metrics = load_model(pair.student / "student.safetensors")[1]["metrics"]
    assert header["library_name"] == "hwdkit"
    assert header["pipeline_tag"] == "image-segmentation"
    assert header["tags"] == ["semantic-segmentation", "knowledge-distillation"]
    assert header["datasets"] == ["scenes"]
    assert "license" not in header
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"] == {"name": "scenes", "type": "scenes", "split": "val"}
    assert result["metrics"][0] == {"type": "mean_iou", "name": "mIoU", "value": metrics["miou"]}
    for fact in (
        "1 ce + 3 hwd",
        "scenes-r10-hwd",
        "2 of 2, 2 crops of 32x32",
        "| seed | 0 |",
        "first on cpu",
    ):
        assert fact in text
    assert f"| scenes val, while training, step 2 | {100 * metrics['miou']:.2f} |" in text
    assert "Holistic Weighted Distillation for Semantic Segmentation" in text
    assert "Every pixel gets one of the classes" in text
    assert str(pair.student.parent) not in text, "a path of this machine"


def test_what_is_unknown_is_left_out(pair: Pair, tmp_path: Path) -> None:
    state, metadata = load_model(pair.student / "student.safetensors")
    kept = {key: metadata[key] for key in ("format", "network", "classes", "palette", "dataset")}
    save_model(tmp_path / "a.safetensors", state, kept)
    header, text = card_of(tmp_path / "a.safetensors")
    assert header.keys() == {"library_name", "pipeline_tag", "tags", "datasets"}
    assert header["tags"] == ["semantic-segmentation"]
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections == ["How to use it", "Input", "Limits"]
    assert "None" not in text


def test_a_run_speaks_for_its_own_checkpoint_only(pair: Pair, tmp_path: Path) -> None:
    strange = tmp_path / "run"
    shutil.copytree(pair.student, strange)
    (strange / "recipe.yaml").write_text((strange / "recipe.yaml").read_text().replace("seed: 0", "seed: 1"))
    done = hwdkit("checkpoint", "card", strange)
    assert done.code == 0
    assert "How it was trained" not in done.out
    assert "will not say how it was trained" in done.err
    lone = described(pair, tmp_path / "lone.safetensors")
    assert "How it was trained" not in card_of(lone)[1]
    assert "1 ce + 3 hwd" in card_of(lone, "--run", pair.student)[1]
    for run in (strange, pair.teacher, tmp_path / "nowhere"):
        done = hwdkit("checkpoint", "card", lone, "--run", run)
        assert done.code == 4
        assert "not the run of this checkpoint" in done.err


def test_a_run_json_from_outside_cannot_break_a_card(pair: Pair, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(pair.student, copy)
    info = json.loads((copy / "run.json").read_text())
    for changed in ({"result": {"seconds": 10**400}}, {"x": json.loads(200 * "[" + 200 * "]")}):
        (copy / "run.json").write_text(json.dumps({**info, **changed}))
        done = hwdkit("checkpoint", "card", copy)
        assert done.code == 0
        assert "will not say how it was trained" in done.err
    odd: dict[str, Any] = {"result": {"seconds": [1]}, "versions": [1], "world_size": "2", "argv": 3}
    (copy / "run.json").write_text(json.dumps({**info, **odd}))
    text = card_of(copy)[1]
    assert "| losses | 1 ce + 3 hwd |" in text
    assert "| time |" not in text


def test_a_recipe_named_by_a_path_and_losses_without_weight_are_not_told(pair: Pair, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(pair.student, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["teacher"]["recipe"] = "/home/ann/secret/teacher.yaml"
    recipe["losses"]["hwd"]["weight"] = 0.0
    text = yaml.safe_dump(recipe)
    (copy / "recipe.yaml").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    described(pair, copy / "student.safetensors", recipe_sha256=sha256)
    card = card_of(copy)[1]
    assert "| teacher | teacher.yaml" in card
    assert "/home/ann" not in card
    assert "| losses | 1 ce |" in card
    assert "Holistic" not in card


def test_an_evaluation_adds_the_classes_if_it_is_of_this_file(pair: Pair, tmp_path: Path) -> None:
    line = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "-q", "--json"]
    measured = tmp_path / "val.json"
    measured.write_text(hwdkit(*line, "--limit", 3).out)
    header, text = card_of(pair.student, "--evaluation", measured)
    result = json.loads(measured.read_text())
    (row,) = header["model-index"][0]["results"]
    assert row["metrics"][0]["value"] == result["miou"]
    assert "| scenes val, 3 of 4 images; whole, scales 1 |" in text
    for entry in result["per_class"]:
        iou = "absent" if entry["iou"] is None else f"{100 * entry['iou']:.2f}"
        assert f"| {entry['name']} | {iou} |" in text
    done = hwdkit("checkpoint", "card", pair.teacher, "--evaluation", measured)
    assert done.code == 4
    assert "is an evaluation of another checkpoint" in done.err
    changed = [{**result, "images": float("inf")}, {**result, "miou": 10**400}]
    for content in ("{}", "[", "3", '{"checkpoint_sha256": 1, "protocol": []}', *map(json.dumps, changed)):
        measured.write_text(content)
        done = hwdkit("checkpoint", "card", pair.student, "--evaluation", measured)
        assert (done.code, "is not the result of an evaluation" in done.err) == (4, True)


def test_the_python_of_a_card_runs(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "it's my `net`.safetensors"
    shutil.copy(pair.student / "student.safetensors", tmp_path / name)
    Image.new("RGB", (50, 40), (90, 120, 30)).save(tmp_path / "photo.jpg")
    text = card_of(tmp_path / name)[1]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["mask"].shape == (40, 50)
    assert capsys.readouterr().out.startswith("['")
    (shell,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert """-c 'it'"'"'s my `net`.safetensors' """ in shell


def test_names_from_a_file_cannot_leave_their_place(pair: Pair, tmp_path: Path) -> None:
    evil = "x\n---\nlicense: mit\n# <script>alert(1)</script> | [a](http://b) ```\x1b[2J"
    state, metadata = load_model(pair.student / "student.safetensors")
    facts = {
        "dataset": evil.replace("/", ""),
        "recipe": evil,
        "role": evil,
        "hwdkit": evil,
        "imported": {"from": evil},
    }
    classes = [evil, *metadata["classes"][1:]]
    save_model(tmp_path / "a.safetensors", state, {**metadata, **facts, "classes": classes})
    done = hwdkit("checkpoint", "card", tmp_path / "a.safetensors")
    assert done.code == 0, done.err
    _, header, text = done.out.split("\n---\n", 2)[0], *done.out[4:].split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert "license" not in values
    assert len(values["datasets"]) == 1
    assert "\x1b" not in done.out
    assert "<script>" not in re.sub(r"\\<", "", text)
    assert re.findall(r"^# .*$", text, re.MULTILINE)[0].startswith("# x ---")
    assert len(re.findall(r"^#+ ", text, re.MULTILINE)) <= 7
    assert not any(line.startswith("license") for line in text.splitlines())


@pytest.mark.parametrize(
    "metrics", [{"miou": float("nan")}, {"miou": "high"}, {"miou": 7}, {"miou": True}, [1], 3, None]
)
def test_numbers_that_are_none_are_left_out(pair: Pair, tmp_path: Path, metrics: Any) -> None:
    header, text = card_of(described(pair, tmp_path / "a.safetensors", metrics=metrics))
    assert "model-index" not in header
    assert "## Results" not in text


def test_a_card_is_written_once_and_only_as_markdown(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    line = ["checkpoint", "card", pair.student, "-o", out]
    options = ["--repo-id", "me/my-net", "--license", "cc-by-nc-4.0"]
    done = hwdkit(*line, *options, "--json")
    assert done.code == 0, done.err
    assert out.read_text() == done.document["card"]
    assert done.document["front_matter"]["license"] == "cc-by-nc-4.0"
    assert "hf_hub_download('me/my-net', 'student.safetensors')" in out.read_text()
    again = hwdkit(*line)
    assert again.code == 2
    assert "nothing is overwritten" in again.err
    assert out.read_text() == done.document["card"]
    assert hwdkit("checkpoint", "card", pair.student, "-o", tmp_path / "card.txt").code == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--repo-id", "me"], "--repo-id"),
        (["--repo-id", "me/x; rm -rf"], "--repo-id"),
        (["--license", "MIT\nx"], "--license"),
    ],
)
def test_options_that_would_break_the_card_are_refused(options: list[str], complaint: str) -> None:
    done = hwdkit("checkpoint", "card", "x", *options)
    assert done.code == 2
    assert complaint in done.err


def test_a_rounded_copy_says_that_its_numbers_are_the_originals(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    assert hwdkit("checkpoint", "strip", pair.student, "-o", out, "--dtype", "fp16").code == 0
    text = card_of(out)[1]
    assert "float32 weights before they were rounded" in text
    assert f"| sha256 | {file_digest(out)} |" in text
    assert "before they were rounded" not in card_of(pair.student)[1]


def test_losses_of_one_paper_cite_it_once_and_cross_entropy_cites_nobody() -> None:
    assert papers_of(["ce", "pairwise", "holistic", "hwd"]) == [PAPERS["pairwise"], PAPERS["hwd"]]


def test_markdown_is_shown_and_not_obeyed() -> None:
    assert escaped("a|b `c` *d* <e> [f]\n# g") == r"a\|b \`c\` \*d\* \<e\> \[f\] \# g"
