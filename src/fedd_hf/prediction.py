"""Opening a model, and its predictions: maps and scores of photos, and one table row per labelled image and class."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from scipy.special import entr
from torch import Tensor
from tqdm.auto import tqdm
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import ModelOutput

from fedd_hf.configuration_fedd import FEDDConfig
from fedd_hf.data.contrast import lesion_contrast
from fedd_hf.data.masks import encode_png
from fedd_hf.data.schema import tone_labels
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import (
    FEDDForImageClassification,
    FEDDForSegmentation,
    FEDDSegmenterOutput,
    count_votes,
    default_batch_size,
    jensen_shannon,
    mean_log_softmax,
)

NUM_BINS = 15
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{,99}")


MODELS = {model.__name__: model for model in (FEDDForSegmentation, FEDDForImageClassification)}

PhotoFeatures = Sequence[Tensor]  # of one photo: a map (height, width, channels) of each block, or a pooled vector


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


class PhotoModel(Protocol):
    """Model that predictions can be made with, FEDD or a baseline."""

    config: Any
    __call__: Callable[..., Any]

    @property
    def device(self) -> torch.device:
        """Where photos are brought."""

    def eval(self) -> Any:
        """Switch dropout and batch statistics off, and return the model."""


@dataclass(frozen=True)
class SegmentedPhoto:
    """What the segmentation model says of one photo.

    Args:
        segmentation_map (`np.ndarray` of shape `(height, width)`, uint8):
            Class id of each pixel, at the photo's own size.
        uncertainty (`float`):
            Mean Jensen-Shannon divergence in nats over the most uncertain tenth of the pixels.
        confidence (`np.ndarray` of shape `(height, width)`, float32, *optional*):
            Mean probability that the members give to the class of `segmentation_map`, whatever the voting; NaN where
            the model does not see the photo. It is `None` unless it was asked for.
    """

    segmentation_map: np.ndarray
    uncertainty: float
    confidence: np.ndarray | None = None


def segment_photos(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> list[SegmentedPhoto]:
    """Segment photos of any number and size; each map is of the size of the upright photo.

    Args:
        model ([`FEDDForSegmentation`]):
            The model, or a baseline that takes and returns the same.
        processor ([`FEDDImageProcessor`]):
            Its image processor.
        photos (`Iterable[PIL.Image.Image]`):
            The photos.
        batch_size (`int`, *optional*):
            Photos per forward pass; by default as many as have 131,072 pixels at the model's image size.
    """
    return list(stream_segmentations(model, processor, photos, batch_size))


def score_photos(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> list[float]:
    """Return the malignancy score of each photo, in [0, 1]. Arguments are those of [`segment_photos`]."""
    return list(stream_scores(model, processor, photos, batch_size))


def stream_segmentations(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
    with_confidence: bool = False,
    features: Iterable[PhotoFeatures] | None = None,
) -> Iterator[SegmentedPhoto]:
    """Segment photos as [`segment_photos`] does, but read them batch by batch and hold no photo and no map.

    Confidence is resized as logits are: the mean probability of each class bilinearly to the photo's own size, and
    there that of the predicted class is taken. `features` are those of [`predict_segmentation`].
    """
    stored = repeat(None) if features is None else features
    prepared = (_prepare(processor, photo, of_photo) for photo, of_photo in zip(photos, stored, strict=False))
    for photo, output in _stream_outputs(model, prepared, batch_size, output_uncertainty=True):
        yield _segment(output, photo.size, processor, with_confidence)


def stream_scores(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    photos: Iterable[Image.Image],
    batch_size: int | None = None,
) -> Iterator[float]:
    """Score photos as [`score_photos`] does, but read them batch by batch and hold none."""
    prepared = (_prepare(processor, photo) for photo in photos)
    for _, output in _stream_outputs(model, prepared, batch_size):
        yield _score(output)


def predict_segmentation(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    dataset: Dataset,
    output_dir: Path | None = None,
    batch_size: int | None = None,
    features: Iterable[PhotoFeatures] | None = None,
) -> pd.DataFrame:
    """Segment a labelled dataset and count pixels; each photo is decoded once.

    Args:
        model ([`FEDDForSegmentation`]):
            The model, or a baseline that takes and returns the same.
        processor ([`FEDDImageProcessor`]):
            Its image processor.
        dataset (`datasets.Dataset`):
            Rows of [`~fedd_hf.data.schema.FEATURES`].
        output_dir (`Path`, *optional*):
            Folder of the table, for one dataset. It gets `maps/` (what was predicted), `photos/` and `masks/` (the
            true maps) as PNG without metadata; photos and masks that are there already are not written again. Without
            it no pixel is written.
        batch_size (`int`, *optional*):
            Photos per forward pass, as in [`segment_photos`]. Memory depends on it, and not on the number of photos.
        features (`Iterable[Sequence[torch.Tensor]]`, *optional*):
            Of each row the maps of the backbone, as [`~fedd_hf.features.read_maps`] returns them; the backbone of the
            model then does not run.

    Returns:
        `pd.DataFrame`: one row per image and class: `image_id`, `group_id`, `skin_tone`, `label`; the pixel counts
        `tp`, `fp`, `fn`, `tn` at the mask's own size; `uncertainty`; `contrast` of lesion and skin, as
        [`~fedd_hf.data.contrast.lesion_contrast`]; `bin_pixels`, `bin_correct`, `bin_confidence`, as
        [`count_confidences`]; `photo_path`, `truth_path` and `map_path`, relative to `output_dir`.
    """
    rows: list[dict[str, Any]] = []
    prepared = _prepare_rows(dataset, processor, output_dir, features)
    outputs = _stream_outputs(model, prepared, batch_size, output_uncertainty=True)
    for photo, output in _counted(outputs, dataset, "Segmenting"):
        segmented = _segment(output, photo.size, processor, with_confidence=True)
        image_id, mask = photo.image_id, np.asarray(photo.mask)
        with _naming(image_id):
            counts = _count_photo(mask, segmented, model.config.num_labels)
        facts = {"uncertainty": segmented.uncertainty} | photo.facts
        facts["truth_path"] = _write_once(output_dir, "masks", image_id, mask)
        facts["map_path"] = _write(output_dir, "maps", image_id, segmented.segmentation_map)
        for index, label in model.config.id2label.items():
            rows.append({"image_id": image_id, "label": label, **counts[index], **facts})
    return _with_groups(pd.DataFrame(rows), dataset)


def predict_classification(
    model: PhotoModel,
    processor: FEDDImageProcessor,
    dataset: Dataset,
    output_dir: Path | None = None,
    batch_size: int | None = None,
    features: Iterable[PhotoFeatures] | None = None,
) -> pd.DataFrame:
    """Score a labelled dataset. Arguments are those of [`predict_segmentation`]; only photos are written.

    `features` hold of each row one vector, of `config.pooled_size` numbers.

    Returns:
        `pd.DataFrame`: one row per image: `image_id`, `group_id`, `skin_tone`, `y_true` (1 malignant), `y_score` in
        [0, 1], `uncertainty` (entropy of the score, in nats), `contrast` (NaN without a mask) and `photo_path`.
    """
    rows: list[dict[str, Any]] = []
    prepared = _prepare_rows(dataset, processor, output_dir, features)
    for photo, output in _counted(_stream_outputs(model, prepared, batch_size), dataset, "Scoring"):
        score = _score(output)
        row = {"image_id": photo.image_id, "y_true": int(photo.malignant), "y_score": score}
        rows.append(row | {"uncertainty": float(entr(score) + entr(1 - score))} | photo.facts)
    return _with_groups(pd.DataFrame(rows), dataset)


def count_pixels(mask: np.ndarray, segmentation_map: np.ndarray, num_labels: int) -> list[dict[str, int]]:
    """Count true and false positives and negatives of each class; pixels of 255 in `mask` do not count.

    Raises:
        ValueError: If map and mask are not of one size, or the mask holds a class that the model does not know.
    """
    if mask.shape != segmentation_map.shape:
        raise ValueError(f"Mask and photo must be of one size, got {mask.shape} and {segmentation_map.shape}.")
    counted = mask != 255
    foreign = np.unique(mask[counted & (mask >= num_labels)])
    if foreign.size:
        raise ValueError(f"A mask may hold the class ids 0..{num_labels - 1} and 255, found also {foreign.tolist()}.")
    pairs = mask[counted].astype(np.int64) * num_labels + segmentation_map[counted]
    confusion = np.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels)
    tp, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {"tp": int(t), "fp": int(p - t), "fn": int(n - t), "tn": int(confusion.sum() - p - n + t)}
        for t, n, p in zip(tp, true, predicted, strict=True)
    ]


def count_confidences(
    mask: np.ndarray, segmentation_map: np.ndarray, confidence: np.ndarray, num_labels: int
) -> list[dict[str, np.ndarray]]:
    """Sort the pixels that are predicted as each class into 15 bins of equal width by their confidence.

    Pixels of 255 in `mask` and pixels without confidence are in no bin.

    Returns:
        `list[dict[str, np.ndarray]]`: of each class `bin_pixels` (how many pixels are predicted as it, with a
        confidence in [k / 15, (k + 1) / 15), 1 in the last bin), `bin_correct` (how many of them are right) and
        `bin_confidence` (the sum of their confidences), each of shape `(15,)`.
    """
    counted = (mask != 255) & ~np.isnan(confidence)
    confidences, classes = confidence[counted].astype(np.float64), segmentation_map[counted].astype(np.int64)
    bins = classes * NUM_BINS + np.minimum((confidences * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    is_right = classes == mask[counted]
    pixels, correct, total = (
        np.bincount(bins[chosen], weights, num_labels * NUM_BINS).reshape(num_labels, NUM_BINS)
        for chosen, weights in ((slice(None), None), (is_right, None), (slice(None), confidences))
    )
    return [
        {"bin_pixels": pixels[label], "bin_correct": correct[label], "bin_confidence": total[label]}
        for label in range(num_labels)
    ]


@dataclass(frozen=True)
class _Photo:
    """A photo as the model takes it, and what is needed of it afterwards; its own pixels are let go."""

    inputs: PhotoFeatures  # pixel values, or stored features
    has_features: bool
    size: tuple[int, int]
    image_id: str = ""
    mask: np.ndarray | None = None
    malignant: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def _prepare(processor: FEDDImageProcessor, image: Image.Image, features: PhotoFeatures | None = None) -> _Photo:
    return _prepare_pixels(processor, np.moveaxis(processor.process_image(image), 0, -1), features)


def _prepare_pixels(processor: FEDDImageProcessor, pixels: np.ndarray, features: PhotoFeatures | None) -> _Photo:
    if features is not None:
        return _Photo(features, True, pixels.shape[:2])
    pixel_values = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    return _Photo((pixel_values[0],), False, pixels.shape[:2])


def _prepare_rows(
    dataset: Dataset,
    processor: FEDDImageProcessor,
    output_dir: Path | None,
    features: Iterable[PhotoFeatures] | None,
) -> Iterator[_Photo]:
    """Decode each labelled photo once; say how its lesion stands out, and write it where that is wanted."""
    stored = repeat(None, len(dataset)) if features is None else features
    columns = dataset.select_columns(["image_id", "image", "mask", "malignant"])
    for row, of_photo in zip(columns, stored, strict=True):
        pixels = np.moveaxis(processor.process_image(row["image"]), 0, -1)
        mask = None if row["mask"] is None else np.asarray(row["mask"])
        with _naming(row["image_id"]):
            contrast = float("nan") if mask is None else lesion_contrast(pixels, mask)
        facts = {"contrast": contrast, "photo_path": _write_once(output_dir, "photos", row["image_id"], pixels)}
        photo = _prepare_pixels(processor, pixels, of_photo)
        yield replace(photo, image_id=row["image_id"], mask=mask, malignant=bool(row["malignant"]), facts=facts)


def _stream_outputs(
    model: PhotoModel, photos: Iterator[_Photo], batch_size: int | None, **options: bool
) -> Iterator[tuple[_Photo, ModelOutput]]:
    """Yield each photo with the output of the model for it; photos go through the model in batches."""
    while batch := list(islice(photos, batch_size or default_batch_size(model.config.image_size))):
        inputs = [
            torch.stack([tensor.float() for tensor in tensors]).to(model.device)
            for tensors in zip(*(photo.inputs for photo in batch), strict=True)
        ]
        with torch.inference_mode():
            outputs = _run_heads(model, inputs) if batch[0].has_features else model.eval()(*inputs, **options)
        tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
        for index, photo in enumerate(batch):
            yield photo, ModelOutput({name: value[index, None] for name, value in tensors.items()})


def _run_heads(model: Any, features: list[Tensor]) -> ModelOutput:
    """Return what a model says of the stored features of some photos, without its backbone."""
    model.eval()
    if isinstance(model, FEDDForImageClassification):
        return ImageClassifierOutput(logits=model.classify(*features))
    size = (model.config.image_size, model.config.image_size)
    member_logits = model.decode_head(tuple(maps.movedim(-1, 1) for maps in features), size)
    return FEDDSegmenterOutput(
        logits=mean_log_softmax(member_logits),
        votes=count_votes(member_logits) if model.config.voting == "majority" else None,
        uncertainty=jensen_shannon(member_logits),
    )


def _segment(
    output: ModelOutput, size: tuple[int, int], processor: FEDDImageProcessor, with_confidence: bool
) -> SegmentedPhoto:
    (segmentation_map,) = processor.post_process_semantic_segmentation(output, target_sizes=[size])
    confidence = _confidence(output.logits, segmentation_map, processor) if with_confidence else None
    return SegmentedPhoto(segmentation_map.to(torch.uint8).numpy(), _image_uncertainty(output.uncertainty), confidence)


def _score(output: ModelOutput) -> float:
    return output.logits.float().softmax(dim=-1)[0, 1].item()


def _image_uncertainty(uncertainty: Tensor) -> float:
    """Source: ddpm-segmentation, `pixel_classifier.py`, `predict_labels`."""
    pixels = uncertainty.flatten()
    return pixels.topk(max(1, len(pixels) // 10)).values.mean().item()


def _confidence(logits: Tensor, segmentation_map: Tensor, processor: FEDDImageProcessor) -> np.ndarray:
    """Return the probability of the predicted class of each pixel of one photo; NaN where it is not seen."""
    top, left, height, width = processor.seen_box(segmentation_map.shape)
    probabilities = logits.float().softmax(dim=1).cpu()
    resized = F.interpolate(probabilities, size=(height, width), mode="bilinear", align_corners=False)[0]
    seen = (slice(top, top + height), slice(left, left + width))
    confidence = torch.full(segmentation_map.shape, torch.nan)
    confidence[seen] = resized.gather(0, segmentation_map[seen][None])[0]
    return confidence.numpy()


@contextmanager
def _naming(image_id: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Photo {image_id!r}: {error}") from error


def _count_photo(mask: np.ndarray, photo: SegmentedPhoto, num_labels: int) -> list[dict[str, Any]]:
    counts = count_pixels(mask, photo.segmentation_map, num_labels)
    bins = count_confidences(mask, photo.segmentation_map, np.asarray(photo.confidence), num_labels)
    return [{**of_class, **binned} for of_class, binned in zip(counts, bins, strict=True)]


def _write(output_dir: Path | None, folder: str, image_id: str, pixels: np.ndarray) -> str | None:
    """Write a PNG whole or not at all, and return its path relative to `output_dir`."""
    if output_dir is None:
        return None
    path = output_dir / folder / f"{_file_name(image_id)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(encode_png(pixels, compress_level=1)["bytes"])
    temporary.replace(path)
    return path.relative_to(output_dir).as_posix()


def _write_once(output_dir: Path | None, folder: str, image_id: str, pixels: np.ndarray) -> str | None:
    if output_dir is not None and (output_dir / folder / f"{_file_name(image_id)}.png").is_file():
        return f"{folder}/{_file_name(image_id)}.png"
    return _write(output_dir, folder, image_id, pixels)


def _file_name(image_id: str) -> str:
    """Return an id as every file system takes it; one that has to be changed gets its hash, so that none are equal."""
    if _PLAIN_NAME.fullmatch(image_id):
        return image_id
    digest = hashlib.sha256(image_id.encode()).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', image_id)[:80]}-{digest}"


def _counted(predictions: Iterator[Any], dataset: Dataset, description: str) -> Iterator[Any]:
    """Show progress in photos."""
    return iter(tqdm(predictions, desc=description, total=len(dataset), unit="photo", leave=False))


def _with_groups(predictions: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    groups = {"group_id": dataset["group_id"], "skin_tone": tone_labels(dataset)}
    for position, (name, values) in enumerate(groups.items(), start=1):
        of_image = dict(zip(dataset["image_id"], values, strict=True))
        predictions.insert(position, name, predictions["image_id"].map(of_image))
    return predictions
