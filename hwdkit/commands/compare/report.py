"""hwdkit compare: is the difference between two methods more than the noise of images and seeds?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Group as Page

from hwdkit.checkpoints.files import write_file
from hwdkit.commands.compare import Compare
from hwdkit.commands.compare.counts import counted
from hwdkit.commands.compare.folders import with_runs_below
from hwdkit.commands.compare.runs import Checkpoint, Group, read_groups
from hwdkit.data.index import DatasetIndex
from hwdkit.engine.opened import one_device, open_images
from hwdkit.errors import UsageError
from hwdkit.measure.bootstrap import Counts
from hwdkit.measure.comparison import Comparison, Member, Method, Setting, compare
from hwdkit.measure.profile import count_parameters, true_macs
from hwdkit.recipe.protocol import Protocol
from hwdkit.recipe.published import published
from hwdkit.report import comparison as formats
from hwdkit.report.comparison import comparison_page
from hwdkit.report.render import printable
from hwdkit.terminal import console

log = logging.getLogger("hwdkit")

FILES = {"json": "compare.json", "csv": "compare.csv", "md": "compare.md", "latex": "compare.tex"}
"""Name of the file of each format; the figure is compare.png."""

VIDEO = {"camvid": "frames of a few videos", "cityscapes": "frames of three cities (val)"}
"""Datasets whose images are not independent of each other."""


def run(options: Compare, *, cpu: bool) -> tuple[Comparison, list[Path]]:
    """Evaluate every network once, compare them, write the files that are asked for; return their paths, too.

    Arguments that make no sense together are refused before anything is evaluated.
    """
    methods = with_runs_below(options.methods())
    with console.progress("reading networks", sum(len(each.paths) for each in methods)) as advance:
        groups = read_groups(methods, advance)
    base = _baseline(groups, options)
    networks = list({network.digest: network for group in groups for network in group.networks}.values())
    images = open_images(
        networks[0].loaded,  # the others have the same classes
        data_root=options.data_root,
        split=options.split,
        limit=options.limit,
        workers=options.workers,
    )
    index = images.index
    notes = [*images.notes(), *_data_notes(index, networks), *_run_notes(groups)]
    for note in notes:
        log.warning("%s", printable(note))
    notes += _published_notes(groups)
    setting = Setting(
        dataset=index.name,
        split=options.split,
        fingerprint=index.fingerprint,
        classes=index.classes,
        images=images.total,
        images_in_split=len(images.dataset),
        protocol=Protocol(absent=options.absent),
        resamples=options.resamples,
        seed=options.seed,
        confidence=options.confidence,
        notes=tuple(notes),
    )
    device, folder = one_device(cpu=cpu), options.out and options.out / "counts"
    counts = {
        network.digest: counted(
            network, images, setting, device=device, folder=folder, position=f"{number} of {len(networks)}"
        )
        for number, network in enumerate(networks, start=1)
    }
    measured = [_method(group, base, counts) for group in groups]
    measured.sort(key=lambda method: ("teacher", "baseline", "student").index(method.role))
    both = base is None and len(measured) == 2
    comparison = compare(measured, setting, all_pairs=options.all_pairs or both)
    return comparison, write(comparison, options)


def _baseline(groups: Sequence[Group], options: Compare) -> Group | None:
    """The one that is named, or the one student that is known to have learnt alone."""
    if options.baseline is None:
        alone = [group for group in groups if group.learns_alone]
        return alone[0] if len(alone) == 1 else None
    for group in groups:
        arguments = [*(network.argument for network in group.networks), group.folder]
        if options.baseline == group.name or Path(options.baseline) in arguments:
            return group
    names = ", ".join(group.name for group in groups)
    raise UsageError(f"--baseline: nothing here is called {options.baseline!r}", hint=f"there are: {names}")


def _method(group: Group, base: Group | None, counts: dict[str, Counts]) -> Method:
    model = group.networks[0].loaded.model
    image = torch.empty(1, 3, 512, 512, dtype=torch.uint8, device="meta")  # counts without computing
    return Method(
        name=group.name,
        role="baseline" if group is base else "teacher" if group.is_teacher else "student",
        params=count_parameters(model)[1],
        gmacs=true_macs(model, image, aux=False) / 1e9,
        members=tuple(
            Member(str(each.loaded.path), each.digest, each.seed, counts[each.digest], each.costs)
            for each in group.networks
        ),
    )


def _data_notes(index: DatasetIndex, networks: Sequence[Checkpoint]) -> Iterator[str]:
    other = [n for n in networks if n.loaded.metadata.get("dataset_fingerprint") != index.fingerprint]
    if other:
        paths = ", ".join(str(network.argument) for network in other)
        yield f"Trained on other files than {index.name} has here (its fingerprint differs): {paths}."
    if index.name in VIDEO:
        yield f"Images of {index.name} are {VIDEO[index.name]}, hence alike: real intervals are wider."


def _run_notes(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        seeds = [network.seed for network in group.networks if network.seed is not None]
        if len(set(seeds)) < len(seeds):
            yield f"{group.name} has runs of one seed: they count as seeds, but vary less than seeds do."
    devices = {n.costs.device for group in groups for n in group.networks if n.costs.device}
    if len(devices) > 1:
        yield f"Trained on {', '.join(sorted(devices))}: time and memory a step do not compare."


def _published_notes(groups: Sequence[Group]) -> Iterator[str]:
    """What is known of the recipes by name; a run's `--set` may have changed what the name stands for."""
    recipes = [network.recipe for group in groups for network in group.networks if network.recipe]
    for name in dict.fromkeys(recipe.name for recipe in recipes):
        known = published(name)
        numbers = [f"{known.reported} published"] if known.reported else []
        numbers += [f"{known.measured}, measured with hwdkit"] if known.measured else []
        if numbers:
            yield f"mIoU of the recipe {name}: {'; '.join(numbers)}."


def write(comparison: Comparison, options: Compare) -> list[Path]:
    """Write every format into `options.out`; each file replaces an older one only when it is complete."""
    if options.out is None:
        return []
    contents = {
        FILES[name]: text(comparison, name, options).encode("utf-8", "backslashreplace")
        for name in options.written
        if name in FILES
    }
    if "png" in options.written:
        from hwdkit.report.plots.compare import intervals  # matplotlib, where a figure is asked for

        contents["compare.png"] = intervals(comparison)
    written = [write_file(options.out / name, content) for name, content in contents.items()]
    if written:
        log.info("comparison: %s", ", ".join(str(path) for path in written))
    return written


def text(comparison: Comparison, form: str, options: Compare) -> str:
    """The comparison in one of the formats that are text."""
    if form == "json":
        return formats.comparison_json(comparison)
    writers = {
        "csv": formats.comparison_csv,
        "md": formats.comparison_markdown,
        "latex": formats.comparison_latex,
    }
    return writers[form](comparison, per_class=options.per_class)


def render(comparison: Comparison, options: Compare) -> Page | str:
    """What stdout shows: the table, or the one format that was asked for without a folder."""
    if options.out is None and options.written != ("table",):
        return text(comparison, options.written[0], options)
    return comparison_page(comparison, per_class=options.per_class)


def to_dict(comparison: Comparison, files: Sequence[Path]) -> dict[str, Any]:
    """JSON-able: the comparison, and the files written."""
    return {**formats.document(comparison), "files": [str(path) for path in files]}
