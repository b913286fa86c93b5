"""Answers Inference Endpoints in the Hub's own formats: image-segmentation and image-classification."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image

from fedd_hf import FEDDForSegmentation
from fedd_hf.data.masks import encode_png
from fedd_hf.image_processing_fedd import read_image
from fedd_hf.prediction import open_model, score_photos, stream_segmentations

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 25_000_000


class EndpointHandler:
    """What an endpoint calls for each request.

    Args:
        path (`str`):
            Folder of the model, which may be for either task.

    Raises:
        OSError: If there is no such model.
        ValueError: If it is not a FEDD model.

    Source: Inference Endpoints, "Create custom Inference Handler"; huggingface.js, packages/tasks, `spec/`.
    """

    def __init__(self, path: str = "") -> None:
        self.model, self.processor = open_model(path)
        self.model.to(PartialState().device)

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Answer one request.

        Args:
            data (`dict`):
                `inputs`, a photo as base64, bytes or PIL image, and `parameters`. For segmentation `threshold` and
                `mask_threshold` in [0, 1]: classes are left out whose mean confidence is lower, and pixels whose own
                is; `subtask` is `"semantic"`. For classification `top_k`.

        Returns:
            `list[dict]`: of segmentation `label`, `mask` (PNG as base64, white where the class is, of the photo's own
            upright size) and `score` (mean confidence of its pixels) of each class that is there; of classification
            `label` and `score`, the most likely first.

        Raises:
            ValueError: If the photo is missing, damaged or too large, or a parameter is unknown or out of its range.
        """
        photo = read_photo(data.get("inputs"))
        answer = self.segment if isinstance(self.model, FEDDForSegmentation) else self.classify
        try:
            return answer(photo, **(data.get("parameters") or {}))
        except TypeError as error:
            raise ValueError(f"`parameters` cannot be {data['parameters']!r}: {error}.") from error

    def segment(
        self, photo: Image.Image, *, threshold: float = 0.0, mask_threshold: float = 0.0, subtask: str = "semantic"
    ) -> list[dict[str, Any]]:
        """Return a mask of each class that is there and sure enough."""
        if subtask != "semantic":
            raise ValueError(f"`subtask` must be 'semantic', got {subtask!r}.")
        for name, share in (("threshold", threshold), ("mask_threshold", mask_threshold)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {share!r}.")
        (segmented,) = stream_segmentations(self.model, self.processor, [photo], with_confidence=True)
        confidence = np.nan_to_num(np.asarray(segmented.confidence))
        segments = []
        for index, label in self.model.config.id2label.items():
            mask = (segmented.segmentation_map == index) & (confidence >= mask_threshold)
            score = float(confidence[mask].mean()) if mask.any() else -1.0
            if score >= threshold:
                segments.append({"label": label, "mask": encode_mask(mask), "score": score})
        return segments

    def classify(self, photo: Image.Image, *, top_k: int = 2) -> list[dict[str, Any]]:
        """Return the score of each class, the most likely first."""
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k!r}.")
        (malignancy,) = score_photos(self.model, self.processor, [photo])
        scores = zip(self.model.config.id2label.values(), (1 - malignancy, malignancy), strict=True)
        return [{"label": label, "score": score} for label, score in sorted(scores, key=lambda pair: -pair[1])][:top_k]


def read_photo(given: Any) -> Image.Image:
    """Return a photo of base64, bytes or a PIL image; nothing is ever fetched from an address.

    Raises:
        ValueError: If it is missing, damaged or too large.
    """
    photo = given if isinstance(given, Image.Image) else read_image(BytesIO(_to_bytes(given)), "The photo")
    if photo.width * photo.height > MAX_PIXELS:
        raise ValueError(f"A photo may have at most {MAX_PIXELS:,} pixels, got {photo.width} x {photo.height}.")
    return photo


def _to_bytes(given: Any) -> bytes:
    if not isinstance(given, (str, bytes)):
        raise ValueError(f"`inputs` must be a photo: base64, bytes or a PIL image, got {type(given).__name__}.")
    if len(given) > MAX_BYTES * (4 / 3 if isinstance(given, str) else 1):
        raise ValueError(f"A photo may have at most {MAX_BYTES:,} bytes.")
    if isinstance(given, bytes):
        return given
    try:
        return base64.b64decode(given.partition("base64,")[2] or given, validate=True)
    except binascii.Error as error:
        raise ValueError(f"`inputs` is text, but not base64: {error}. Addresses are not fetched.") from error


def encode_mask(mask: np.ndarray) -> str:
    """Return a mask as the Hub's widgets take it: a black and white PNG as base64."""
    return base64.b64encode(encode_png(mask.astype(np.uint8) * 255)["bytes"]).decode()
