"""What a comparison of methods is: their networks, costs and scores, and the differences between them.

How the numbers are made is `compare.py` and `bootstrap.py`, how they look and what they say is in `report/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hwdkit.measure.bootstrap import Counts, Draws, Interval, scores
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
    """One trained network of a method.

    Attributes:
        path: of its checkpoint.
        digest: sha256 of that file.
        seed: of its run, where known.
        counts: of every image, see `image_counts`.
        costs: of its training.
    """

    path: str
    digest: str
    seed: int | None
    counts: Counts
    costs: Costs


@dataclass(frozen=True)
class Method:
    """Networks that differ in their seed alone, under one name.

    Attributes:
        name: unique in a comparison.
        role: "teacher", "baseline" or "student".
        params: of one network as deployed, without the auxiliary head.
        gmacs: 1e9 multiply-adds of one 512x512 image, as deployed.
        members: at least one.
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
        base = self.baseline
        found = (d for d in self.differences if base and (d.method, d.against) == (method.name, base.name))
        return next(found, None)

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
            "differences": [_difference_dict(each, setting.classes) for each in self.differences],
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


def _difference_dict(each: Difference, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "method": each.method,
        "against": each.against,
        "seeds": list(each.seeds),
        "same_networks": each.same_networks,
        **_interval_dict(each.miou),
        "per_class": [
            {"name": name, **_interval_dict(interval)}
            for name, interval in zip(classes, each.per_class, strict=True)
        ],
    }


def _interval_dict(interval: Interval) -> dict[str, Any]:
    return {**vars(interval), "beyond_noise": interval.beyond_noise}


def per_hour(method: Method, drawn: Draws) -> float | None:
    """mIoU (0..1) over the hours that a run trained, on average; None if any run does not know them."""
    hours = method.cost("hours")
    return float(drawn.point[0]) / hours if hours else None
