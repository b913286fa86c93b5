"""export_onnx: a model as an ONNX file, from pixels to logits, compared with torch before it is there."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .configuration_fedd import FEDDConfig, is_repo_id
from .modeling_fedd import FEDDForImageClassification, FEDDForSegmentation

MODEL_FILE = "model.onnx"
MAX_BATCH_SIZE = 63  # from 64 photos on diffusers' `Upsample2D` takes a branch that is not in the traced graph
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_FIELDS = ("blocks", "timesteps", "image_size", "voting", "id2label")  # by which models are told apart


def export_onnx(model: FEDDForSegmentation | FEDDForImageClassification, folder: str | os.PathLike) -> Path:
    """Write a model as `model.onnx`, with noise, schedule and float32 weights inside, to be run without torch.

    Its input is `pixel_values` of shape `(batch_size, 3, image_size, image_size)` in [-1, 1], as
    [`FEDDImageProcessor`] returns them, and its first output `logits`, of the shape that the model's have. If a
    segmentation model votes by majority, `votes` of the same shape follow: a map is made of these, or else of the
    logits, which are resized to the photo and then give each pixel the class of the largest.

    `batch_size` may be 1 to 63. torch promises nothing for more, as diffusers' UNet takes another branch from 64 on,
    and onnxruntime does not refuse it.

    Args:
        model ([`FEDDForSegmentation`] or [`FEDDForImageClassification`]):
            Model of any dtype, on any device; it stays as it is.
        folder (`str` or `os.PathLike`):
            Where `model.onnx` replaces an earlier one: the folder of the checkpoint, or one of its own. `config.json`
            is written where it is missing; `processor.save_pretrained(folder)` adds `preprocessor_config.json`.

    Returns:
        `pathlib.Path`: the file. Weights of more than 1.6 GB lie beside it, in `model.onnx.data`.

    Raises:
        ImportError: If onnx, onnxruntime or onnxscript is missing.
        TypeError: If the model is neither of the two.
        ValueError: If the folder holds the configuration of another model, or if with onnxruntime probabilities
            differ from torch's by more than 1e-4. Then no file is written.

    Example:
        >>> path = export_onnx(model, "exported")
        >>> session = onnxruntime.InferenceSession(path)
        >>> logits, votes = session.run(None, dict(processor(images=photo, return_tensors="np")))
    """
    _check_packages()
    if not isinstance(model, FEDDForSegmentation | FEDDForImageClassification):
        raise TypeError(f"`model` must be a FEDDForSegmentation or FEDDForImageClassification, got {type(model)}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_new = _is_new(model.config, folder)
    plain = copy.deepcopy(model).to("cpu", torch.float32).eval()
    plain.config.output_hidden_states = False
    with TemporaryDirectory(prefix=".partial-", dir=folder) as staging:
        file = Path(staging, MODEL_FILE)
        _write(plain, file)
        _check(plain, file)
        if is_new:
            _whole(plain.config).save_pretrained(staging)
        _move(Path(staging), folder)
    return folder / MODEL_FILE


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'Export to ONNX needs {", ".join(missing)}. Type `pip install "fedd-hf[export]"`.')


def _is_new(config: FEDDConfig, folder: Path) -> bool:
    """Return whether the folder has no configuration yet, and refuse that of another model."""
    if not (folder / "config.json").is_file():
        return True
    stored = FEDDConfig.from_pretrained(folder)
    differing = [name for name in _FIELDS if getattr(stored, name) != getattr(config, name)]
    if differing:
        raise ValueError(f"{folder} holds another model, which differs in {differing}. Choose another folder.")
    return False


def _whole(config: FEDDConfig) -> FEDDConfig:
    """Describe a model whose backbone lies in the same file, without a path of this machine."""
    config.save_backbone = True
    if config.backbone != "embedded" and not is_repo_id(config.backbone or ""):
        config.backbone = None
    return config


def _write(model: PreTrainedModel, path: Path) -> None:
    """Export without the stack traces that torch puts in, which name folders of this machine."""
    from onnxscript import ir

    has_votes = model.task == "segmentation" and model.config.voting == "majority"
    program: Any = torch.onnx.export(
        model,
        kwargs={"pixel_values": _random_photos(model, 2)},
        output_names=["logits", "votes"] if has_votes else ["logits"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch_size", min=1, max=MAX_BATCH_SIZE)}},
        dynamo=True,
        verbose=False,
    )
    ir.passes.common.ClearMetadataAndDocStringPass()(program.model)
    program.save(path)


def _check(model: PreTrainedModel, path: Path) -> None:
    """Compare onnxruntime with torch at two batch sizes: each probability, and the votes of a pixel on average."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch_size in (1, 3):
        photos = _random_photos(model, batch_size)
        found = map(torch.from_numpy, session.run(None, {"pixel_values": photos.numpy()}))
        for (name, expected), output in zip(_outputs(model, photos).items(), found, strict=True):
            if name == "logits":
                difference = (output.softmax(dim=1) - expected.softmax(dim=1)).abs().max()
            else:
                difference = (output - expected).abs().mean()
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"With onnxruntime the {name} of {batch_size} photos differ from torch's by {difference:.2g}, "
                    f"more than {TOLERANCE:g}. No file was written. Try other versions of {', '.join(_PACKAGES)}."
                )


def _move(staging: Path, folder: Path) -> None:
    """Move the files, the model last: it is never there beside the weights of another."""
    (folder / MODEL_FILE).unlink(missing_ok=True)
    for file in sorted(staging.iterdir(), key=lambda file: file.name == MODEL_FILE):
        os.replace(file, folder / file.name)


def _random_photos(model: PreTrainedModel, batch_size: int) -> Tensor:
    size = model.config.image_size
    return torch.rand((batch_size, 3, size, size), generator=torch.Generator().manual_seed(batch_size)) * 2 - 1


@torch.no_grad()
def _outputs(model: PreTrainedModel, pixel_values: Tensor) -> dict[str, Tensor]:
    return dict(model(pixel_values=pixel_values, return_dict=True))


__all__ = ["export_onnx"]
