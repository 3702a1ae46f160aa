"""An index that comes from outside: what it says is checked before anyone relies on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwdkit.data.index import FILE_NAME, load_index
from hwdkit.errors import DataError
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    options = SceneOptions(train=2, val=1, size=(32, 32))
    prepare("scenes", root=tmp_path, scenes=options, workers=1)
    return tmp_path / "scenes"


def renamed(document: dict[str, Any]) -> None:
    for part in ("splits", "statistics"):
        document[part]["../../victim"] = document[part].pop("val")


def with_pair(place: int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["splits"]["train"][0][place] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        renamed,
        with_pair(0, 5),
        with_pair(2, "32"),
        with_pair(2, -32),
        with_pair(3, 10**9),
        lambda document: document["label_map"].update({"0": 77}),
        lambda document: document["label_map"].update({str(10**13): 0}),
        lambda document: document["statistics"].pop("val"),
    ],
    ids=["split", "path", "text", "negative", "huge", "class", "raw id", "statistics"],
)
def test_an_index_that_no_one_could_have_saved_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = folder / FILE_NAME
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="not a dataset index of this version"):
        load_index(folder)


def test_the_index_of_data_that_has_moved_can_be_read_for_what_it_says(folder: Path) -> None:
    fingerprint = load_index(folder).fingerprint
    (folder / "images").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="are gone"):
        load_index(folder)
    assert load_index(folder, files_must_exist=False).fingerprint == fingerprint
