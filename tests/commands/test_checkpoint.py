"""`hwdkit checkpoint`: published files become checkpoints, and files say what they are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from official_weights import pixels, recorded, released
from tiny_runs import Outcome, Pair, hwdkit

from hwdkit.checkpoints import cirkd
from hwdkit.checkpoints.files import load_model, read_state_dict, save_model
from hwdkit.engine.networks import load_network
from hwdkit.models.backbone import create_backbone
from hwdkit.models.contract import InputContract

NAME = "psp_mobilenetv2"  # the smallest of the five


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / f"{NAME}.pth"
    torch.save(released(NAME), path)
    return path


@pytest.fixture(scope="session")
def imported(published: Path) -> Path:
    out = published.with_name("teacher.safetensors")
    assert bring(published, out).code == 0
    return out


def bring(
    path: Path, out: Path, *more: object, source: str = "cirkd", dataset: str = "cityscapes"
) -> Outcome:
    return hwdkit("checkpoint", "import", path, "--from", source, "--dataset", dataset, "-o", out, *more)


def changed(published: Path, path: Path, **replaced: torch.Tensor | None) -> Path:
    """A copy with tensors replaced, added or (None) removed; `__` stands for a dot."""
    state: dict[str, Any] = read_state_dict(published)
    state |= {key.replace("__", "."): value for key, value in replaced.items()}
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "deeplabv3_resnet18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("psp_resnet18", "deeplabv3_mobilenetv2")),
    ],
)
def test_imported_network_gives_the_recorded_outputs(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": released(name)}, tmp_path / "best.pth")
    made = bring(tmp_path / "best.pth", tmp_path / "out.safetensors", "--json")
    assert made.code == 0, made.err
    assert made.document["network"]["input"]["channel_order"] == "bgr"
    loaded = load_network(tmp_path / "out.safetensors")
    assert (len(loaded.classes), loaded.classes[0], loaded.palette[0]) == (19, "road", (128, 64, 128))
    state = loaded.model.state_dict()
    for key, tensor in cirkd.network(released(name)).state.items():
        assert torch.equal(state[key], tensor.to(state[key].dtype)), key
    with torch.no_grad():
        out = loaded.model.double().eval().forward_normalised(pixels(), aux=True)
    expected = recorded(name)
    for ours, key in ((out.logits, "logits"), (out.aux, "aux_logits")):
        if ours is not None:  # the file's float64 weights became float32: an import of float32 loses nothing
            assert (ours - expected[key]).abs().max() < 1e-5 * expected[key].abs().max(), key
    assert (out.aux is None) == ("aux_logits" not in expected)


def test_float32_weights_survive_to_the_last_bit(tmp_path: Path) -> None:
    weights = {k: v.float() if v.is_floating_point() else v for k, v in released(NAME).items()}
    torch.save(weights, tmp_path / "a.pth")
    assert bring(tmp_path / "a.pth", tmp_path / "b.safetensors").code == 0
    state, metadata = load_model(tmp_path / "b.safetensors")
    expected = cirkd.network(weights).state
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
    assert metadata["imported"]["from"] == "cirkd"


def test_a_cirkd_teacher_and_a_timm_student_see_their_own_pixels_of_one_batch(
    imported: Path, pair: Pair
) -> None:
    teacher, student = load_network(imported).model.eval(), load_network(pair.student).model.eval()
    image = torch.randint(256, (2, 3, 33, 49), dtype=torch.uint8)
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(3, 1, 1)
    blue_first = torch.stack([image[:, 2], image[:, 1], image[:, 0]], dim=1) - mean
    rgb_mean, rgb_std = (
        torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.no_grad():
        assert torch.equal(teacher(image).logits, teacher.forward_normalised(blue_first).logits)
        by_hand = student.forward_normalised((image / 255 - rgb_mean) / rgb_std).logits
        torch.testing.assert_close(student(image).logits, by_hand)


def test_missing_and_extra_tensors_are_listed_and_nothing_is_written(published: Path, tmp_path: Path) -> None:
    odd = changed(published, tmp_path / "odd.pth", head__classifier__bias=None, head__odd=torch.ones(1))
    made = bring(odd, tmp_path / "new" / "out.safetensors")
    assert made.code == 5
    assert f"error[checkpoint]: {odd}: not a pspnet on mobilenetv2_100" in made.err
    assert "missing head.classifier.bias" in made.err
    assert "unexpected head.odd" in made.err
    shaped = changed(published, tmp_path / "shaped.pth", head__psp__conv1__0__weight=torch.ones(80, 64, 1, 1))
    made = bring(shaped, tmp_path / "new" / "out.safetensors")
    assert made.code == 5
    assert "head.bins.0.1.weight is (80, 64, 1, 1), the network needs (80, 320, 1, 1)" in made.err
    assert not (tmp_path / "new").exists()


def test_classes_must_be_the_datasets(published: Path, tmp_path: Path) -> None:
    made = bring(published, tmp_path / "out.safetensors", dataset="ade20k")
    assert made.code == 5
    assert "its classifier has 19 classes, dataset ade20k has 150" in made.err
    assert "--dataset cityscapes" in made.err
    odd = changed(
        published,
        tmp_path / "odd.pth",
        head__classifier__weight=torch.ones(5, 128, 1, 1),
        head__classifier__bias=torch.ones(5),
    )
    assert "no dataset that hwdkit knows has 5 classes" in bring(odd, tmp_path / "out.safetensors").err


def test_nothing_is_overwritten(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    made = bring(published, out)
    assert made.code == 2
    assert "nothing is overwritten" in made.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "keras", "--dataset", "cityscapes", "-o", "a.safetensors"], "is not one of 'cirkd'"),
        (["--from", "cirkd", "--dataset", "cityscapes", "-o", "a.pth"], "does not end in .safetensors"),
        (["--from", "cirkd", "-o", "a.safetensors"], "--dataset is missing"),
        (
            ["--from", "cirkd", "--dataset", "camvid", "--backbone-only", "-o", "a.safetensors"],
            "means nothing",
        ),
        (["--from", "torchvision", "--backbone-only", "-o", "a.safetensors"], "nothing to import"),
    ],
)
def test_options_that_cannot_be_meant(arguments: list[str], complaint: str, published: Path) -> None:
    made = hwdkit("checkpoint", "import", published, *arguments)
    assert made.code == 2
    assert complaint in made.err


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_files_that_are_no_weights_say_what_they_are(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {
        "web page": b"<!DOCTYPE html><title>Sign in</title>",
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "cut short": published.read_bytes()[:100_000],
        "would run code": pickle.dumps({"a": RunsCode()}),
        "empty": b"",
    }
    for complaint, content in contents.items():
        (tmp_path / "file.pth").write_bytes(content)
        for made in (
            bring(tmp_path / "file.pth", tmp_path / "out.safetensors"),
            hwdkit("checkpoint", "inspect", tmp_path / "file.pth"),
            hwdkit("checkpoint", "verify", tmp_path / "file.pth"),
        ):
            assert made.code == 5, made.err
            assert complaint in made.err
    assert bring(tmp_path / "none.pth", tmp_path / "out.safetensors").code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_backbone_becomes_what_pretrained_reads(tmp_path: Path) -> None:
    whole = released("deeplabv3_resnet18")
    start = "pretrained."
    weights = {k.removeprefix(start): v.float() for k, v in whole.items() if k.startswith(start)}
    torch.save(
        weights | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}, tmp_path / "r.pth"
    )
    out = tmp_path / "r18.safetensors"
    line = ["checkpoint", "import", tmp_path / "r.pth", "--from", "cirkd", "--backbone-only", "-o", out]
    made = hwdkit(*line)
    assert made.code == 0, made.err
    assert "backbone_options: {stem_type: deep, stem_width: 64}" in made.out
    assert "input: {channel_order: bgr, range: 255, mean: [104.00698793, " in made.out
    backbone = create_backbone("resnet18", cirkd.DEEP_STEM, 8, pretrained=read_state_dict(out)).double()
    with torch.no_grad():
        deepest = backbone.eval()(pixels())[-1][:, :8]
    expected = recorded("deeplabv3_resnet18")["c4_first8"]
    assert (deepest - expected).abs().max() < 1e-5 * expected.abs().max()
    made = hwdkit(
        "checkpoint",
        "import",
        tmp_path / "r.pth",
        "--from",
        "cirkd",
        "--dataset",
        "camvid",
        "-o",
        "x.safetensors",
    )
    assert made.code == 5
    assert "--backbone-only" in made.err


@pytest.mark.slow  # that names and outputs are torchvision's, checkpoints/test_torchvision.py shows as well
def test_torchvisions_deeplabv3_is_the_same_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    for name, tensor in theirs.state_dict().items():
        if tensor.dim() == 1:  # fresh norms are all alike
            tensor.uniform_(0.5, 1.5) if "var" in name or "weight" in name else tensor.uniform_(-0.2, 0.2)
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    out = tmp_path / "out.safetensors"
    made = bring(tmp_path / "tv.pth", out, source="torchvision", dataset="voc-aug")
    assert made.code == 0, made.err
    ours = load_network(out).model.eval()
    assert ours.contract == InputContract(align_corners=False)
    image = torch.randint(256, (1, 3, 65, 97), dtype=torch.uint8)
    with torch.no_grad():
        normalised = ours.contract.normalise(image)
        expected, found = theirs(normalised), ours(image, aux=True)
    for key, logits in (("out", found.logits), ("aux", found.aux)):
        torch.testing.assert_close(ours.upsample(logits, (65, 97)), expected[key], rtol=1e-4, atol=1e-4)


def test_inspect_says_what_a_run_has_written(pair: Pair) -> None:
    said = hwdkit("checkpoint", "inspect", pair.student, "--json").document
    model = load_network(pair.student).model
    assert said["role"] == "student"
    assert (said["recipe"], said["step"], said["dataset"]) == ("scenes-r10-hwd", 2, "scenes")
    assert said["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert said["tensors"] == len(model.state_dict())
    assert said["network"] == model.spec.to_dict()
    assert said["input"] == model.contract.to_dict()
    assert len(said["classes"]) == 12
    assert 0 <= said["metrics"]["miou"] <= 1
    text = hwdkit("checkpoint", "inspect", pair.student).out
    for fact in ("deeplabv3 on resnet", "scenes-r10-hwd", "miou", "channel_order rgb", "step"):
        assert fact in text, fact


def test_inspect_of_an_import_names_its_source(imported: Path) -> None:
    text = hwdkit("checkpoint", "inspect", imported).out
    assert f"from cirkd, file {NAME}.pth, sha256 " in text
    assert "channel_order bgr" in text
    assert "19: road, sidewalk" in text
    assert "step" not in text


def test_inspect_survives_a_description_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_model(
        path, {"a": torch.ones(3)}, {"network": [1], "classes": "x", "recipe": "\x1b[2Jboo", "metrics": 3}
    )
    said = hwdkit("checkpoint", "inspect", path)
    assert said.code == 0
    assert "\x1b" not in said.out
    assert hwdkit("checkpoint", "verify", path).code == 5


def test_inspect_of_a_published_file_says_how_to_import_it(published: Path) -> None:
    said = hwdkit("checkpoint", "inspect", published)
    assert said.code == 5
    assert "hwdkit checkpoint import" in said.err


def test_verify_passes_what_loads_and_computes(imported: Path, pair: Pair) -> None:
    done = hwdkit("checkpoint", "verify", imported, "--json")
    assert done.code == 0, done.err
    assert done.document["logits"] == [1, 19, 9, 13]
    assert hwdkit("checkpoint", "verify", pair.student).code == 0


def test_verify_finds_what_is_wrong(imported: Path, tmp_path: Path) -> None:
    state, metadata = load_model(imported)
    path = tmp_path / "broken.safetensors"
    breaks: dict[str, dict[str, Any]] = {
        "NaN or infinity in head.classifier.bias": {"head.classifier.bias": torch.full((19,), torch.nan)},
        "logits of an image are not": {"backbone.bn1.running_var": torch.full((32,), -1.0)},
        "unexpected extra": {"extra": torch.ones(1)},
        "head.classifier.bias is (3,)": {"head.classifier.bias": torch.ones(3)},
    }
    for complaint, replaced in breaks.items():
        save_model(path, state | replaced, metadata)
        done = hwdkit("checkpoint", "verify", path)
        assert done.code == 5, complaint
        assert complaint in done.err


def test_import_refuses_nan(published: Path, tmp_path: Path) -> None:
    odd = changed(published, tmp_path / "odd.pth", head__classifier__bias=torch.full((19,), torch.inf))
    made = bring(odd, tmp_path / "out.safetensors")
    assert made.code == 5
    assert "NaN or infinity in head.classifier.bias" in made.err
