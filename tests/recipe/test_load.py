"""Reading recipes: bases, --set, the YAML dialect, and every complaint with its file and line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from hwdkit.errors import RecipeError
from hwdkit.recipe import load, loads_resolved
from hwdkit.recipe.losses import LOSS_OPTIONS

MINIMAL = """\
data: {dataset: scenes}
student: {backbone: resnet18}
teacher: {recipe: scenes-r18-teacher}
losses:
  hwd: {}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a file below the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "x.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return name

    return _write


def complaint(name: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(f"./{name}", overrides=overrides)
    return str(caught.value)


def test_a_recipe_is_named_after_its_file_unless_it_says_otherwise(write):
    assert load("./" + write(MINIMAL, "mine.yaml")).name == "mine"
    assert load("./" + write(MINIMAL + "name: yours\n", "mine.yaml")).name == "yours"


def test_numbers_and_words_follow_yaml_1_2(write):
    write(
        """\
        data: {dataset: scenes}
        student:
          backbone: resnet18
          backbone_options: {a: 010, b: 1:30, c: yes, d: 1e3, e: 1_0, f: 2024-01-01}
        optimizer: {weight_decay: 1e-4, lr: 1.e-2}
        train: {amp: off}
        """
    )
    recipe = load("./x.yaml")
    assert recipe.optimizer.weight_decay == 1e-4
    assert recipe.optimizer.lr == 1e-2
    assert recipe.train.amp == "off"
    assert recipe.student is not None
    options = {"a": 10, "b": "1:30", "c": "yes", "d": 1000.0, "e": "1_0", "f": "2024-01-01"}
    assert recipe.student.backbone_options == options


def test_a_misspelt_option_of_a_loss_names_its_line_and_the_right_spelling(write):
    write(MINIMAL.replace("hwd: {}", "hwd:\n    beta: 0.2\n    temprature: 4"))
    assert complaint("x.yaml") == "x.yaml:7: unknown key 'losses.hwd.temprature'. Did you mean 'temperature'?"


def test_all_faults_are_listed_at_once_in_the_order_of_their_lines(write):
    write(
        """\
        data:
          dataset: ../scenes
          crop: [96]
          scales: []
        student:
          backbone: 3
          pretrained: [1]
        teacher: {}
        losses:
          hwd:
            beta: 1.5
            divergence: msr
          hwx: {}
          mine: {loss: cw}
          kd: 3
        optimizer: {lr: -1e-4, iterations: 3}
        train:
          batch_size: 3.5
          amp: of
          ema: big
        evaluate: 5
        seeed: 1
        """
    )
    known = ", ".join(sorted(LOSS_OPTIONS))
    assert complaint("x.yaml").splitlines() == [
        "x.yaml:2: data.dataset = '../scenes': must be the name of a folder in the data root:"
        " letters, digits, '.', '_' and '-' only",
        "x.yaml:3: data.crop: value 2 is missing",
        "x.yaml:4: data.scales = []: needs at least 1 values",
        "x.yaml:6: student.backbone = 3: must be text",
        "x.yaml:7: student.pretrained = [1]: must be true, false or the path of a file",
        "x.yaml:8: teacher: needs either `backbone` (to train it) or `recipe`/`checkpoint` (trained already)",
        "x.yaml:11: losses.hwd.beta = 1.5: must be less than 1",
        "x.yaml:12: losses.hwd.divergence = 'msr': must be one of mse, l1, smooth_l1, kl."
        " Did you mean 'mse'?",
        f"x.yaml:13: losses.hwx: unknown loss. Known: {known}. Did you mean 'hwd'?",
        f"x.yaml:14: losses.mine.loss = 'cw': unknown loss. Known: {known}. Did you mean 'cwd'?",
        "x.yaml:15: losses.kd = 3: must be a mapping of keys to values",
        "x.yaml:16: optimizer.lr = -0.0001: must be greater than 0",
        "x.yaml:16: unknown key 'optimizer.iterations'. Did you mean 'train.iterations'?",
        "x.yaml:18: train.batch_size = 3.5: must be a whole number",
        "x.yaml:19: train.amp = 'of': must be one of off, bf16, fp16. Did you mean 'off'?",
        "x.yaml:20: train.ema = 'big': must be a finite number",
        "x.yaml:21: evaluate = 5: must be a mapping of keys to values",
        "x.yaml:22: unknown key 'seeed'. Did you mean 'seed'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("student: {backbone: resnet18}\n", "x.yaml:1: missing key 'data'"),
        ("data: {dataset: scenes}\n\nstudent:\n  aux: true\n", "x.yaml:3: missing key 'student.backbone'"),
        (
            "data: {dataset: scenes}\n",
            "x.yaml:1: needs a `student` to distil, or a `teacher` with a backbone to train",
        ),
        (
            MINIMAL + "train: {save_every: nan}\n",
            "x.yaml:6: train.save_every = 'nan': must be a whole number",
        ),
        (MINIMAL + "optimizer: {lr: inf}\n", "x.yaml:6: optimizer.lr = 'inf': must be a finite number"),
        (
            MINIMAL + "name: ../up\n",
            "x.yaml:6: name = '../up': becomes the name of a folder: no slash, no leading dot",
        ),
        (
            MINIMAL + "train: {batch_size: 3, accumulate: 2}\n",
            "x.yaml:6: train: batch_size 3 is not a multiple of accumulate 2",
        ),
        (
            "data: {dataset: scenes}\nstudent: {backbone: a}\nlosses: {kd: }\n",
            "x.yaml:1: losses kd need a `teacher`",
        ),
    ],
)
def test_a_single_fault_names_the_line_to_mend(write, text, expected):
    write(text)
    assert complaint("x.yaml") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml: is empty"),
        ("- 1\n", "x.yaml:1: a recipe is a mapping of keys to values"),
        ("data:\n  crop: [1, 2\nseed: 3\n", "x.yaml:3: not valid YAML"),
        (
            "data:\n  flip: 0.5\n  crop: [1, 2]\n  flip: 1\n",
            "x.yaml:4: key 'flip' is written twice, first on line 2",
        ),
        ("seed: 0\nname: !!python/name:os.system\n", "x.yaml:2: tag"),
        ("seed: !!int abc\n", "x.yaml:1: tag"),
        ("seed: 0\n? [a, b]\n: 3\n", "x.yaml:2: a key must be one word"),
        ("seed: 0\n---\nseed: 1\n", "x.yaml:2: not valid YAML"),
        ("seed: 0\nname: \x07\n", "x.yaml:2: has a character that YAML does not allow"),
        ("a: &a [*a]\n", "x.yaml:1: nested more than"),
        ("a: " + "[" * 5000, "x.yaml: nested too deeply"),
    ],
)
def test_text_that_is_no_recipe_is_refused_with_its_line(write, text, expected):
    write(text)
    assert complaint("x.yaml").startswith(expected)


def test_an_alias_bomb_is_refused_before_it_grows(write):
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, 9)]
    write("\n".join(levels))
    assert "more than 20,000 values" in complaint("x.yaml")
    write("a: &a {b: 1}\nb: [" + ", ".join(["*a"] * 10_000) + "]")
    assert "more than 20,000 values" in complaint("x.yaml")


def test_a_file_of_megabytes_is_no_recipe(write):
    write("# " + "x" * 1_100_000)
    assert "larger than 1,000,000" in complaint("x.yaml")


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(tmp_path / "x.yaml")


def test_a_recipe_wins_over_its_bases_and_a_later_base_over_an_earlier_one(write):
    write("seed: 1\ntrain: {iterations: 10, ema: 0.9}\ndata: {dataset: scenes, scales: [1, 2]}\n", "_a.yaml")
    write("seed: 2\ntrain: {iterations: 20}\n", "_b.yaml")
    write("base: [_a.yaml, _b.yaml]\nstudent: {backbone: r}\ndata: {scales: [3]}\ntrain: {ema: null}\n")
    recipe = load("./x.yaml")
    assert (recipe.seed, recipe.train.iterations, recipe.train.ema) == (2, 20, None)
    assert recipe.data.scales == (3.0,)
    assert recipe.data.dataset == "scenes"


def test_bases_are_found_beside_the_file_that_names_them_and_by_name(write):
    write("data: {dataset: camvid}\n", "deep/er/_bottom.yaml")
    write("base: er/_bottom.yaml\nstudent: {backbone: r}\n", "deep/middle.yaml")
    write("base: deep/middle.yaml\n")
    assert load("./x.yaml").data.dataset == "camvid"
    write(MINIMAL + "name: explicit\n", "recipes/scenes-mine-hwd.yaml")
    write("base: scenes-mine-hwd\nseed: 5\n")
    assert load("./x.yaml").seed == 5
    assert load("./x.yaml").name == "x"


def test_a_fault_in_a_base_names_the_base(write):
    write("data:\n  dataset: scenes\n  crop: [8, 8]\n", "_a.yaml")
    write("base: _a.yaml\nstudent: {backbone: r}\n")
    assert complaint("x.yaml") == "_a.yaml:3: data.crop = [8, 8]: a crop needs at least 32 pixels a side"


def test_a_missing_base_names_the_line_and_the_closest_file(write):
    write(MINIMAL, "_scenes.yaml")
    write("seed: 0\nbase: _scene.yaml\n")
    assert complaint("x.yaml") == "x.yaml:2: base '_scene.yaml' does not exist. Did you mean '_scenes.yaml'?"
    write("base: scenes-r10-hwdd\n")
    assert complaint("x.yaml").startswith(
        "x.yaml:1: base: unknown recipe 'scenes-r10-hwdd'. Did you mean 'scenes-r10-hwd"
    )
    write("base: {a: 1}\n")
    assert complaint("x.yaml") == "x.yaml:1: base: must be a file name, or a list of them"


def test_a_cycle_of_bases_is_named_link_by_link(write):
    write("base: b.yaml\n", "a.yaml")
    write("base: c.yaml\n", "b.yaml")
    write("base: a.yaml\n", "c.yaml")
    assert complaint("a.yaml") == "c.yaml: bases form a cycle: a.yaml -> b.yaml -> c.yaml -> a.yaml"


def test_two_bases_may_share_a_base(write):
    write(MINIMAL, "_bottom.yaml")
    write("base: _bottom.yaml\nseed: 1\n", "_a.yaml")
    write("base: _bottom.yaml\ntrain: {iterations: 7}\n", "_b.yaml")
    write("base: [_a.yaml, _b.yaml]\n")
    assert load("./x.yaml").train.iterations == 7


def test_set_reaches_into_sections_and_the_last_one_wins(write):
    write(MINIMAL)
    options = ["losses.hwd.beta=0.3", "data.crop=[64, 96]", "optimizer.weight_decay=1e-3", "summary=a=b"]
    recipe = load(
        "./x.yaml", overrides=[*options, "losses.hwd.beta=0.4", "train.ema=", "losses.cwd={weight: 2}"]
    )
    assert recipe.losses["hwd"].constructor_options()["beta"] == 0.4
    assert recipe.losses["cwd"].weight == 2
    assert recipe.data.crop == (64, 96)
    assert recipe.optimizer.weight_decay == 1e-3
    assert recipe.summary == "a=b"
    assert recipe.train.ema is None


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            "losses.hwd.temprature=4",
            "--set losses.hwd.temprature=4: unknown key 'losses.hwd.temprature'. Did you mean 'temperature'?",
        ),
        ("losses.hwd.beta=2", "--set losses.hwd.beta=2: losses.hwd.beta = 2: must be less than 1"),
        ("seed.x=2", "--set seed.x=2: seed: must be a whole number"),
        ("seed", "--set seed: must be KEY=VALUE with a dotted key, as in optimizer.lr=0.02"),
        ("a..b=1", "--set a..b=1: must be KEY=VALUE with a dotted key, as in optimizer.lr=0.02"),
        ("data.crop=[1", "--set data.crop=[1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("base=y", "--set base=y: unknown key 'base'."),
    ],
)
def test_a_wrong_set_option_is_quoted_as_typed(write, option, expected):
    write(MINIMAL)
    assert complaint("x.yaml", option).startswith(expected)


def test_a_set_option_leaves_the_lines_of_its_section_alone(write):
    write("data: {dataset: scenes}\nstudent:\n  aux: true\n")
    assert complaint("x.yaml", "student.head=fcn") == "x.yaml:2: missing key 'student.backbone'"


def test_a_resolved_recipe_stands_alone():
    assert loads_resolved(MINIMAL + "name: a\n", overrides=["seed=3"]).seed == 3
    with pytest.raises(RecipeError, match=r"run/recipe\.yaml:6: unknown key 'base'"):
        loads_resolved(MINIMAL + "base: _a.yaml\n", source="run/recipe.yaml")


def test_recipes_load_without_importing_torch():
    code = (
        "import sys; from hwdkit.recipe import load; from hwdkit.commands.recipes import listing;"
        "load('scenes-r10-hwd'); listing.list_recipes();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
