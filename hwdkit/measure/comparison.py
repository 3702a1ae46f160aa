"""What a comparison of methods is: their networks, costs and scores, and the differences between them.

How intervals are computed is `bootstrap.py`, how a comparison looks and what it says is in `report/`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from hwdkit.measure.bootstrap import Counts, Draws, Interval, differences, method_draws, resampled, scores
from hwdkit.recipe.protocol import Absent, Protocol


@dataclass(frozen=True)
class Costs:
    """What a training run recorded of itself; None where it did not.

    Attributes:
        step_seconds: median over the log's rows.
        memory_mib: most memory of any step.
        hours: spent in training steps, without evaluating and saving.
        device: where, as run.json says.
    """

    step_seconds: float | None = None
    memory_mib: float | None = None
    hours: float | None = None
    device: str | None = None


@dataclass(frozen=True)
class Member:
    """One trained network of a method: its checkpoint, sha256 of that file, and what its run recorded."""

    path: str
    digest: str
    seed: int | None
    counts: Counts
    costs: Costs


@dataclass(frozen=True)
class Method:
    """Networks that differ in their seed alone, at least one, under a name that is unique in a comparison.

    Attributes:
        role: "teacher", "baseline" or "student".
        params: of one network as deployed, without the auxiliary head.
        gmacs: 1e9 multiply-adds of one 512x512 image, as deployed.
    """

    name: str
    role: str
    params: int
    gmacs: float
    members: tuple[Member, ...]

    def cost(self, key: str) -> float | None:
        """The mean over the runs of one of `Costs`; None if any of them does not know."""
        values = [getattr(member.costs, key) for member in self.members]
        return None if None in values else fmean(values)


@dataclass(frozen=True)
class Setting:
    """What a comparison is about, and how its numbers are made."""

    dataset: str
    split: str
    fingerprint: str
    classes: tuple[str, ...]
    images: int
    images_in_split: int
    protocol: Protocol
    resamples: int
    seed: int
    confidence: float
    notes: tuple[str, ...] = ()

    @property
    def absent(self) -> Absent:
        return self.protocol.absent


@dataclass(frozen=True)
class Difference:
    """One method minus another: mIoU, and every class."""

    method: str
    against: str
    seeds: tuple[int, int]
    same_networks: bool
    miou: Interval
    per_class: tuple[Interval, ...]


@dataclass(frozen=True)
class Comparison:
    """All that is known of some methods on one split."""

    setting: Setting
    methods: tuple[Method, ...]
    draws: dict[str, Draws]
    differences: tuple[Difference, ...]
    share: tuple[float, ...]

    @property
    def baseline(self) -> Method | None:
        return next((method for method in self.methods if method.role == "baseline"), None)

    def to_baseline(self, method: Method) -> Difference | None:
        """The method's difference to the baseline, if there is one."""
        pair = (method.name, self.baseline and self.baseline.name)
        return next((each for each in self.differences if (each.method, each.against) == pair), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; scores and differences in 0..1, NaN for what is unknown."""
        setting = self.setting
        facts = {key: value for key, value in vars(setting).items() if key not in ("classes", "protocol")}
        return {
            **facts,
            "notes": list(setting.notes),
            "protocol": setting.protocol.model_dump(),
            "baseline": self.baseline.name if self.baseline else None,
            "classes": [
                {"name": name, "share": share}
                for name, share in zip(setting.classes, self.share, strict=True)
            ],
            "methods": [self._method_dict(method) for method in self.methods],
            "differences": [
                {
                    "method": each.method,
                    "against": each.against,
                    "seeds": list(each.seeds),
                    "same_networks": each.same_networks,
                    **each.miou.to_dict(),
                    "per_class": [
                        {"name": name, **interval.to_dict()}
                        for name, interval in zip(setting.classes, each.per_class, strict=True)
                    ],
                }
                for each in self.differences
            ],
        }

    def _method_dict(self, method: Method) -> dict[str, Any]:
        drawn = self.draws[method.name]
        rows = zip(self.setting.classes, drawn.point[1:], drawn.std[1:], strict=True)
        return {
            "name": method.name,
            "role": method.role,
            "params": method.params,
            "gmacs": method.gmacs,
            "miou": float(drawn.point[0]),
            "miou_std": float(drawn.std[0]),
            "step_seconds": method.cost("step_seconds"),
            "memory_mib": method.cost("memory_mib"),
            "training_hours": method.cost("hours"),
            "miou_per_hour": per_hour(method, drawn),
            "seeds": [
                {
                    "checkpoint": member.path,
                    "checkpoint_sha256": member.digest,
                    "seed": member.seed,
                    "miou": float(scores(member.counts.sum(0), self.setting.absent)[0]),
                    **vars(member.costs),
                }
                for member in method.members
            ],
            "per_class": [
                {"name": name, "iou": float(iou), "iou_std": float(std)} for name, iou, std in rows
            ],
        }


def per_hour(method: Method, drawn: Draws) -> float | None:
    """mIoU (0..1) over the hours that a run trained, on average; None if any run does not know them."""
    hours = method.cost("hours")
    return float(drawn.point[0]) / hours if hours else None


def compare(methods: Sequence[Method], setting: Setting, *, all_pairs: bool = False) -> Comparison:
    """Compare methods, in the order to show them, with the baseline; with `all_pairs` every two."""
    absent = setting.absent
    counts = {member.digest: member.counts for method in methods for member in method.members}
    drawn = resampled(list(counts.values()), resamples=setting.resamples, seed=setting.seed, absent=absent)
    resamples = dict(zip(counts, drawn, strict=True))
    # Sorted: the order on the command line must not change a digit.
    digests = {method.name: sorted(member.digest for member in method.members) for method in methods}
    draws = {
        name: method_draws(
            np.stack([scores(counts[digest].sum(0), absent) for digest in seeds]),
            np.stack([resamples[digest] for digest in seeds]),
            seed=setting.seed,
            key=" ".join(seeds),
        )
        for name, seeds in digests.items()
    }
    labelled = methods[0].members[0].counts[:, 1]  # (images, C) pixels, the same for every network
    images = np.concatenate([[labelled.any(1).sum()], (labelled > 0).sum(0)])
    pairs = []
    for method, other in _pairs(methods, all_pairs):
        one, two = method.name, other.name
        miou, *classes = differences(draws[one], draws[two], confidence=setting.confidence, images=images)
        seeds, same = (len(digests[one]), len(digests[two])), digests[one] == digests[two]
        pairs.append(Difference(one, two, seeds, same, miou, tuple(classes)))
    pixels, total = labelled.sum(0).tolist(), int(labelled.sum())
    share = tuple(count / total if total else math.nan for count in pixels)
    return Comparison(setting, tuple(methods), draws, tuple(pairs), share)


def _pairs(methods: Sequence[Method], all_pairs: bool) -> Iterator[tuple[Method, Method]]:
    """Which methods are compared: the later argument minus the earlier, and always minus the baseline."""
    base = next((method for method in methods if method.role == "baseline"), None)
    for other, method in itertools.combinations(methods, 2):
        if base in (other, method):
            yield (method, other) if other is base else (other, method)
        elif all_pairs:
            yield method, other
