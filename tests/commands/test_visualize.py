"""What `hwdkit visualize` draws, prints and refuses."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Outcome, Pair, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands.visualize import weights
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index
from hwdkit.engine.evaluate import predict
from hwdkit.engine.networks import load_network
from hwdkit.losses.hwd import HWD
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Protocol

Seen = list[tuple[torch.Tensor, dict[str, torch.Tensor]]]
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def nets(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher, a baseline and a student that see several classes: trained for two steps, logits centred."""
    folder = tmp_path_factory.mktemp("nets")
    dataset = SegmentationDataset(load_index(pair.data / "scenes"), "val")
    images = torch.stack([dataset.read(i)[0] for i in range(len(dataset))])
    made = {}
    for seed, (name, of) in enumerate(
        {"teacher": pair.teacher, "baseline": pair.student, "student": pair.student}.items()
    ):
        loaded = load_network(of)
        state, description = load_model(loaded.path)
        generator = torch.Generator().manual_seed(seed)
        noisy = {
            key: value + 0.05 * torch.randn(value.shape, generator=generator) if value.ndim == 4 else value
            for key, value in state.items()
        }
        loaded.model.load_state_dict(noisy)
        with torch.no_grad():
            mean = loaded.model.eval()(images).logits.mean((0, 2, 3))
        (bias,) = [key for key in state if key.startswith("head.") and state[key].shape == (12,)]
        made[name] = folder / f"{name}.safetensors"
        save_model(made[name], {**noisy, bias: noisy[bias] - mean}, {**description, "step": 100 * seed})
    return made


@pytest.fixture
def drawn(
    pair: Pair, nets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run a figure in an empty folder, with all three networks unless some are named."""
    monkeypatch.chdir(tmp_path)

    def run(figure: str, *arguments: object, networks: str = "teacher baseline student") -> Outcome:
        named = [part for name in networks.split() for part in (f"--{name}", nets[name])]
        where = ["--data-root", pair.data, "--gpus", 0, "-q", "--json"]
        looped = ["--workers", 0] if figure != "activations" else []
        return hwdkit("visualize", figure, *named, *where, *looped, *arguments)

    return run


def document(done: Outcome) -> dict[str, Any]:
    assert done.code == 0, done.err
    return done.document


def val(pair: Pair) -> SegmentationDataset:
    return SegmentationDataset(load_index(pair.data / "scenes"), "val")


@pytest.fixture(scope="module")
def models(nets: dict[str, Path]) -> dict[str, Segmenter]:
    return {name: load_network(path).model.eval() for name, path in nets.items()}


@pytest.fixture(scope="module")
def seen(pair: Pair, models: dict[str, Segmenter]) -> Seen:
    """Of every image the label, and what each network sees."""
    pairs = [val(pair).read(index) for index in range(4)]
    with torch.no_grad():
        return [
            (label.long(), {name: predict(model, image, Protocol()) for name, model in models.items()})
            for image, label in pairs
        ]


def naive_scores(label: torch.Tensor, seen: torch.Tensor) -> tuple[float, float]:
    matrix = ConfusionMatrix(12)
    matrix.update(label, seen)
    return matrix.miou(), matrix.pixel_accuracy()


def test_panels_tell_every_networks_scores_on_every_image(
    pair: Pair, seen: Seen, drawn: Callable[..., Outcome]
) -> None:
    result = document(drawn("panels", "--images", "2,000000"))
    assert [row["index"] for row in result["images"]] == [2, 0]
    assert [row["name"] for row in result["images"]] == ["images/val/000002.png", "images/val/000000.png"]
    for row in result["images"]:
        label, maps = seen[row["index"]]
        for name, class_map in maps.items():
            told = row["scores"][name]
            assert (told["miou"], told["pixel_accuracy"]) == pytest.approx(naive_scores(label, class_map))
        occurring = set(
            torch.cat([label[label != 255], *(m.flatten().long() for m in maps.values())]).tolist()
        )
        classes = load_index(pair.data / "scenes").classes
        assert row["classes"] == [classes[c] for c in sorted(occurring)]
    assert [network["name"] for network in result["networks"]] == ["teacher", "baseline", "student"]


def test_worst_are_the_images_where_student_and_teacher_differ_most(
    seen: Seen, drawn: Callable[..., Outcome]
) -> None:
    result = document(drawn("panels", "--worst", 3))
    shares = {}
    for index in range(4):
        label, maps = seen[index]
        labelled = label != 255
        shares[index] = float((maps["student"] != maps["teacher"])[labelled].float().mean())
    expected = sorted(shares, key=lambda index: -shares[index])[:3]
    assert [row["index"] for row in result["images"]] == expected
    assert [row["value"] for row in result["images"]] == pytest.approx([shares[i] for i in expected])
    assert len(set(shares.values())) == 4


@pytest.mark.parametrize(("score", "place"), [("miou", 0), ("pixel-accuracy", 1)])
def test_best_are_the_images_where_the_student_gains_most(
    seen: Seen, drawn: Callable[..., Outcome], score: str, place: int
) -> None:
    result = document(drawn("panels", "--best", 2, "--score", score))
    gains = {}
    for index in range(4):
        label, maps = seen[index]
        ours, theirs = (naive_scores(label, maps[name]) for name in ("student", "baseline"))
        gains[index] = ours[place] - theirs[place]
    expected = sorted(gains, key=lambda index: -gains[index])[:2]
    assert [row["index"] for row in result["images"]] == expected
    assert [row["value"] for row in result["images"]] == pytest.approx([gains[i] for i in expected])


@pytest.mark.slow
def test_a_compared_network_is_the_student_where_there_is_none(
    nets: dict[str, Path], drawn: Callable[..., Outcome]
) -> None:
    own = document(drawn("panels", "--worst", 2))
    compared = ["--compare", f"cwd={nets['baseline']}", "--compare", f"hwd={nets['student']}"]
    named = document(drawn("panels", "--worst", 2, "--overwrite", *compared, networks="teacher"))
    assert [(n["name"], n["role"]) for n in named["networks"]] == [
        ("teacher", "teacher"),
        ("cwd", "compare"),
        ("hwd", "student"),
    ]
    assert [row["value"] for row in named["images"]] == [row["value"] for row in own["images"]]


@pytest.mark.parametrize(
    ("figure", "form", "options"),
    [
        ("panels", "png", ["--images", 0]),
        ("activations", "svg", ["--classes", "road", "--images", 0]),
        ("weights", "pdf", ["--limit", 1]),
    ],
)
def test_a_figure_has_the_form_of_its_suffix_and_is_drawn_twice_alike(
    drawn: Callable[..., Outcome], figure: str, form: str, options: list[object]
) -> None:
    one = document(drawn(figure, *options, "-o", f"one.{form}", networks="teacher student"))
    two = document(drawn(figure, *options, "--format", form, networks="teacher student"))
    assert (one["figure"], two["figure"]) == (f"one.{form}", f"{figure}.{form}")
    assert Path(one["figure"]).read_bytes().startswith(MAGIC[form])
    assert Path(one["figure"]).read_bytes() == Path(two["figure"]).read_bytes()


def test_activations_are_softmax_maps_of_the_channel(
    pair: Pair, models: dict[str, Segmenter], drawn: Callable[..., Outcome]
) -> None:
    result = document(drawn("activations", "--classes", "Sky,road", "--images", 1, "--tau", 2))
    assert [row["class"] for row in result["rows"]] == ["sky", "road"]
    image, label = val(pair).read(1)
    classes = load_index(pair.data / "scenes").classes
    for row in result["rows"]:
        c = classes.index(row["class"])
        for name, model in models.items():
            with torch.no_grad():
                logits = model(image[None]).logits[0, c]
            weight = (logits / 2 - (logits / 2).max()).exp()
            density = weight / weight.sum() * weight.numel()
            told = row["networks"][name]
            assert torch.tensor(told["density"]).shape == density.shape
            assert torch.allclose(torch.tensor(told["density"]), density, rtol=1e-3)
            assert told["peak"] == pytest.approx(float(density.max()), rel=1e-5)
            rows, columns = (side // n for side, n in zip(label.shape, density.shape, strict=True))
            small = label[::rows, ::columns]
            assert told["on_class"] == pytest.approx(
                float(density[small == c].sum() / density.numel()), rel=1e-4
            )
        assert row["scale"] == max(told["peak"] for told in row["networks"].values())


def test_activations_show_the_first_image_with_all_classes(pair: Pair, drawn: Callable[..., Outcome]) -> None:
    dataset = val(pair)
    classes = load_index(pair.data / "scenes").classes
    held = [{classes[c] for c in np.unique(dataset.open(i)[1]) if c != 255} for i in range(len(dataset))]
    late = next(i for i in range(1, 4) if held[i] - held[0])
    name = sorted(held[late] - held[0])[0]
    expected = next(i for i in range(4) if {name, "road"} <= held[i])
    result = document(drawn("activations", "--classes", f"road,{name}"))
    assert {row["index"] for row in result["rows"]} == {expected}
    everywhere = set(classes) - set().union(*held)
    assert not everywhere or drawn("activations", "--classes", everywhere.pop()).code == 4


def test_a_class_that_is_absent_has_no_share(pair: Pair, drawn: Callable[..., Outcome]) -> None:
    dataset = val(pair)
    classes = load_index(pair.data / "scenes").classes
    absent = next(
        (i, name) for i in range(4) for c, name in enumerate(classes) if not (dataset.open(i)[1] == c).any()
    )
    result = document(drawn("activations", "--classes", absent[1], "--images", absent[0]))
    assert {told["on_class"] for told in result["rows"][0]["networks"].values()} == {None}


def test_weights_are_those_of_the_students_own_loss(pair: Pair, tmp_path: Path) -> None:
    default = HWD()
    recipe = str(pair.student / "recipe.yaml")  # scenes-r10-hwd: mu 1, area_correction paper
    for student in (
        pair.student,
        pair.student / "student.safetensors",
        pair.student / "checkpoints" / "b.pt",
    ):
        found, own = weights.run_options([pair.teacher, student])
        assert (found, own["mu"], own["area_correction"]) == (recipe, 1.0, "paper")
    assert weights.loss_options(("mu=0.5",), own) == {**own, "mu": 0.5}
    assert weights.run_options([pair.teacher, tmp_path / "bare.safetensors"]) == (None, {})
    assert weights.loss_options((), {})["mu"] == default.mu
    figure = ["--out", tmp_path / "weights.png", "--gpus", 0, "-q", "--workers", 0, "--data-root", pair.data]
    drawn = hwdkit("visualize", "weights", "--teacher", pair.teacher, "--student", pair.student, *figure)
    assert f"HWD with options of {recipe}\n" in drawn.out


def test_options_of_weights_that_the_command_line_changes_are_told(pair: Pair, tmp_path: Path) -> None:
    line = ["--teacher", pair.teacher, "--student", pair.student, "--hwd", "mu=3", "--hwd", "beta=0.2"]
    line += ["--gpus", 0, "-q", "--workers", 0, "--limit", 1, "--data-root", pair.data]
    told = hwdkit("visualize", "weights", *line, "-o", tmp_path / "a.png")
    recipe = pair.student / "recipe.yaml"
    assert f"HWD with options of {recipe}, but mu=3, beta=0.2\n" in told.out
    result = hwdkit("visualize", "weights", *line, "-o", tmp_path / "b.png", "--json").document
    assert (result["hwd_from"], result["hwd_changed"]) == (str(recipe), ["mu=3", "beta=0.2"])
    assert result["hwd"]["mu"] == 3


def test_weights_are_the_losss_own_mean_over_the_images(
    pair: Pair, models: dict[str, Segmenter], drawn: Callable[..., Outcome]
) -> None:
    options = ["--hwd", "mu=1", "--hwd", "area_correction=paper", "--hwd", "beta=0.3"]
    result = document(drawn("weights", *options))
    assert result["hwd"]["mu"] == 1
    assert result["hwd"]["temperature"] == 4
    loss = HWD(mu=1.0, area_correction="paper", beta=0.3)
    expected = {"baseline": [], "student": []}
    for index in range(4):
        image, label = val(pair).read(index)
        with torch.no_grad():
            logits = {name: model(image[None]).logits for name, model in models.items()}
        for name, found in expected.items():
            found.append(loss.channel_weights(logits[name], logits["teacher"], label[None].long())[0])
    for row in result["classes"]:
        for name, found in expected.items():
            own = torch.stack(found)[:, row["index"]]
            told = row["weights"][name]
            assert told["mean"] == pytest.approx(float(own.mean()), rel=1e-5, abs=1e-9)
            assert told["std"] == pytest.approx(float(own.std(correction=0)), rel=1e-3, abs=1e-4)
            firsts = [int(one.argmax()) == row["index"] for one in found]
            assert told["first"] == sum(firsts) / 4
    means = [row["weights"]["student"]["mean"] for row in result["classes"]]
    assert means == sorted(means, reverse=True)
    assert sum(means) == pytest.approx(12)


def test_weights_over_training_are_sorted_by_step(
    nets: dict[str, Path], drawn: Callable[..., Outcome]
) -> None:
    at = ["--at", nets["student"], "--at", f"7={nets['baseline']}"]
    result = document(drawn("weights", *at, "--top", 3, networks="teacher"))
    assert result["steps"] == [7, 200]
    assert [network["name"] for network in result["networks"]] == ["teacher", "step 7", "step 200"]
    assert [row["drawn"] for row in result["classes"]] == [True] * 3 + [False] * 9
    at_the_end = document(drawn("weights", "--overwrite"))
    ends = {row["class"]: row["weights"]["student"]["mean"] for row in at_the_end["classes"]}
    assert {row["class"]: row["weights"]["step 200"]["mean"] for row in result["classes"]} == ends


def test_smoothing_is_equation_7(tmp_path: Path) -> None:
    line = ["--beta", "0.1,0.5", "--low", 0, "--high", 1, "--points", 11, "-o", tmp_path / "a.svg"]
    result = document(hwdkit("visualize", "smoothing", *line, "--json"))
    weights = result["normalised_divergence"]
    assert weights == pytest.approx([tenth / 10 for tenth in range(11)])
    for curve in result["curves"]:
        beta = curve["beta"]
        expected = [math.exp((1 - beta**weight) / (1 - beta)) for weight in weights]
        assert curve["factor"] == pytest.approx(expected)
    assert result["curves"][0]["factor"][-1] == pytest.approx(math.e)


@pytest.mark.slow
def test_embeddings_are_the_seeds_and_balanced(drawn: Callable[..., Outcome]) -> None:
    line = ["--per-class", 6, "--classes", "road,sky,building", "--perplexity", 4]
    one, two, other = (
        document(drawn("embeddings", *line, "--seed", seed, "-o", f"{n}.png", networks="teacher student"))
        for n, seed in enumerate((3, 3, 4))
    )
    assert one["embeddings"] == two["embeddings"]
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()
    assert one["pixels"] != other["pixels"]
    assert one["pixels_per_class"] == {"road": 6, "building": 6, "sky": 6}
    assert len(one["pixels"]) == len(one["embeddings"]["student"]["points"]) == 18
    assert -1 <= one["embeddings"]["teacher"]["silhouette"] <= 1


def test_without_scikit_learn_embeddings_say_what_to_install(
    drawn: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "sklearn":
            raise ImportError("No module named 'sklearn'")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = drawn("embeddings")
    assert done.code == 6
    assert "pip install 'hwdkit[tsne]'" in done.err
    assert not Path("embeddings.png").exists()


@pytest.mark.parametrize(
    ("figure", "arguments", "code", "told"),
    [
        ("panels", ["-o", "a.jpg"], 2, "ends in none of .png, .svg, .pdf"),
        ("panels", ["-o", "a.png", "--format", "svg"], 2, "contradicts"),
        ("panels", ["--format", "gif"], 2, "not one of 'png', 'svg', 'pdf'"),
        ("panels", ["--worst", 2, "--images", "0"], 2, "exclude each other"),
        ("panels", ["--images", "nowhere"], 4, "has no image 'nowhere'"),
        ("panels", ["--images", "4"], 4, "there are 0 to 3"),
        ("panels", ["--images", ""], 4, "has no image ''"),
        ("panels", ["--images", "00"], 4, "has no image '00'"),
        ("panels", ["--split", "tset"], 4, "no split 'tset'"),
        ("panels", ["--compare", "cwd"], 2, "not NAME=CHECKPOINT"),
        ("panels", ["--compare", "cwd=nowhere.safetensors"], 5, "no such checkpoint"),
        ("activations", [], 2, "--classes missing"),
        ("activations", ["--classes", "raod"], 2, "did you mean 'road'"),
        ("embeddings", ["--classes", "raod"], 2, "did you mean 'road'"),
        ("embeddings", ["--per-class", "2000"], 2, "--per-class 1666"),
        ("weights", ["--classes", "raod"], 2, "did you mean 'road'"),
        ("weights", ["--hwd", "bta=0.1"], 2, "keys: temperature, mu"),
        ("weights", ["--hwd", "beta=2"], 2, "--hwd beta: Input should be less than 1"),
        ("weights", ["--hwd", "divergence=kl", "--hwd", "divergence_on=logits"], 2, "needs divergence_on"),
        ("weights", ["--at", "x"], 2, "it excludes --student"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_and_writes_nothing(
    drawn: Callable[..., Outcome], figure: str, arguments: list[object], code: int, told: str
) -> None:
    networks = "teacher student" if figure == "weights" else "student"
    done = drawn(figure, *arguments, networks=networks)
    assert done.code == code, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("figure", "arguments", "networks", "told"),
    [
        ("panels", [], "", "no network"),
        ("panels", ["--worst", 1], "student", "--worst needs --teacher"),
        ("panels", ["--best", 1], "teacher student", "--best needs --baseline"),
        ("panels", ["--worst", 1], "teacher", "--worst needs --student or a --compare"),
        ("weights", [], "student", "--teacher missing"),
        ("weights", [], "teacher", "needs --student"),
    ],
)
def test_a_figure_names_the_network_that_it_lacks(
    drawn: Callable[..., Outcome], figure: str, arguments: list[object], networks: str, told: str
) -> None:
    done = drawn(figure, *arguments, networks=networks)
    assert done.code == 2
    assert told in done.err


def test_steps_must_be_known_and_differ(
    nets: dict[str, Path], pair: Pair, drawn: Callable[..., Outcome]
) -> None:
    state, description = load_model(nets["student"])
    save_model(Path("timeless.safetensors"), state, {k: v for k, v in description.items() if k != "step"})
    done = drawn("weights", "--at", "timeless.safetensors", networks="teacher")
    assert done.code == 2
    assert "--at 1000=timeless.safetensors" in done.err
    done = drawn("weights", "--at", f"200={nets['baseline']}", "--at", nets["student"], networks="teacher")
    assert done.code == 2
    assert "both at step 200" in done.err


def test_a_figure_that_exists_is_kept_unless_told_otherwise(drawn: Callable[..., Outcome]) -> None:
    Path("panels.png").write_bytes(b"mine")
    done = drawn("panels", "--images", 0)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert Path("panels.png").read_bytes() == b"mine"
    document(drawn("panels", "--images", 0, "--overwrite"))
    assert Path("panels.png").read_bytes().startswith(MAGIC["png"])
    assert [path.name for path in Path().iterdir()] == ["panels.png"]


def test_networks_for_other_classes_are_refused(nets: dict[str, Path], drawn: Callable[..., Outcome]) -> None:
    state, description = load_model(nets["student"])
    strange = {**description, "classes": [f"class {c}" for c in range(12)]}
    save_model(Path("strange.safetensors"), state, strange)
    done = drawn("panels", "--compare", "strange=strange.safetensors")
    assert done.code == 5
    assert "'class 0' against 'road'" in done.err


@pytest.mark.slow
def test_a_name_that_several_images_have_is_told(
    pair: Pair, nets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index = load_index(pair.data / "scenes")
    first, second = index.splits["val"][:2]
    for place in (first.image, first.label, second.label):
        for town in ("a", "b"):
            target = tmp_path / "data" / "scenes" / town / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((index.root / place).read_bytes())
    twins = tuple(first._replace(image=f"{t}/{first.image}", label=f"{t}/{first.label}") for t in "ab")
    moved = json.loads((pair.data / "scenes" / "dataset.json").read_text())
    moved["splits"] = {"val": [list(pair) for pair in twins]}
    moved["files_root"] = "."
    (tmp_path / "data" / "scenes" / "dataset.json").write_text(json.dumps(moved))
    line = ["visualize", "panels", "--student", nets["student"], "--data-root", "data", "--gpus", 0, "--json"]
    done = hwdkit(*line, "--images", "000000")
    assert done.code == 4
    assert "is the name of 2 images" in done.err
    assert document(hwdkit(*line, "--images", f"b/{first.image}"))["images"][0]["index"] == 1


def test_a_person_reads_the_scores_and_the_path(pair: Pair, nets: dict[str, Path], tmp_path: Path) -> None:
    figure = tmp_path / "f.png"
    line = ["--student", nets["student"], "--images", 0, "-o", figure, "--data-root", pair.data, "--gpus", 0]
    done = hwdkit("visualize", "panels", *line)
    assert done.code == 0, done.err
    assert "student mIoU %" in done.out
    assert done.out.splitlines()[-1] == str(figure)


@pytest.mark.slow
def test_panels_are_no_larger_than_longest_asks(drawn: Callable[..., Outcome]) -> None:
    sizes = []
    for longest in (64, 512):
        document(drawn("panels", "--images", 0, "--longest", longest, "-o", f"{longest}.png"))
        with Image.open(f"{longest}.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1]  # the images are 128 pixels: neither enlarged nor larger than a heading needs
    svg = [
        document(drawn("panels", "--images", 0, "--longest", n, "-o", f"{n}.svg"))["figure"]
        for n in (64, 512)
    ]
    assert Path(svg[0]).stat().st_size < Path(svg[1]).stat().st_size
