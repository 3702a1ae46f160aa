"""What the figures of hwdkit visualize are computed from: sampling, ranking, t-SNE; that they draw."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from hwdkit.engine.opened import NamedNetwork
from hwdkit.losses.hwd import HWD
from hwdkit.measure.activation_maps import ActivationMap
from hwdkit.measure.channel_weights import ChannelWeights, channel_weights
from hwdkit.measure.embeddings import Embedding, Sample, embedded, sampled, usable_perplexity
from hwdkit.measure.visual_panels import PanelRow, Scores, differing, highest
from hwdkit.models.segmenter import NetworkSpec, build
from hwdkit.report.palette import STUDENT
from hwdkit.report.plots.activations import ActivationRow, activations
from hwdkit.report.plots.embeddings import embeddings
from hwdkit.report.plots.panels import MOST_CLASSES, panels
from hwdkit.report.plots.style import Form
from hwdkit.report.plots.weights import smoothing_lines, weight_bars, weight_lines

MAGIC: dict[Form, bytes] = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
OPTIONS = {"layers": (1, 1, 1, 1), "channels": (4, 8, 8, 8)}
CLASSES = 3
RNG = np.random.default_rng(0)


def network(name: str, seed: int, *, stride: int = 32) -> NamedNetwork:
    torch.manual_seed(seed)
    options = {"backbone_options": OPTIONS, "head": "fcn", "head_channels": 4, "aux": False}
    spec = NetworkSpec("resnet18", CLASSES, output_stride=stride, **options)
    return NamedNetwork(name, "student", build(spec).eval(), f"{name}.safetensors", "")


@pytest.fixture(scope="module")
def pairs() -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for index in range(3):
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
        label = torch.randint(0, CLASSES, (64, 96), generator=generator)
        label[:, :20] = 255
        made.append((index, image, label))
    return made


@pytest.fixture(scope="module")
def networks() -> list[NamedNetwork]:
    return [network("coarse", 0), network("fine", 1, stride=8)]


def draw(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]], **more: int
) -> Sample:
    return sampled(networks, pairs, classes=range(CLASSES), **{"per_class": 2, "seed": 5, **more})


def test_the_sample_is_that_of_the_lowest_keys_of_all_images(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> None:
    everything = []
    for index, _, label in pairs:
        keys = np.random.default_rng(np.random.SeedSequence([5, index])).random((2, 3))
        everything += [
            (int(label[32 * r, 32 * c]), keys[r, c], index, (32 * r, 32 * c))
            for r in range(2)
            for c in range(3)
        ]
    expected = []
    for c in range(CLASSES):
        lowest = sorted(row[1:] for row in everything if row[0] == c)[:2]
        expected += [(c, *rest) for rest in sorted(row[1:] for row in lowest)]
    sample = draw(networks, pairs)
    found = zip(
        sample.classes.tolist(), sample.images.tolist(), map(tuple, sample.places.tolist()), strict=True
    )
    assert list(found) == expected
    assert len(expected) > 3


def test_each_network_is_looked_up_where_the_pixel_lies(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> None:
    sample = draw(networks, pairs)
    for name, size, of in (("coarse", 32, networks[0]), ("fine", 8, networks[1])):
        for i, (index, (row, column)) in enumerate(zip(sample.images, sample.places, strict=True)):
            with torch.no_grad():
                maps = of.model(pairs[index][1][None], ("embedding",)).taps["embedding"][0]
            centre = (row + 16) // size, (column + 16) // size
            assert np.allclose(sample.features[name][i], maps[:, centre[0], centre[1]])


def test_the_sample_does_not_depend_on_what_else_is_sampled(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> None:
    one = draw(networks, pairs)
    other = draw(networks[:1], pairs[::-1])
    assert np.array_equal(one.places, other.places)
    assert np.array_equal(one.images, other.images)
    assert np.allclose(one.features["coarse"], other.features["coarse"])
    assert not np.array_equal(one.places, draw(networks, pairs, seed=6).places) or not np.array_equal(
        one.images, draw(networks, pairs, seed=6).images
    )


def test_a_class_is_sampled_less_where_it_has_less(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> None:
    sample = draw(networks[:1], pairs, per_class=1000)
    counted = sum(int((label[::32, ::32] != 255).sum()) for _, _, label in pairs)
    assert len(sample.classes) == counted
    nothing = [(0, pairs[0][1], torch.full_like(pairs[0][2], 255))]
    assert draw(networks, nothing).features["fine"].shape[0] == 0


def test_separated_classes_have_a_higher_silhouette_and_the_seed_decides() -> None:
    of = np.repeat(np.arange(3), 8)
    mixed = RNG.normal(size=(24, 6)).astype(np.float32)
    apart = mixed + 8 * np.eye(6, dtype=np.float32)[of]
    one, two = (embedded(apart, of, perplexity=4, pca=50, seed=1) for _ in range(2))
    assert np.array_equal(one.points, two.points)
    distances = np.linalg.norm(apart[:, None] - apart[None], axis=-1)
    naive = []
    for i in range(24):
        own = distances[i, (of == of[i]) & (np.arange(24) != i)].mean()
        other = min(distances[i, of == c].mean() for c in range(3) if c != of[i])
        naive.append((other - own) / max(own, other))
    assert one.silhouette == pytest.approx(np.mean(naive), rel=1e-4)
    assert one.silhouette > 0.5 > (embedded(mixed, of, perplexity=4, pca=50, seed=1).silhouette or 0)
    assert embedded(mixed, np.zeros(24, np.int64), perplexity=4, pca=3, seed=1).silhouette is None


def test_perplexity_is_lowered_for_few_pixels() -> None:
    assert usable_perplexity(30, 7) == 2
    assert usable_perplexity(30, 1000) == 30


def test_highest_prefers_the_earlier_of_equals_and_leaves_nan_out() -> None:
    values = [1.0, math.nan, 3.0, 3.0, 2.0]
    blank = torch.zeros(())
    pairs = [(i, torch.tensor(float(i)), blank) for i in range(5)]
    found = highest(pairs, lambda image, _: values[int(image)], 2)
    assert [tuple(one) for one in found] == [(2, 3.0), (3, 3.0)]
    assert [one.image for one in highest(pairs, lambda image, _: values[int(image)], 9)] == [2, 3, 4, 0]
    assert highest(pairs, lambda *_: math.nan, 3) == []


def test_unlabelled_pixels_do_not_differ() -> None:
    label = torch.tensor([[0, 1, 255, 255]])
    assert differing(label, torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 1, 0, 0]])) == 0.5
    assert math.isnan(differing(torch.full((1, 2), 255), torch.zeros(1, 2), torch.ones(1, 2)))


def test_a_teacher_of_another_size_is_resized_as_in_training(
    networks: list[NamedNetwork], pairs: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> None:
    coarse, fine = networks
    found = channel_weights([coarse], fine.model, pairs[:1], HWD())["coarse"]
    _, image, label = pairs[0]
    with torch.no_grad():
        ours, theirs = coarse.model(image[None]).logits, fine.model(image[None]).logits
    assert ours.shape != theirs.shape
    expected = HWD().channel_weights(ours, coarse.model.upsample(theirs, ours.shape[-2:]), label[None])[0]
    assert found.mean == pytest.approx(expected.tolist(), rel=1e-5)
    assert found.std == pytest.approx([0] * CLASSES, abs=1e-6)


def panel_rows(height: int, width: int, classes: int) -> list[PanelRow]:
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = RNG.integers(0, classes, (height, width)).astype(np.uint8)
    names = ("teacher", "a name that is far longer than any panel is wide", "_$x$\n")
    scores = {name: Scores(0.5, math.nan) for name in names}
    maps = {name: label.copy() for name in names}
    shares = np.full(classes, 1 / classes)
    return [PanelRow(0, "b/c.png", height, width, image, label, maps, scores, shares, True)]


@pytest.mark.parametrize("form", MAGIC)
def test_every_figure_is_drawn_in_each_form_with_odd_names(form: Form) -> None:
    names, colours = ("_road", "$x$", "ü\n"), ((0, 0, 0), (255, 0, 0), (0, 255, 255))
    rows = panel_rows(24, 48, 3)
    flat = ActivationMap(torch.ones(3, 6), None, True)
    heat = ActivationRow("$x$", 1, rows[0].image, rows[0].label, {"a": flat, "b": flat})
    points = Embedding(RNG.normal(size=(9, 2)).astype(np.float32), None)
    weights = ChannelWeights((2.0, 1.0, 0.0), (0.0,) * 3, (1.0, 0.0, 0.0))
    tones = {"_s": STUDENT, "t": STUDENT}
    for content in (
        panels(rows, names, colours, score="pixel_accuracy", form=form),
        activations([heat], temperature=4, form=form),
        embeddings({"a": points}, np.arange(9) % 3, classes=names, palette=colours, form=form),
        weight_bars({"_s": weights, "t": weights}, [0, 2], names, tones=tones, form=form),
        weight_lines([1, 2], [weights, weights], [0, 1], classes=names, palette=colours, form=form),
        smoothing_lines([-1.0, 0.0], {"beta": [0.0, 1.0]}, form),
    ):
        assert content.startswith(MAGIC[form])


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(40, 320), (320, 40)])
def test_panels_of_odd_images_and_many_classes_are_bounded(height: int, width: int) -> None:
    names = tuple(f"class {c}" for c in range(60))
    rows = panel_rows(height, width, 60) * 20
    content = panels(rows, names, ((9, 9, 9),) * 60, score="miou", form="png")
    with Image.open(BytesIO(content)) as picture:
        assert max(picture.size) <= 12_000
    assert MOST_CLASSES < 60
