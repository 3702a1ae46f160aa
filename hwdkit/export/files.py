"""Exported networks as files, in both formats: writing them with their description, opening them to run.

A file is one file: weights, graph, and under one key (METADATA_KEY) the description as JSON.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from hwdkit import __version__
from hwdkit.checkpoints.files import METADATA_KEY, file_digest
from hwdkit.engine.networks import Loaded
from hwdkit.errors import CheckpointError, EnvironmentFailure
from hwdkit.export.deployed import AXES, Form, first_line, untraceable
from hwdkit.export.silence import silence

Format = Literal["onnx", "torch-export"]
Exported = Callable[[Tensor], Tensor]
"""An opened file: (N, 3, H, W) as its form says, to its output; on the CPU."""

LIMIT = 2**31 - 2**20
"""Bytes of weights that fit into one ONNX file: protobuf's 2 GiB, less some for the graph."""


def require_onnx() -> None:
    """Check that the extra is installed.

    Raises:
        EnvironmentFailure: it is not; names what is missing and the pip command.
    """
    missing = [
        name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise EnvironmentFailure(
            f"exporting to ONNX needs {', '.join(missing)}", hint="pip install 'hwdkit[onnx]'"
        )


def require_room(loaded: Loaded) -> None:
    """Check that the weights fit into one ONNX file.

    Raises:
        CheckpointError: they do not.
    """
    parts = (loaded.model.backbone, loaded.model.head)
    size = sum(p.numel() * p.element_size() for part in parts for p in part.state_dict().values())
    if size > LIMIT:
        raise CheckpointError(
            f"its weights are {size / 2**30:.1f} GiB; an ONNX file holds 2",
            where=str(loaded.path),
            hint="use --format torch-export",
        )


def description(loaded: Loaded, form: Form) -> dict[str, Any]:
    """What an exported file says about itself: all that is needed to feed it and to read its answers."""
    return {
        "hwdkit": __version__,
        "checkpoint": loaded.path.name,
        "checkpoint_sha256": file_digest(loaded.path),
        "dataset": loaded.metadata["dataset"],
        "classes": list(loaded.classes),
        "palette": [list(colour) for colour in loaded.palette],
        "input_contract": loaded.model.contract.to_dict(),
        "network": loaded.model.spec.to_dict(),
        "form": form.to_dict(),
    }


def write_onnx(
    path: Path, program: ExportedProgram, metadata: dict[str, Any], *, form: Form, opset: int
) -> None:
    """Write an ONNX file with input "image" and output "logits" or "classes".

    Raises:
        CheckpointError: an operation has no ONNX counterpart.
    """
    name = "classes" if form.output == "classes" else "logits"
    axes = ({index: axis for axis, index in AXES.items() if axis in form.dynamic},)
    try:
        with silence():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=[name],
                dynamic_shapes=axes if form.dynamic else None,
                verbose=False,
            )
            assert made is not None
            made.model.metadata_props[METADATA_KEY] = json.dumps(metadata, sort_keys=True)
            made.save(path, external_data=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # onnxscript and torch.onnx each have their own
        raise untraceable(error, form, where=str(metadata["checkpoint"])) from error


def write_torch_export(path: Path, program: ExportedProgram, metadata: dict[str, Any]) -> None:
    """Write a `torch.export` archive (.pt2)."""
    file = io.BytesIO()  # given a path, torch insists on the suffix
    with silence():
        torch.export.save(program, file, extra_files={METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    path.write_bytes(file.getvalue())


def open_exported(path: Path, kind: Format) -> Exported:
    """Open a file that this module wrote, to run it on the CPU with as many threads as torch has.

    Raises:
        CheckpointError: what is to run it does not take it.
    """
    try:
        return _open_onnx(path) if kind == "onnx" else _open_torch_export(path)
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's own types share no base class
        raise CheckpointError(
            f"the exported file cannot be opened ({first_line(error)})",
            hint="try another --opset, or --format torch-export" if kind == "onnx" else "",
        ) from error


def _open_onnx(path: Path) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised as well
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _open_torch_export(path: Path) -> Exported:
    with silence(), path.open("rb") as file:
        module = torch.export.load(file).module()

    @torch.no_grad()
    def run(image: Tensor) -> Tensor:
        output: Tensor = module(image)
        return output

    return run
