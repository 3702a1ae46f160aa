"""hwdkit in Python: networks and data of one's own, by the loop that recipes are trained by."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import Pair, environment
from tiny_runs import hwdkit as command_line
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import hwdkit
from hwdkit.data.iterables import Reader, training_batches
from hwdkit.errors import Cancelled, CheckpointError, DataError, RecipeError

CLASSES = 3


class Blocks(Dataset[tuple[Tensor, Tensor]]):
    """Images whose brightness is their class, with noise and flips from three sources of random numbers."""

    def __init__(self, length: int = 8) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        label = (torch.arange(32) // 8 + i).remainder(CLASSES).expand(32, 32).contiguous()
        image = label * 80 + torch.randint(0, 20, (3, 32, 32)) + np.random.randint(0, 5)
        if random.random() < 0.5:
            image, label = image.flip(-1), label.flip(-1)
        return image.clamp(0, 255).to(torch.uint8), label


ITEMS = [Blocks()[i] for i in range(8)]


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(8, CLASSES, 1),
    )


def losses() -> dict[str, hwdkit.Loss]:
    return {"ce": hwdkit.CrossEntropy(), "hwd": 3.0 * hwdkit.HWD(mu=1.0)}


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(
    data: Any, *, iterations: int = 6, student: nn.Module | None = None, **options: Any
) -> tuple[Any, Any]:
    student = hwdkit.adapt(student or module(0), CLASSES)
    teacher = hwdkit.adapt(module(1), CLASSES)
    options = {"losses": losses(), "iterations": 6, "batch_size": 4, "cpu": True, **options}
    return hwdkit.fit(student, teacher, data, **options), student


def test_import_is_free_of_torch_and_names_come_when_they_are_used() -> None:
    code = (
        "import sys, hwdkit; assert 'torch' not in sys.modules; hwdkit.HWD; hwdkit.fit; "
        "assert 'fit' in dir(hwdkit) and not hasattr(hwdkit, 'fitt'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == "True", done.stderr


def test_a_student_learns_and_its_teacher_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    student, teacher = hwdkit.adapt(module(0), CLASSES), hwdkit.adapt(module(1), CLASSES)
    before = weights(teacher)
    at_first = hwdkit.evaluate(student, Blocks(), cpu=True).miou
    result = hwdkit.fit(
        student,
        teacher,
        Blocks(),
        losses={"ce": hwdkit.CrossEntropy()},
        iterations=60,
        lr=0.1,
        batch_size=4,
        validate=Blocks(),
        cpu=True,
    )
    assert equal(weights(teacher), before)
    assert result.last["miou"] > at_first + 0.2
    assert result.run_dir is None
    assert not list(tmp_path.iterdir()), "without out= nothing is written"


@pytest.mark.parametrize(
    "data",
    [
        lambda: Blocks(),
        lambda: DataLoader(Blocks(), batch_size=4, shuffle=True),
        lambda: ITEMS,
    ],
    ids=["dataset", "loader", "list"],
)
def test_a_run_that_is_stopped_and_resumed_ends_where_one_without_a_break_ends(
    data: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"train": {"save_every": 2, "log_every": 1}}
    torch.manual_seed(5)
    _, whole = run(data(), out=tmp_path / "whole", **options)

    class Stop(Exception):
        pass

    class Interrupting(hwdkit.Loss):
        reads_teacher = False
        steps = 0

        def forward(self, student: Any, teacher: Any, label: Tensor) -> Tensor:
            Interrupting.steps += 1
            if Interrupting.steps == 4:
                raise Stop
            return student.logits.sum() * 0

    broken = {**losses(), "stop": Interrupting()}
    torch.manual_seed(6)  # what happened before in the process does not matter
    with pytest.raises(Stop):
        run(data(), out=tmp_path / "broken", losses=broken, **options)
    Interrupting.steps = -100
    torch.manual_seed(7)
    _, resumed = run(
        data(), out=tmp_path / "broken", losses=broken, resume=True, student=module(9), **options
    )
    assert equal(weights(resumed), weights(whole))


def test_the_folder_is_an_ordinary_run(tmp_path: Path) -> None:
    result, student = run(Blocks(), out=tmp_path / "run", validate=Blocks(), classes=("a", "b", "c"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "metrics.csv",
        "train.log",
        "student.safetensors",
    }
    assert result.checkpoint == tmp_path / "run" / "student.safetensors"
    assert sorted(load_file(result.checkpoint)) == sorted(student.module.state_dict())
    other = module(3)
    assert equal(weights(hwdkit.load(tmp_path / "run", into=other)), weights(student.module))
    assert not other.training
    with pytest.raises(
        CheckpointError, match=r"your own module Sequential.*\n.*hwdkit.load\(path, into=module\)"
    ):
        hwdkit.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="do not fit"):
        hwdkit.load(tmp_path / "run", into=nn.Conv2d(3, 3, 1))


def test_a_finished_run_is_given_back_and_another_is_not_overwritten(tmp_path: Path) -> None:
    first, _ = run(Blocks(), out=tmp_path / "run")
    again, _ = run(Blocks(), out=tmp_path / "run", resume=True)
    assert again == first
    with pytest.raises(RecipeError, match="already used"):
        run(Blocks(), out=tmp_path / "run")
    first, student = run(Blocks(), out=tmp_path / "begun", resume=True)  # one script begins and continues
    _, given_back = run(Blocks(), out=tmp_path / "begun", resume=True, student=module(4))
    assert equal(weights(given_back), weights(student))
    with pytest.raises(RecipeError, match=r"cannot change losses\.hwd\.mu"):
        run(
            Blocks(),
            out=tmp_path / "begun",
            resume=True,
            losses={**losses(), "hwd": 3.0 * hwdkit.HWD(mu=2.0)},
        )


class CtrlC(hwdkit.Loss):
    """Presses Ctrl-C in its second step."""

    reads_teacher = False
    steps = 0

    def forward(self, student: Any, teacher: Any, label: Tensor) -> Tensor:
        self.steps += 1
        if self.steps == 2:
            signal.raise_signal(signal.SIGINT)
        return student.logits.sum() * 0


def test_ctrl_c_saves_where_there_is_a_folder_and_leaves_at_once_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match=r"saved\n.*hwdkit.fit with resume=True") as caught:
        run(Blocks(), losses={**losses(), "stop": CtrlC()}, out=tmp_path / "run")
    assert caught.value.exit_code == 130
    patient = CtrlC()
    patient.steps = 2
    again, _ = run(Blocks(), losses={**losses(), "stop": patient}, out=tmp_path / "run", resume=True)
    assert again.run_dir == tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(Blocks(), losses={**losses(), "stop": CtrlC()})


def test_a_thread_can_fit(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        result, _ = pool.submit(run, Blocks(), out=tmp_path / "run").result()
    assert result.checkpoint.is_file()


def test_what_is_frozen_stays_so_and_what_the_losses_do_not_reach_can_be_trained_later() -> None:
    frozen = module(0)
    frozen[0].requires_grad_(False)
    before = weights(frozen[0])
    run(Blocks(), student=frozen)
    assert equal(weights(frozen[0]), before)
    assert not frozen[0].weight.requires_grad
    assert frozen[4].weight.requires_grad
    with pytest.raises(RecipeError, match="nothing to train"):
        run(Blocks(), student=module(0).requires_grad_(False))
    unreached = module(0)
    unreached.register_module("spare", nn.Identity())
    head = nn.Conv2d(3, 3, 1)
    unreached[2].register_module("unused", head)
    run(Blocks(), student=unreached)
    assert head.weight.requires_grad


def test_an_averaged_student_is_the_one_that_was_validated(tmp_path: Path) -> None:
    result, student = run(ITEMS, validate=ITEMS, out=tmp_path / "run", train={"ema": 0.5, "amp": "bf16"})
    assert hwdkit.evaluate(student, ITEMS, cpu=True).miou == result.last["miou"]
    assert equal(load_file(result.checkpoint), weights(student.module))


def test_the_switches_of_torch_are_as_they_were() -> None:
    seen = []

    class Look(hwdkit.CrossEntropy):
        def forward(self, *maps: Any) -> Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(*maps)

    run(Blocks(), losses={"ce": Look()}, train={"deterministic": "strict"})
    assert all(seen)
    assert seen
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_network_of_hwdkit_learns_on_and_keeps_its_classes(pair: Pair, tmp_path: Path) -> None:
    student, teacher = hwdkit.load(pair.student), hwdkit.load(pair.teacher)
    names = student.about["classes"]
    data = [(torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(32, 32, dtype=torch.long))] * 4
    out = tmp_path / "more"
    result = hwdkit.fit(
        student, teacher, data, losses=losses(), iterations=2, batch_size=2, validate=data, out=out, cpu=True
    )
    again = hwdkit.load(out)
    assert equal(weights(again), weights(student))
    assert again.about["classes"] == names
    evaluated = command_line("evaluate", "-c", out, "--data-root", pair.data, "--gpus", 0, "--json")
    assert evaluated.code == 0, evaluated.err
    assert [row["name"] for row in evaluated.document["per_class"]] == names
    assert result.last["step"] == again.about["metrics"]["step"] == 2


def test_a_resumed_run_cannot_become_another(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stopping() -> Any:
        yield from (tuple(map(torch.stack, zip(*[Blocks()[i]] * 2, strict=True))) for i in range(3))
        raise Stop

    with pytest.raises(Stop):
        run(stopping(), out=tmp_path / "run", train={"save_every": 1})
    with pytest.raises(RecipeError, match=r"cannot change optimizer\.lr"):
        run(stopping(), out=tmp_path / "run", train={"save_every": 1}, lr=0.5, resume=True)
    with pytest.raises(CheckpointError, match="teacher_sha256 has changed"):
        hwdkit.fit(
            hwdkit.adapt(module(0), CLASSES),
            hwdkit.adapt(module(8), CLASSES),
            stopping(),
            losses=losses(),
            iterations=6,
            batch_size=4,
            cpu=True,
            train={"save_every": 1},
            out=tmp_path / "run",
            resume=True,
        )


def test_loader_processes_change_nothing() -> None:
    _, here = run(Blocks(), workers=0)
    _, there = run(Blocks(), workers=2)
    assert equal(weights(here), weights(there))


def test_training_leaves_the_random_numbers_of_the_data_alone() -> None:
    plain = module(0)
    plain[3] = nn.Identity()  # without dropout training draws nothing
    seen: list[Tensor] = []

    class Spy(Blocks):
        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            item = super().__getitem__(i)
            seen.append(item[0])
            return item

    run(Spy())
    first = seen[:]
    seen.clear()
    run(Spy(), student=plain)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def image(size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.zeros(3, *size, dtype=torch.uint8)


def label(value: int = 0, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.full(size, value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((image(), label(3)), "label holds 3, but there are classes 0 to 2"),
        ((image(), label(-1)), "label holds -1"),
        ((image().float() / 255, label()), "float32, but the networks take uint8 RGB"),
        ((image(), label(size=(16, 16))), "must have the image's height and width"),
        ((torch.zeros(1, 32, 32, dtype=torch.uint8), label()), r"shape \(1, 1, 32, 32\)"),
        ({"image": image(), "label": label()}, "is a dict, not a pair"),
        ((image(), label().float()), "must hold integers"),
    ],
)
def test_data_that_cannot_be_meant_is_refused_in_words(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run([item] * 8)
    with pytest.raises(DataError, match=message):
        hwdkit.evaluate(hwdkit.adapt(module(0), CLASSES), [item], cpu=True)


def test_images_of_several_sizes_are_refused_in_a_batch_and_evaluated_alone() -> None:
    mixed = [(image(), label()), (image((32, 48)), label(size=(32, 48)))] * 4
    with pytest.raises(DataError, match="differ in size"):
        run(mixed)
    assert hwdkit.evaluate(hwdkit.adapt(module(0), CLASSES), mixed, cpu=True).images == 8


def test_numpy_and_pil_are_read_as_the_same_pixels() -> None:
    network = hwdkit.adapt(module(0), CLASSES)
    tensors = [Blocks()[i] for i in range(4)]
    arrays = [(image.permute(1, 2, 0).numpy(), label.numpy()) for image, label in tensors]
    pictures = [(Image.fromarray(image), Image.fromarray(label.astype(np.uint8))) for image, label in arrays]
    expected = hwdkit.evaluate(network, tensors, cpu=True)
    assert hwdkit.evaluate(network, arrays, cpu=True) == expected
    assert hwdkit.evaluate(network, pictures, cpu=True) == expected


def test_frozen_batch_norm_stays_frozen() -> None:
    network = module(0)
    network[1].eval()
    before = network[1].running_mean.clone()
    run(Blocks(), student=network)
    assert torch.equal(network[1].running_mean, before)


def test_a_sampler_with_epochs_gets_them_in_order_and_where_a_resume_begins() -> None:
    class Epochs(torch.utils.data.SequentialSampler):
        def __init__(self) -> None:
            super().__init__(Blocks())
            self.epochs: list[int] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    sampler, reader = Epochs(), Reader(CLASSES, normalises=True)
    loader = DataLoader(Blocks(), batch_size=4, sampler=sampler)
    begun = training_batches(loader, reader, batch_size=4, seed=0, start_step=0)
    batches = [next(begun) for _ in range(5)]
    assert sampler.epochs == [0, 1, 2]
    resumed = next(training_batches(loader, reader, batch_size=4, seed=0, start_step=4))
    assert sampler.epochs == [0, 1, 2, 2]
    assert torch.equal(resumed[0].image, batches[4][0].image)


def test_a_factor_may_be_numpys() -> None:
    result, _ = run(Blocks(), losses={"hwd": hwdkit.HWD(mu=1.0) * np.float64(2.0)}, iterations=1)
    assert result.images_per_s > 0


def test_losses_resize_as_the_student() -> None:
    terms = losses()
    run(Blocks(), losses=terms)
    assert not any(loss.align_corners for loss in terms.values())


def test_data_that_ends_or_holds_nothing_is_told() -> None:
    with pytest.raises(DataError, match="the data is empty"):
        run([])
    with pytest.raises(DataError, match="no image to evaluate"):
        hwdkit.evaluate(hwdkit.adapt(module(0), CLASSES), iter([]), cpu=True)
    with pytest.raises(DataError, match=r"item \d is a batch of 2 images"):
        run([(torch.stack([image()] * 2), torch.stack([label()] * 2))] * 4)
    with pytest.raises(DataError, match="yields nothing"):
        run(iter([]))
    with pytest.raises(DataError, match="ended before the training"):
        run(iter([(image()[None], label()[None])]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": {}}, "nothing to train"),
        ({"losses": {"keys": hwdkit.CrossEntropy()}}, "cannot be named keys"),
        ({"losses": {"ce": nn.CrossEntropyLoss()}}, "is a CrossEntropyLoss, not a Loss"),
        ({"losses": {"at": hwdkit.losses.AT()}}, "taps="),
        ({"train": {"amq": "bf16"}}, "Did you mean 'amp'"),
        ({"optimizer": {"momentum": 2}}, "momentum"),
        ({"lr": -1}, "lr"),
        ({"resume": True}, "needs out="),
        ({"classes": ("a",), "out": "x"}, "classes names 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_trained(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=message):
        run(Blocks(), **options)
    assert not list(tmp_path.rglob("*.pt"))


def test_networks_that_do_not_go_together_are_refused() -> None:
    student = hwdkit.adapt(module(0), CLASSES)
    with pytest.raises(RecipeError, match=r"a module.*\n.*hwdkit.adapt"):
        hwdkit.fit(module(0), None, Blocks(), losses=losses(), iterations=1)  # type: ignore[arg-type]
    other, plain = hwdkit.adapt(nn.Conv2d(3, 5, 1), 5), hwdkit.adapt(module(1), CLASSES, contract=None)
    with pytest.raises(RecipeError, match="student has 3 classes, teacher 5"):
        hwdkit.fit(student, other, Blocks(), losses=losses(), iterations=1)
    with pytest.raises(RecipeError, match="'hwd' needs a teacher"):
        hwdkit.fit(student, None, Blocks(), losses=losses(), iterations=1)
    with pytest.raises(RecipeError, match="contract=None to both or to none"):
        hwdkit.fit(student, plain, Blocks(), losses=losses(), iterations=1)


def test_networks_that_normalise_nothing_take_images_as_they_come() -> None:
    data = [(pixels.float() / 255, classes) for pixels, classes in ITEMS]
    student = hwdkit.adapt(module(0), CLASSES, contract=None)
    teacher = hwdkit.adapt(module(1), CLASSES, contract=None)
    hwdkit.fit(student, teacher, data, losses=losses(), iterations=2, batch_size=4, cpu=True)
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(student.eval()(pixels).logits, student.module(pixels))


def test_taps_of_any_module_can_be_compared() -> None:
    taps = {"stage1": "0"}
    student = hwdkit.adapt(module(0), CLASSES, taps=taps)
    teacher = hwdkit.adapt(module(1), CLASSES, taps=taps)
    terms = {"ce": hwdkit.CrossEntropy(), "at": hwdkit.losses.AT(tap="stage1")}
    result = hwdkit.fit(student, teacher, Blocks(), losses=terms, iterations=2, batch_size=4, cpu=True)
    assert result.images_per_s > 0


def test_evaluating_keeps_the_training_mode() -> None:
    network = hwdkit.adapt(module(0), CLASSES)
    hwdkit.evaluate(network.train(), Blocks(), cpu=True)
    assert network.training
    hwdkit.evaluate(network.eval(), Blocks(), cpu=True)
    assert not network.training
