"""Costs: parameters and multiply-adds equal the recorded ones, and the printed ones of the papers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hwdkit.measure import profile as report
from hwdkit.measure.latency import measure_latency, measure_peak_memory
from hwdkit.measure.profile import count_macs, count_parameters, paper_macs, true_macs
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build

ENTRIES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden" / "flops_params.json").read_text()
)
COUNTERS: dict[str, Callable[..., int]] = {"official": paper_macs, "true": true_macs}


def network(entry: dict[str, Any]) -> Segmenter:
    resnet = entry.get("backbone")
    with torch.device("meta"):
        return build(
            NetworkSpec(
                resnet or "mobilenetv2_100",
                entry["nc"],
                {"stem_type": "deep", "stem_width": 64} if resnet else {},
                head="pspnet" if entry["model"].startswith("psp") else "deeplabv3",
                aux=entry["aux"],
            )
        )


def name(entry: dict[str, Any]) -> str:
    return f"{entry['model']}-{entry.get('backbone', '')}-{entry['nc']}{'-aux' * entry['aux']}"


def check(entry: dict[str, Any], sizes: list[str]) -> None:
    built = network(entry)
    assert count_parameters(built)[0] == entry["params"]
    for size in sizes:
        image = torch.empty(1, 3, *map(int, size.split("x")), dtype=torch.uint8, device="meta")
        for counter, count in COUNTERS.items():
            assert count(built, image, aux=True) == entry[f"{counter}_{size}"], (counter, size)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e["nc"] == 19], ids=name)
def test_parameters_and_macs_equal_the_recorded_ones(entry: dict[str, Any]) -> None:
    check(entry, ["512x512", "1024x2048"])


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_every_recorded_entry_is_reproduced(entry: dict[str, Any]) -> None:
    check(entry, ["512x512", "512x1024", "1024x2048"])


@pytest.mark.parametrize(
    ("model", "backbone", "params", "gmacs"),
    [
        ("deeplabv3", "resnet101", 61.1, 384.7),
        ("deeplabv3", "resnet18", 13.6, 86.0),
        ("deeplabv3_mobile", None, 3.2, 22.6),
        ("psp", "resnet18", 12.9, 67.6),
    ],
)
def test_printed_columns_of_the_paper_come_out(
    model: str, backbone: str | None, params: float, gmacs: float
) -> None:
    def entry(classes: int) -> dict[str, Any]:
        aux = backbone is not None
        return {"model": model, "backbone": backbone, "nc": classes, "aux": aux}

    assert round(count_parameters(network(entry(19)))[0] / 1e6, 1) == params  # 19 classes, rounded
    image = torch.empty(1, 3, 512, 512, dtype=torch.uint8, device="meta")
    macs = paper_macs(network(entry(150)), image, aux=True)
    assert macs // 10**8 / 10 == gmacs  # 150 classes, cut after one decimal


@pytest.mark.parametrize(("backbone", "gmacs"), [("resnet101", 2371.7), ("resnet18", 572.0)])
def test_printed_cityscapes_columns_come_out(backbone: str, gmacs: float) -> None:
    built = network({"model": "deeplabv3", "backbone": backbone, "nc": 19, "aux": True})
    image = torch.empty(1, 3, 1024, 2048, dtype=torch.uint8, device="meta")
    assert round(paper_macs(built, image, aux=True) / 1e9, 1) == gmacs


@pytest.fixture(scope="module")
def small() -> Segmenter:
    torch.manual_seed(0)
    return build(NetworkSpec("mobilenetv2_100", 5))


def test_deployed_counts_leave_the_auxiliary_head_out(small: Segmenter) -> None:
    assert small.aux_head is not None
    aux_params = sum(p.numel() for p in small.aux_head.parameters())
    conv, classifier = small.aux_head.block[0], small.aux_head.classifier
    assert isinstance(conv, nn.Conv2d)
    total, deployed = count_parameters(small)
    assert total - deployed == aux_params
    difference = count_macs(small, (64, 96), aux=True).true - count_macs(small, (64, 96)).true
    assert difference == 8 * 12 * (conv.weight.numel() + classifier.weight.numel())


def test_counting_and_timing_leave_the_network_as_it_was(small: Segmenter) -> None:
    small.train()
    small.head.eval()
    before = {k: v.clone() for k, v in small.state_dict().items()}
    modes = [m.training for m in small.modules()]
    names = [n for n, _ in small.named_buffers()]
    report.profile(small, (64, 64), warmup=1, repeats=2)
    assert [m.training for m in small.modules()] == modes
    assert [n for n, _ in small.named_buffers()] == names
    assert all(torch.equal(v, before[k]) for k, v in small.state_dict().items())


def test_thop_counts_a_little_more_than_the_truth(small: Segmenter) -> None:
    macs = count_macs(small, (128, 128), aux=True)
    assert macs.thop is not None
    assert macs.true < macs.thop < 1.1 * macs.true


def test_missing_thop_is_reported_and_costs_nothing_else(
    small: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "thop", None)
    macs = count_macs(small, (64, 64))
    assert macs.thop is None
    assert "thop" in macs.thop_error
    assert macs.true > 0


def test_latency_is_ordered_and_repeated_as_asked(small: Segmenter) -> None:
    latency = measure_latency(small, (64, 64), warmup=1, repeats=5)
    assert 0 < latency.median_ms <= latency.p95_ms
    assert latency.repeats == 5


def test_images_per_second_follow_from_the_median(small: Segmenter) -> None:
    latency = measure_latency(small, (64, 64), batch=3, warmup=0, repeats=2)
    assert latency.images_per_s == pytest.approx(3000 / latency.median_ms)


def test_profile_is_json_ready_and_measures_memory_only_when_it_times(small: Segmenter) -> None:
    measured = report.profile(small, (64, 64), repeats=1, warmup=0, thop=False)
    values = json.loads(json.dumps(measured.to_dict()))
    assert values["peak_memory_note"] == ""
    assert values["macs_deployed"]["true"] < values["macs"]["true"]
    assert (values["macs"]["thop"], values["macs"]["thop_error"]) == (None, "not asked for")
    counted = report.profile(small, (64, 64), repeats=0, thop=False)
    assert counted.latency is None
    assert counted.peak_memory_mib is None


def test_peak_memory_on_the_cpu_is_the_weights_and_what_the_pass_holds_at_once(small: Segmenter) -> None:
    weights = sum(t.numel() * t.element_size() for t in (*small.parameters(), *small.buffers())) / 2**20
    one, note = measure_peak_memory(small, (128, 128))
    three, _ = measure_peak_memory(small, (128, 128), batch=3)
    assert note == ""
    assert one is not None
    assert three is not None
    # the first inverted bottleneck is the widest: 96 channels at half the size, in and out of batch norm
    widest = 96 * 64 * 64 * 4 / 2**20
    assert weights + 2 * widest < one < weights + 4 * widest
    assert three - weights == pytest.approx(3 * (one - weights), rel=0.1)


def test_half_precision_passes_hold_less_memory(small: Segmenter) -> None:
    full, _ = measure_peak_memory(small, (128, 128), batch=4)
    half, _ = measure_peak_memory(small, (128, 128), batch=4, dtype=torch.bfloat16)
    assert full is not None
    assert half is not None
    assert half < full


def test_a_device_without_a_counter_is_named() -> None:
    with torch.device("meta"):
        network = build(NetworkSpec("mobilenetv2_100", 5))
    memory, note = measure_peak_memory(network, (64, 64))
    assert memory is None
    assert "meta" in note


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_cuda_exceeds_the_weights() -> None:
    cuda = build(NetworkSpec("mobilenetv2_100", 5)).cuda()
    memory, note = measure_peak_memory(cuda, (256, 256))
    assert memory is not None
    assert note == ""
    assert memory > sum(p.numel() * 4 for p in cuda.parameters()) / 2**20
