"""Reading and writing model files: nothing is executed, and errors say what to do."""

from __future__ import annotations

import os
import pickle
import random
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hwdkit.checkpoints.damage import tensors_digest
from hwdkit.checkpoints.files import (
    file_digest,
    load_model,
    load_tensors,
    read_metadata,
    read_state_dict,
    save_model,
    save_tensors,
)
from hwdkit.errors import CheckpointError

STATE = {"head.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)}


class RunsCode:
    """Unpickling this touches a file: what a malicious checkpoint would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_weights_and_description_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "student.safetensors"
    metadata = {"classes": ["road", "Straße"], "network": {"head": None, "options": {"layers": [1, 1]}}}
    save_model(path, STATE, metadata)
    state, found = load_model(path)
    assert found == metadata
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert state["steps"].dtype == torch.int64
    assert read_metadata(path) == metadata


def test_shared_and_non_contiguous_tensors_are_saved_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    state = {
        "a": base,
        "again": base,
        "a_row": base[1],
        "transposed": base.transpose(0, 3),
        "channels_last": base.to(memory_format=torch.channels_last),
        "half": base[:, ::2].bfloat16(),
        "trained": torch.nn.Parameter(base),
    }
    save_model(tmp_path / "m.safetensors", state, {"format": 1})
    loaded, _ = load_model(tmp_path / "m.safetensors")
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].dtype == tensor.dtype


def test_saving_leaves_the_given_tensors_alone(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    save_model(tmp_path / "m.safetensors", {"weight": weight}, {"format": 1})
    assert weight.requires_grad
    assert torch.equal(weight, torch.ones(2, 2))


def _refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)
    return caught.value


def test_a_truncated_safetensors_file_is_named_damaged_at_every_length(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_model(whole, STATE, {"format": 1})
    data = whole.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (1, 7, 8, 9, 60, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert "damaged or truncated" in _refused(cut).message


@pytest.mark.parametrize(
    "page", ["<!DOCTYPE html><html>", "  \n<html lang=en>", '<?xml version="1.0"?><Error/>']
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_web_page_is_called_a_web_page(tmp_path: Path, page: str, name: str) -> None:
    (tmp_path / name).write_text(page)
    assert "web page" in _refused(tmp_path / name).message


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    error = _refused(path)
    assert "git-lfs pointer" in error.message
    assert "git lfs pull" in error.hint


def test_empty_and_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    assert "empty" in _refused(tmp_path / "empty.pth").message
    assert "no such checkpoint" in _refused(tmp_path / "missing.pth").message
    assert "no such checkpoint" in _refused(tmp_path).message


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", ["zip", "legacy", 2, 5])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, protocol: str | int) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    value = {"w": torch.zeros(2), "evil": RunsCode(marker)}
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps({"evil": RunsCode(marker)}, protocol=protocol))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=protocol == "zip")
    assert "refused" in _refused(path).message
    assert not marker.exists()
    with pytest.raises(CheckpointError, match="refused"):
        load_tensors(path)
    assert not marker.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    error = _refused(tmp_path / "model.pth")
    assert "refused" in error.message
    assert "state dict" in error.hint


@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model",), ("state_dict", "model")])
def test_a_state_dict_loads_plain_or_wrapped(tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    value: dict[str, object] = dict(STATE)
    for key in reversed(wrapper):
        value = {key: value, "epoch": 3}
    torch.save(value, tmp_path / "weights.pth")
    state = read_state_dict(tmp_path / "weights.pth")
    assert state.keys() == STATE.keys()
    assert torch.equal(state["head.weight"], STATE["head.weight"])


def test_a_legacy_state_dict_loads(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.pth")["steps"], STATE["steps"])


@pytest.mark.parametrize(
    "value", [[torch.zeros(1)], {"a": torch.zeros(1), "b": 3}, torch.zeros(2), {"a": {}}]
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "other.pth")
    assert "no state dict" in _refused(tmp_path / "other.pth").message


def test_safetensors_are_known_by_content_and_need_a_description_only_as_a_network(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "plain.bin")
    assert torch.equal(read_state_dict(tmp_path / "plain.bin")["steps"], STATE["steps"])
    assert read_metadata(tmp_path / "plain.bin") == {}
    with pytest.raises(CheckpointError, match="no description"):
        load_model(tmp_path / "plain.bin")


@pytest.mark.parametrize(
    "text",
    ["not json", "[1]", "3", '{"a": ' + 70 * "[" + 70 * "]" + "}", '{"a": ' + 400 * "9" + "}", 9000 * "["],
    ids=["text", "list", "number", "deep", "huge", "bottomless"],
)
def test_a_description_that_is_no_plain_json_object_is_refused(tmp_path: Path, text: str) -> None:
    save_file(STATE, tmp_path / "m.safetensors", {"hwdkit": text})
    with pytest.raises(CheckpointError, match="its description"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_end_in_a_checkpoint_error_and_never_in_a_traceback(
    tmp_path: Path, zipped: bool
) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "damaged.pth"
    torch.save(STATE, whole, _use_new_zipfile_serialization=zipped)
    data, dice = whole.read_bytes(), random.Random(0)
    damaged = [data[:length] for length in range(1, len(data), 1 + len(data) // 40)]
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(3):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        damaged.append(bytes(changed))
    damaged += [b"some text\n", b'{"json": 1}', dice.randbytes(40)]
    for content in damaged:
        path.write_bytes(content)
        with suppress(CheckpointError):
            read_state_dict(path)  # a foreign file's flipped bit in a tensor goes unnoticed: that is no crash


def test_text_under_a_checkpoints_name_is_not_accused_of_running_code(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text('{"json": 1}')
    assert "damaged" in _refused(tmp_path / "notes.pth").message


def test_a_training_state_comes_back_exactly(tmp_path: Path) -> None:
    state = {"step": 3, "ema": None, "betas": (0.9, 0.999), "tensors": [torch.rand(3).double()], "best": {}}
    save_tensors(tmp_path / "checkpoints" / "last.pt", state)
    loaded = load_tensors(tmp_path / "checkpoints" / "last.pt")
    assert torch.equal(loaded.pop("tensors")[0], state.pop("tensors")[0])  # type: ignore[index]
    assert loaded == state


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(2)},
        {"a": torch.zeros(1).expand(30_000, 30_000)},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {"a": torch.eye(3).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
    ],
    ids=["number as a name", "one number stretched", "complex", "sparse", "without numbers"],
)
def test_only_names_and_dense_tensors_are_a_state_dict(
    tmp_path: Path, state: dict[object, torch.Tensor]
) -> None:
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "odd.pth")


def _with_flipped_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("place", [-1, -8, -20, -32])
def test_a_flipped_byte_in_a_models_tensors_is_damage(tmp_path: Path, place: int) -> None:
    path = tmp_path / "student.safetensors"
    save_model(path, STATE, {"format": 1})
    _with_flipped_byte(path, place)
    error = _refused(path)
    assert error.message == "is damaged: its tensors are not those that were saved"
    assert "copy it again" in error.hint
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(path)


def test_every_flipped_byte_of_a_model_file_is_noticed_or_lies_in_its_description(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "flipped.safetensors"
    save_model(whole, STATE, {"format": 1})
    unnoticed = []
    for place in range(whole.stat().st_size):
        path.write_bytes(whole.read_bytes())
        _with_flipped_byte(path, place)
        try:
            state = read_state_dict(path)
        except CheckpointError:
            continue
        assert all(torch.equal(state[name], STATE[name]) for name in STATE)
        unnoticed.append(place)
    assert len(unnoticed) < 60  # the words of the header that are not the tensors'


def test_models_without_a_checksum_load(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "older.safetensors", {"hwdkit": '{"format": 1}'})
    state, description = load_model(tmp_path / "older.safetensors")
    assert torch.equal(state["head.weight"], STATE["head.weight"])
    assert description == {"format": 1}


def test_a_model_written_again_has_the_checksum_of_its_own_tensors_and_equal_models_equal_bytes(
    tmp_path: Path,
) -> None:
    first, second, halved = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "halved"))
    save_model(first, STATE, {"format": 1})
    state, description = load_model(first)
    save_model(second, dict(reversed(state.items())), description)
    assert first.read_bytes() == second.read_bytes()
    save_model(halved, {name: tensor.half() for name, tensor in state.items()}, description)
    assert load_model(halved)[0]["head.weight"].dtype == torch.float16
    save_model(second, state, {"tensors_sha256": "of another file"})
    assert load_file(second).keys() == read_state_dict(second).keys() == STATE.keys()


def test_checksum_tells_names_types_shapes_and_values_apart_but_no_order_or_memory_layout() -> None:
    ones = torch.ones(2, 3)
    digests = [
        tensors_digest(state)
        for state in (
            {},
            {"a": ones},
            {"b": ones},
            {"a": ones.view(3, 2)},
            {"a": ones.view(torch.int32)},
            {"a": ones.bfloat16()},
            {"a": ones, "b": ones},
            {"a": torch.ones(())},
            {"a": torch.ones(0, 2)},
            {"a": torch.ones(0, 3)},
            {"a": ones > 0},
        )
    ]
    assert len(set(digests)) == len(digests)
    state = {"a": torch.arange(6.0).view(2, 3), "b": ones.bfloat16()}
    other = {"b": torch.nn.Parameter(ones.bfloat16()), "a": torch.arange(6.0).view(2, 3).t().contiguous().t()}
    assert tensors_digest(state) == tensors_digest(other)


def _damaged_state(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        load_tensors(path)
    assert caught.value.where == str(path)
    return caught.value


def test_every_flipped_byte_of_a_training_state_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "last.pt"
    save_tensors(whole, {"step": 3, "weight": torch.arange(100.0)})
    assert b"PK" in whole.read_bytes()[:2]
    noticed = 0
    for place in range(whole.stat().st_size):
        path.write_bytes(whole.read_bytes())
        _with_flipped_byte(path, place)
        try:
            state = load_tensors(path)
        except CheckpointError:
            assert "--init-from" in _damaged_state(path).hint
            noticed += 1
            continue
        assert state["step"] == 3
        assert torch.equal(state["weight"], torch.arange(100.0))
    assert noticed > 400  # the 400 bytes of the tensor, and the pickle


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 cut short", b"some text\n", b"\0" * 600])
def test_states_that_are_no_archive_say_what_a_new_run_can_start_from(tmp_path: Path, content: bytes) -> None:
    path, best = tmp_path / "last.pt", tmp_path / "best.safetensors"
    path.write_bytes(content)
    assert "no " + str(best) in _damaged_state(path).hint
    save_model(best, STATE, {"format": 1})
    assert f"--init-from {best}" in _damaged_state(path).hint


def test_a_training_state_cut_short_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_tensors(path, STATE)
    data = path.read_bytes()
    for length in range(0, len(data), 1 + len(data) // 50):
        path.write_bytes(data[:length])
        assert "--init-from" in _damaged_state(path).hint
