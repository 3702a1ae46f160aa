"""Adversarial distillation: the official discriminator's numbers, and how the critic is trained and saved."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_inputs import arrays
from torch import Tensor, nn

from hwdkit.losses.discriminator import BatchStandardise, Discriminator, SelfAttention, SpectralConv2d
from hwdkit.losses.holistic import Holistic, gradient_penalty, hinge_loss, wasserstein_loss
from hwdkit.types import SegOutput

RECORDED = arrays("adversarial")
LABEL = torch.zeros(2, 32, 32, dtype=torch.int64)
both = pytest.mark.parametrize("adversary", ["hinge", "wgan_gp"])
OFFICIAL_NAMES = (
    (r"^norm", "preprocess_additional"),
    (r"^attention3", "attn1"),
    (r"^attention4", "attn2"),
    (r"(query|key|value)", r"\1_conv"),
    (r"^last", "last.0"),
    (r"^conv(\d)\.weight", r"l\1.0.module.weight_bar"),
    (r"^conv(\d)\.bias", r"l\1.0.module.bias"),
    (r"^conv(\d)\.u", r"l\1.0.module.weight_u"),
)
OVERWRITTEN_UNREAD = tuple(f"l{i}.0.module.weight_v" for i in (1, 2, 3, 4))
"""The official state has these too; they move the others in the alphabet."""


def official(name: str) -> str:
    """What the official discriminator calls one of our tensors."""
    for ours, theirs in OFFICIAL_NAMES:
        name = re.sub(ours, theirs, name)
    return name


def recorded_critic() -> Discriminator:
    """The weights of the recording: standard normal numbers, seeded by the name's place in the alphabet."""
    critic = Discriminator(7).double()
    state = critic.state_dict()
    alphabet = sorted((*map(official, state), *OVERWRITTEN_UNREAD))
    for name, tensor in state.items():
        theirs = official(name)
        z = np.random.RandomState(1000 + alphabet.index(theirs)).standard_normal(tuple(tensor.shape))
        value = 0.05 * z
        if theirs.endswith("weight_u"):
            value = z / np.linalg.norm(z)
        elif theirs == "preprocess_additional.weight":
            value = 1 + 0.1 * z
        elif theirs == "last.0.weight":
            value = 0.2 * z
        elif theirs.endswith("gamma"):
            value = np.array([0.3 if theirs == "attn1.gamma" else -0.2])
        tensor.copy_(torch.from_numpy(value))
    return critic


def recorded_maps() -> tuple[Tensor, Tensor]:
    """The student's and the teacher's logits of the recording."""
    coarse = [torch.from_numpy(np.random.RandomState(i).standard_normal((2, 7, 16, 16))) for i in (7, 8)]
    student, teacher = (F.interpolate(z, (64, 64), mode="bilinear", align_corners=True) for z in coarse)
    return 2 * student, 3 * teacher


def close(value: Tensor, name: str, *, rtol: float = 1e-8) -> None:
    torch.testing.assert_close(value, RECORDED[name], rtol=rtol, atol=1e-12)


def maps(seed: int, *, classes: int = 3, dtype: torch.dtype = torch.float32) -> tuple[SegOutput, SegOutput]:
    """A student that wants gradients, and a quite different teacher."""
    dice = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 2, classes, 6, 7, generator=dice, dtype=torch.float64).to(dtype)
    return SegOutput(student.requires_grad_(), None, {}), SegOutput(3 + 2 * teacher, None, {})


def small(*, classes: int = 3, seed: int = 0, **options: Any) -> Holistic:
    """The loss with a critic of 8 channels instead of 64, and attention that does something."""
    torch.manual_seed(seed)
    loss = Holistic(classes=classes, **options)
    loss.critic = Discriminator(classes, width=8, preprocess=loss.critic.preprocess)
    nn.init.constant_(loss.critic.attention3.gamma, 0.5)
    nn.init.constant_(loss.critic.attention4.gamma, -0.5)
    loss.critic.requires_grad_(False)
    return loss


def step(loss: Holistic, seed: int, progress: float = 0.0) -> Tensor:
    """One step of training, seeded as the loop does; returns the critic's loss."""
    torch.manual_seed(seed)
    student, teacher = maps(seed)
    loss(student, teacher, LABEL).backward()
    return loss.update_critic(progress)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Two states are equal to the last bit, optimizers included."""
    mine, other = dict(ours), dict(theirs)
    extra = mine.pop("_extra_state"), other.pop("_extra_state")
    assert extra[0]["kind"] == extra[1]["kind"]
    torch.testing.assert_close(extra[0]["optimizer"], extra[1]["optimizer"], rtol=0, atol=0)
    torch.testing.assert_close(mine, other, rtol=0, atol=0)


def copies(loss: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loss.named_parameters()}


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_scores_and_losses_are_the_official_ones() -> None:
    critic = recorded_critic()
    student, teacher = recorded_maps()
    student.requires_grad_()
    scores = critic(student), critic(teacher)
    assert scores[0].shape == (2, 1, 1, 1)
    close(scores[0].flatten(), "student_scores")
    close(scores[1].flatten(), "teacher_scores")
    close(hinge_loss(*scores), "hinge")
    close(wasserstein_loss(*scores), "wasserstein")
    # The first pass has waited for its backward while the second advanced the spectral norms.
    (gradient,) = torch.autograd.grad(-scores[0].mean(), student)
    close(gradient[..., ::8, ::8], "student_gradient_every_8th", rtol=1e-7)


def test_gradient_penalty_is_the_official_one() -> None:
    penalty = gradient_penalty(recorded_critic(), *recorded_maps(), RECORDED["a"])
    close(10 * penalty, "gradient_penalty_times_10")


def test_module_plays_both_parts_as_recorded() -> None:
    loss = Holistic(classes=7, critic_weight=1.0).double()
    loss.critic.load_state_dict(recorded_critic().state_dict())
    student, teacher = (SegOutput(logits, None, {}) for logits in recorded_maps())
    close(loss(student, teacher, LABEL), "generator_loss")
    loss.critic.load_state_dict(recorded_critic().state_dict())
    close(loss.update_critic(0.0), "hinge")


@pytest.mark.parametrize("training", [True, False])
def test_power_iteration_finds_the_largest_singular_value_in_either_mode(training: bool) -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 5).double().train(training)
    largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
    for _ in range(200):
        layer(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(layer.sigma(), largest)
    ours, exact = torch.autograd.grad(layer.sigma(), layer.weight), torch.autograd.grad(largest, layer.weight)
    torch.testing.assert_close(ours, exact)


def test_first_sigma_is_one_iteration_from_the_stored_vector() -> None:
    layer = SpectralConv2d(3, 5)
    matrix, u = layer.weight.flatten(1), layer.u.clone()
    assert u.norm() == pytest.approx(1)
    v = matrix.T @ u / (matrix.T @ u).norm()
    torch.testing.assert_close(layer.sigma(), (matrix @ v).norm())
    assert not torch.equal(layer.u, u)


def test_attention_is_a_softmax_over_keys_position_by_position() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(1, 16, 2, 3, dtype=torch.float64)
    query, key, value = (part(x).flatten(2)[0] for part in (layer.query, layer.key, layer.value))
    expected = x.clone().flatten(2)
    for i in range(6):
        score = torch.stack([query[:, i] @ key[:, j] for j in range(6)]).softmax(0)
        expected[0, :, i] += 0.7 * sum(score[j] * value[:, j] for j in range(6))
    torch.testing.assert_close(layer(x).flatten(2), expected)


def test_batch_statistics_are_those_of_batch_norm_in_either_mode() -> None:
    ours, theirs = BatchStandardise(3), nn.BatchNorm2d(3)
    for layer in (ours, theirs):
        nn.init.constant_(layer.weight, 1.5)
        nn.init.constant_(layer.bias, -0.5)
    x = 5 + 3 * torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(ours.eval()(x), theirs.train()(x))


def test_critic_holds_nothing_that_converters_of_batch_norm_replace() -> None:
    batch_norms = [m for m in Discriminator(3).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert batch_norms == []


def test_number_of_parameters_is_the_published_one() -> None:
    millions = [sum(p.numel() for p in Discriminator(c).parameters()) / 1e6 for c in (19, 150, 182)]
    assert millions == pytest.approx([3.19, 3.33, 3.36], abs=0.005)


@pytest.mark.parametrize(("size", "scores"), [((64, 128), (1, 5)), ((65, 65), (1, 1)), ((9, 96), (1, 3))])
def test_sides_below_64_alone_are_stretched(size: tuple[int, int], scores: tuple[int, int]) -> None:
    critic = small().critic
    x = torch.randn(2, 3, *size)
    stretched = F.interpolate(x, (max(size[0], 64), size[1]), mode="bilinear", align_corners=True)
    expected = copy.deepcopy(critic)(stretched)
    assert expected.shape == (2, 1, *scores)
    assert torch.equal(critic(x), expected)


@pytest.mark.parametrize(("preprocess", "known"), [("tanh", torch.tanh), ("scale", lambda x: x / 127.5 - 1)])
def test_preprocess_changes_the_input_alone(preprocess: Any, known: Any) -> None:
    critic = small(preprocess=preprocess).critic
    x = torch.randn(2, 3, 64, 64)
    plain = copy.deepcopy(critic)
    plain._preprocessed = known  # type: ignore[method-assign]
    torch.testing.assert_close(critic(x), plain(x))
    assert "norm.weight" not in critic.state_dict()


def test_gradient_penalty_of_independent_images_is_that_of_each_alone() -> None:
    torch.manual_seed(0)
    plane = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Conv2d(4, 1, 2)).double()
    student, teacher = (output.logits.detach() for output in maps(1, dtype=torch.float64))
    a = torch.tensor([0.2, 0.9], dtype=torch.float64)
    expected = 0.0
    for n in range(2):
        x = (a[n] * teacher[n] + (1 - a[n]) * student[n]).requires_grad_()
        (slope,) = torch.autograd.grad(plane(x[None]).sum(), x)
        expected += (slope.square().sum().sqrt().item() - 1) ** 2 / 2
    assert gradient_penalty(plane, student, teacher, a).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_penalty_of_a_flat_critic_is_one_and_its_gradient_finite() -> None:
    critic = small().critic.requires_grad_(True)
    nn.init.zeros_(critic.last.weight)
    student, teacher = (output.logits.detach() for output in maps(1))
    penalty = gradient_penalty(critic, student, teacher, torch.rand(2))
    assert penalty.item() == 1
    gradients = torch.autograd.grad(penalty, list(critic.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@both
def test_optimizer_of_the_student_finds_no_parameter_of_the_critic(adversary: Any) -> None:
    loss = small(adversary=adversary)
    student, teacher = maps(1)
    teacher.logits.requires_grad_()
    for _ in range(2):
        assert not any(parameter.requires_grad for parameter in loss.parameters())
        value = loss(student, teacher, LABEL)
        assert not any(logits.requires_grad for pair in loss.remembered for logits in pair)
        value.backward()
        assert value.isfinite()
        loss.update_critic(0.5)
    assert student.logits.grad is not None
    assert student.logits.grad.any()
    assert teacher.logits.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())


@both
def test_update_changes_all_of_the_critic_and_nothing_of_the_student(adversary: Any) -> None:
    loss = small(adversary=adversary)
    student, teacher = maps(1)
    logits = student.logits.detach().clone()
    loss(student, teacher, LABEL)
    before = copies(loss)
    assert not loss.update_critic(0.0).requires_grad
    after = copies(loss)
    # A gap between scores hides the last bias, and one number added to all keys changes no softmax.
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same <= {"critic.last.bias", "critic.attention3.key.bias", "critic.attention4.key.bias"}
    assert student.logits.grad is None
    assert torch.equal(student.logits, logits)


@both
def test_update_is_one_step_down_the_mean_of_the_micro_batches(adversary: Any) -> None:
    loss = small(
        adversary=adversary, critic_optimizer="sgd", critic_momentum=0.0, critic_lr=0.5, critic_weight=0.3
    ).double()
    batches = [maps(seed, dtype=torch.float64) for seed in (1, 2)]
    for student, teacher in batches:
        loss(student, teacher, LABEL)
    critic = copy.deepcopy(loss.critic).requires_grad_(True)
    torch.manual_seed(5)
    value = torch.zeros((), dtype=torch.float64)
    for student, teacher in batches:
        own, wanted = student.logits.detach(), teacher.logits
        scores = critic(own), critic(wanted)
        if adversary == "hinge":
            value = value + (1 - scores[1]).clamp(min=0).mean() + (1 + scores[0]).clamp(min=0).mean()
        else:
            penalty = gradient_penalty(critic, own, wanted, torch.rand(2, dtype=torch.float64))
            value = value + scores[0].mean() - scores[1].mean() + 10 * penalty
    value = 0.3 * value / 2
    gradients = torch.autograd.grad(value, list(critic.parameters()))
    torch.manual_seed(5)
    torch.testing.assert_close(loss.update_critic(0.36), value.detach())
    rate = 0.5 * 0.64**0.9
    for ours, old, gradient in zip(loss.critic.parameters(), critic.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours, old - rate * gradient)
    for ours, theirs in zip(loss.critic.buffers(), critic.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_critic_learns_to_tell_two_sets_of_maps_apart() -> None:
    loss = small(critic_lr=3e-3)
    first = step(loss, 1)
    for _ in range(15):
        last = step(loss, 1)
    assert last < 0.2 * first
    student, teacher = maps(1)
    assert loss.critic(student.logits).mean() < -0.5
    assert loss.critic(teacher.logits).mean() > 0.5


@both
def test_player_and_critic_stay_finite_over_thirty_steps(adversary: Any) -> None:
    loss = small(adversary=adversary)
    student, teacher = maps(1)
    optimizer = torch.optim.SGD([student.logits], 10.0)
    for i in range(30):
        value = loss(student, teacher, LABEL)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        assert value.isfinite()
        assert loss.update_critic(i / 30).isfinite()
    assert student.logits.isfinite().all()


@both
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resumed_critic_equals_the_uninterrupted_one_bit_by_bit(adversary: Any, optimizer: Any) -> None:
    options = {"adversary": adversary, "critic_optimizer": optimizer}
    loss = small(**options)
    for i in range(3):
        step(loss, i, i / 6)
    state = through_a_file(loss.state_dict())
    kept = copy.deepcopy(state)
    resumed = small(seed=1, **options)
    step(resumed, 9)  # what it knew before must not survive
    resumed.load_state_dict(state)
    for i in range(3, 6):
        assert torch.equal(step(loss, i, i / 6), step(resumed, i, i / 6))
    assert_same(loss.state_dict(), resumed.state_dict())
    assert_same(state, kept)  # training on leaves the loaded state alone


def test_state_from_before_the_first_update_loads_and_one_loaded_saves_the_same() -> None:
    fresh, other = small(), small(seed=1)
    other.load_state_dict(through_a_file(fresh.state_dict()))
    assert torch.equal(step(other, 1), step(fresh, 1))
    again = small(seed=2)
    again.load_state_dict(through_a_file(fresh.state_dict()))
    assert_same(again.state_dict(), fresh.state_dict())


def test_update_without_a_training_step_is_an_error() -> None:
    loss = small()
    student, teacher = maps(1)
    with torch.no_grad():
        loss(student, teacher, LABEL)
    loss.eval()(student, teacher, LABEL)
    with pytest.raises(RuntimeError, match="nothing to learn from"):
        loss.update_critic(0.0)
    step(loss.train(), 1)
    with pytest.raises(RuntimeError, match="nothing to learn from"):
        loss.update_critic(0.0)


@pytest.mark.parametrize("progress", [-0.1, 1.0, float("nan")])
def test_progress_beyond_the_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        step(small(), 1, progress)


@both
def test_autocast_and_half_precision_are_computed_in_float32(adversary: Any) -> None:
    plain, cast = small(adversary=adversary), small(adversary=adversary)
    student, teacher = (output.logits.detach().bfloat16() for output in maps(1))
    values = []
    for loss, dtype in ((plain, torch.float32), (cast, torch.bfloat16)):
        torch.manual_seed(1)
        pair = [SegOutput(logits.to(dtype).requires_grad_(), None, {}) for logits in (student, teacher)]
        with torch.autocast("cpu", torch.bfloat16, enabled=loss is cast):
            value = loss(*pair, LABEL)
            value.backward()
            values.append((value.detach(), loss.update_critic(0.0)))
        assert pair[0].logits.grad is not None
        assert pair[0].logits.grad.dtype == dtype
    assert values[0][0].dtype == torch.float32
    assert values[0] == values[1]


@both
@pytest.mark.parametrize("size", [(1, 1), (5, 70)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_any_size_and_scale_gives_finite_gradients(
    adversary: Any, size: tuple[int, int], scale: float
) -> None:
    loss = small(classes=1, adversary=adversary)
    student = (scale * torch.randn(1, 1, *size)).requires_grad_()
    teacher = SegOutput(student.detach().clone(), None, {})
    loss(SegOutput(student, None, {}), teacher, LABEL[:1]).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert loss.update_critic(0.0).isfinite()
    assert all(parameter.isfinite().all() for parameter in loss.parameters())


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("classes", [0]),
        ("adversary", ["wgan"]),
        ("preprocess", ["none"]),
        ("critic_optimizer", ["adamw"]),
        ("critic_weight", [0.0, float("nan"), float("inf")]),
        ("gradient_penalty", [-1.0, float("nan"), float("inf")]),
        ("critic_lr", [0.0, -1.0, float("nan")]),
        ("critic_betas", [(1.0, 0.9), (0.9, -0.1), (0.9, float("nan")), (float("nan"), 0.9)]),
        ("critic_momentum", [1.0, -0.1, float("nan")]),
        ("critic_weight_decay", [-1.0, float("nan")]),
        ("critic_power", [-1.0, float("nan")]),
    ],
)
def test_bad_options_are_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=option):
            Holistic(**{"classes": 3, option: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"critic_lr": 1e-3},
        {"critic_betas": (0.5, 0.99)},
        {"critic_power": 2.0},
        {"critic_weight_decay": 0.1},
        {"critic_optimizer": "sgd"},
        {"critic_optimizer": "sgd", "critic_momentum": 0.5},
        {"critic_weight": 0.2},
        {"preprocess": "tanh"},
        {"preprocess": "scale"},
        {"adversary": "wgan_gp"},
        {"adversary": "wgan_gp", "gradient_penalty": 0.0},
    ],
)
def test_every_option_changes_the_training(changes: dict[str, Any]) -> None:
    all_but_last = dict(list(changes.items())[:-1])
    plain, changed = small(**all_but_last), small(**changes)
    values = [(step(loss, 1, 0.5), step(loss, 2, 0.5), step(loss, 3, 0.5)) for loss in (plain, changed)]
    assert values[0] != values[1]


def test_state_of_another_optimizer_is_refused() -> None:
    adam, sgd = small(critic_optimizer="adam"), small(critic_optimizer="sgd")
    step(adam, 0)
    with pytest.raises(ValueError, match="that of adam, not of sgd"):
        sgd.load_state_dict(adam.state_dict())


def test_a_critic_may_change_its_type_between_updates() -> None:
    loss = small()
    step(loss, 0)
    before = loss.state_dict()["_extra_state"]["optimizer"][0]["exp_avg"].clone()
    loss.double()
    after = loss.state_dict()["_extra_state"]["optimizer"][0]["exp_avg"]
    torch.testing.assert_close(after.float(), before)
    assert step(loss, 1).isfinite()
