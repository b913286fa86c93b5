"""Opening a saved model of either task, together with its image processor."""

from __future__ import annotations

from typing import Any

from .configuration_fedd import FEDDConfig
from .image_processing_fedd import FEDDImageProcessor
from .modeling_fedd import FEDDForImageClassification, FEDDForSegmentation

MODELS = {model.__name__: model for model in (FEDDForSegmentation, FEDDForImageClassification)}


def open_model(
    name_or_path: str, **hub_kwargs: Any
) -> tuple[FEDDForSegmentation | FEDDForImageClassification, FEDDImageProcessor]:
    """Load a model, whichever of the two tasks it is for, and its image processor.

    Args:
        name_or_path (`str`):
            Repository id or folder.
        hub_kwargs:
            `revision`, `token` and the like, as `from_pretrained` takes them.

    Raises:
        OSError: If there is no such model.
        ValueError: If it is not a FEDD model.
    """
    config = FEDDConfig.from_pretrained(name_or_path, **hub_kwargs)
    architecture = (config.architectures or [None])[0]
    if architecture not in MODELS:
        raise ValueError(
            f"A config.json of FEDD must name one of {list(MODELS)} in `architectures`, got {architecture!r}."
        )
    processor = FEDDImageProcessor.from_pretrained(name_or_path, **hub_kwargs)
    return MODELS[architecture].from_pretrained(name_or_path, **hub_kwargs).eval(), processor
