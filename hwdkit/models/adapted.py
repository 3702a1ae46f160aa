"""Any module that turns images into logits, as a network that hwdkit can train, teach with and evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from hwdkit.models.contract import InputContract
from hwdkit.models.network import Network
from hwdkit.types import SegOutput

OUTPUT_KEYS = ("out", "logits", "sem_logits", "semantic_logits", "pred")
"""Where modules that return a mapping or an object keep their logits: torchvision, transformers, others."""


class Adapted(Network):
    """A user's module; use `adapt`. Its state dict is that of the module itself."""

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: int,
        contract: InputContract | None,
        align_corners: bool,
        taps: Mapping[str, str],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.module = module
        self.classes = classes
        self.align_corners = align_corners
        self.contract = contract
        self.name = type(module).__name__
        self.sources = dict(taps)
        self.tap_channels = {}
        if contract is not None:
            mean, std = contract.pixel_statistics()
            self.register_buffer("pixel_mean", mean, persistent=False)
            self.register_buffer("pixel_std", std, persistent=False)
        self._has_aux = False
        self.trial_size = size
        # Batch norm that is frozen (in eval mode inside a network that trains) stays frozen.
        self._evaluating = [part for part in module.modules() if module.training and not part.training]
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    @property
    def has_aux(self) -> bool:
        return self._has_aux

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._evaluating:
            part.eval()
        return self

    def blank(self, device: torch.device | None = None) -> Tensor:
        return super().blank(device).new_zeros(1, 3, *self.trial_size)

    def forward(self, image: Tensor, taps: Sequence[str] = (), *, aux: bool | None = None) -> SegOutput:
        self.check_taps(taps)
        with self._recorded(taps) as maps:
            output = self.module(self._pixels(image))
        wants_aux = self.training if aux is None else aux
        return SegOutput(self._logits(output), _auxiliary(output) if wants_aux else None, maps)

    def _pixels(self, image: Tensor) -> Tensor:
        if self.contract is None:
            return image
        statistics = (self.get_buffer("pixel_mean"), self.get_buffer("pixel_std"))
        return self.contract.normalise(image, statistics)

    def _logits(self, output: Any) -> Tensor:
        logits = _named(output, OUTPUT_KEYS)
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != self.classes:
            returned = _shape(output if logits is None else logits)
            raise ValueError(
                f"{self.name} must return logits (N, {self.classes}, h, w), or a mapping or object with them "
                f"as {' or '.join(OUTPUT_KEYS[:2])}; it returned {returned}"
            )
        return logits

    @contextmanager
    def _recorded(self, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Collect the outputs of the modules behind the taps."""
        maps: dict[str, Tensor] = {}
        hooks = [self._record(tap, maps) for tap in taps]
        try:
            yield maps
        finally:
            for hook in hooks:
                hook.remove()

    def _record(self, tap: str, maps: dict[str, Tensor]) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise ValueError(
                    f"tap {tap!r}: {self.sources[tap]} gives {_shape(output)}, not a map (N, C, h, w)"
                )
            maps[tap] = output

        return self.module.get_submodule(self.sources[tap]).register_forward_hook(keep)


def adapt(
    module: nn.Module,
    classes: int,
    *,
    contract: InputContract | None = InputContract(),
    align_corners: bool = False,
    taps: Mapping[str, str] | None = None,
    size: tuple[int, int] = (64, 64),
) -> Adapted:
    """Make a network that hwdkit can use of any module that turns images into logits.

    The module is tried once, on a black image in evaluation mode.

    Args:
        module: (N, 3, H, W) normalised images -> logits (N, classes, h, w) of any size, or a mapping or an
            object that holds them as `out` or `logits` (and perhaps auxiliary logits as `aux`), as nets of
            torchvision and transformers do.
        classes: C of the logits.
        contract: how the module wants uint8 RGB pixels normalised; the default is ImageNet's mean and std of
            values in 0..1. None: the images of your data are handed on as they are.
        align_corners: convention by which its logits are resized. torchvision and transformers: False.
        taps: intermediate maps for losses that compare them: tap -> name of a submodule, such as
            `{"stage4": "backbone.layer4"}`.
        size: height and width of that black image, for modules that do not take every size.

    Raises:
        ValueError: the module does not return such logits, or a tap is no submodule or gives no map.
    """
    if isinstance(module, Network):
        raise ValueError(f"{type(module).__name__} is a network of hwdkit already: use it as it is")
    network = Adapted(
        module, classes=classes, contract=contract, align_corners=align_corners, taps=taps or {}, size=size
    )
    modules = dict(module.named_modules())
    missing = [f"{tap}: {source}" for tap, source in network.sources.items() if source not in modules]
    if missing:
        raise ValueError(f"taps name no submodule of {network.name}: {', '.join(missing)}")
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    network.tap_channels = dict.fromkeys(network.sources, 0)
    modes = {part: part.training for part in network.modules()}
    try:
        with torch.no_grad():
            output = network.eval().to(device)(network.blank(device), tuple(network.sources), aux=True)
    finally:
        for part, mode in modes.items():
            part.training = mode
    network.tap_channels = {tap: output.taps[tap].shape[1] for tap in network.sources}
    network._has_aux = output.aux is not None
    return network


def _without_prefix(_network: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}module.")]:
        state[prefix + key.removeprefix(f"{prefix}module.")] = state.pop(key)


def _with_prefix(_network: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}module.{key.removeprefix(prefix)}"] = state.pop(key)


def _named(output: Any, names: Sequence[str]) -> Any:
    """The part of a module's output that has one of these names; a tensor is its own."""
    if isinstance(output, Mapping):
        return next((output[name] for name in names if name in output), None)
    if isinstance(output, Tensor):
        return output
    return next((getattr(output, name) for name in names if hasattr(output, name)), None)


def _auxiliary(output: Any) -> Tensor | None:
    aux = None if isinstance(output, Tensor) else _named(output, ("aux",))
    return aux if isinstance(aux, Tensor) else None


def _shape(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
