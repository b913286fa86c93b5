"""Image and map in, `pixel_values` and `labels` out; `logits` in, a map at the photo's own size out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import SizeDict
from transformers.utils import logging

logger = logging.get_logger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
GEOMETRIES = ("squash", "center_crop")
LESION = 1
IGNORE_INDEX = 255
_FIELDS_OF_TRANSFORMERS = {"image_processor_type", "auto_map", "processor_class"}
_FIXED_OPTIONS = {  # options of transformers that have one value here, and what to do instead of changing it
    "do_convert_rgb": "photos always become RGB",
    "do_reduce_labels": "class ids stay as they are, and 0 is background",
    "do_center_crop": "type `FEDDImageProcessor(geometry='center_crop')` for the largest centred square",
    "do_pad": "every photo is resized to `size`",
    "data_format": "use `pixel_values.permute(0, 2, 3, 1)` for channels last",
    "device": "move the batch with `.to(device)`",
}

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class FEDDImageProcessorKwargs(TypedDict, total=False):
    """Options of the processor; others of transformers (`crop_size`, `pad_size` ...) are refused."""

    do_convert_rgb: bool | None
    do_reduce_labels: bool | None
    do_center_crop: bool | None
    do_pad: bool | None
    data_format: str | None
    device: str | torch.device | None
    do_resize: bool
    size: int | dict[str, int] | SizeDict
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: float | list[float] | tuple[float, ...]
    image_std: float | list[float] | tuple[float, ...]
    geometry: str
    num_labels: int
    input_data_format: str | None
    return_tensors: str | None


class FEDDImageProcessor(PilBackend):
    """Turn photos and their maps into the tensors of FEDD, and logits back into maps.

    Args:
        size (`dict[str, int]`, defaults to `{"height": 256, "width": 256}`):
            Size of `pixel_values` and `labels`, in pixels.
        geometry (`str`, defaults to `"squash"`):
            `"squash"` resizes the whole photo, whatever its aspect; `"center_crop"` its largest centred square.
        num_labels (`int`, defaults to 5):
            Maps may hold the class ids `0..num_labels - 1`, and 255 where a pixel does not count.
        do_rescale (`bool`, defaults to `True`):
            `True` when pixels lie in [0, 255]; `False` for float arrays that already lie in [0, 1].
        do_convert_rgb, do_reduce_labels, do_center_crop, do_pad, data_format, device (*optional*):
            Have one value each: `True`, `False`, `False`, `False`, `"channels_first"` and `"cpu"`.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If `geometry` is unknown, `size` lacks a height or width, `num_labels` is outside `1..255`, or an
            option that has one value is given another.
    """

    valid_kwargs = FEDDImageProcessorKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values"]
    do_convert_rgb = True
    do_reduce_labels = do_center_crop = do_pad = False
    data_format = "channels_first"
    device = torch.device(device="cpu")
    do_resize = True
    size = {"height": 256, "width": 256}
    resample = Image.Resampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    geometry = "squash"
    num_labels = 5

    def __init__(self, **kwargs: Any) -> None:
        unknown = self._unknown(kwargs)
        if unknown:
            allowed = [*self.valid_kwargs.__annotations__]
            raise TypeError(f"{type(self).__name__} takes the options {allowed}, got also {unknown}.")
        super().__init__(**kwargs)
        for name in _FIXED_OPTIONS:
            self.__dict__.pop(name, None)  # those of the class serve, and are not saved

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a processor from what a preprocessor_config.json holds.

        An unknown field is named in a warning and dropped: as an attribute it could take the place of a method.

        Raises:
            ValueError: If the file belongs to another image processor, or leads to code of another repository.
        """
        _check_origin(image_processor_dict, {base.__name__ for base in cls.__mro__})
        unknown = cls._unknown(image_processor_dict)
        if unknown:
            logger.warning(f"A preprocessor_config.json of FEDD has no fields {unknown}: ignored.")
        known = {name: value for name, value in image_processor_dict.items() if name not in unknown}
        return super().from_dict(known, **kwargs)

    @classmethod
    def _unknown(cls, options: dict[str, Any]) -> list[str]:
        return sorted(set(options) - set(cls.valid_kwargs.__annotations__) - _FIELDS_OF_TRANSFORMERS)

    def preprocess(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare a photo or several, with their maps if there are any.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, path, or a list of these):
                Photos of any size. PIL images are turned upright by their EXIF orientation and may have any mode.
                Arrays are of shape `(height, width)`, `(height, width, channels)` or `(channels, height, width)`.
            segmentation_maps (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, or a list of these, *optional*):
                One map of class ids per photo, of shape `(height, width)` as the upright photo.
            kwargs:
                Attributes of the processor to change for this call, and `return_tensors`.

        Returns:
            [`BatchFeature`]: `pixel_values`, float32 in [-1, 1], of shape `(batch_size, 3, height, width)`; with maps
            also `labels`, int64, of shape `(batch_size, height, width)`.

        Raises:
            ValueError: If an image or a map has an impossible size or value, or the counts differ.
            TypeError: If an input is of another kind or dtype, or an option is unknown.

        Example:
            >>> processor = FEDDImageProcessor()
            >>> processor(Image.new("RGB", (640, 480)), return_tensors="pt")["pixel_values"].shape
            torch.Size([1, 3, 256, 256])
        """
        if kwargs.get("geometry", self.geometry) != self.geometry:
            raise ValueError("`geometry` belongs to the processor: type `FEDDImageProcessor(geometry=...)`.")
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _preprocess_image_like_inputs(  # type: ignore[override]
        self,
        images: Any,
        segmentation_maps: Any,
        *,
        num_labels: int,
        do_rescale: bool,
        rescale_factor: float,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        photos = [self.process_image(image, do_rescale, **kwargs) for image in _as_list(images, ndim=3)]
        if not photos:
            raise ValueError("`images` is empty.")
        data = self._preprocess(
            [self._crop(photo) for photo in photos],
            do_rescale=True,
            rescale_factor=rescale_factor if do_rescale else 1 / 255,
            return_tensors=None,
            **kwargs,
        )
        if segmentation_maps is not None:
            maps = _as_list(segmentation_maps, ndim=2, batch_size=len(photos))
            if len(maps) != len(photos):
                raise ValueError(f"`segmentation_maps` must hold one map per image: {len(photos)}, got {len(maps)}.")
            data["labels"] = [
                self._labels(_class_ids(maps[i], photos[i].shape[1:], num_labels, f"segmentation_maps[{i}]"), **kwargs)
                for i in range(len(maps))
            ]
        return data.convert_to_tensors(return_tensors)

    def process_image(  # type: ignore[override]
        self, image: Any, do_rescale: bool = True, input_data_format: str | None = None, **_: Any
    ) -> np.ndarray:
        """Return any image as upright RGB, uint8 of shape `(3, height, width)`."""
        if isinstance(image, (str, os.PathLike)):
            image = read_image(image)
        if isinstance(image, (np.ndarray, Tensor)):
            image = _array_to_pil(_to_numpy(image), do_rescale, input_data_format)
        elif not isinstance(image, Image.Image):
            raise TypeError(f"An image must be a PIL image, array, tensor or path, got {type(image).__name__}.")
        elif not do_rescale:
            raise ValueError("`do_rescale=False` is for float arrays in [0, 1], got a PIL image, in [0, 255].")
        return np.moveaxis(_upright_rgb(image), -1, 0)

    def _labels(self, class_map: np.ndarray, *, do_resize: bool, size: SizeDict, **_: Any) -> np.ndarray:
        """Crop and resize `class_map`, uint8 of shape `(1, height, width)`, without inventing ids."""
        class_map = self._crop(class_map)
        if do_resize:
            class_map = self.resize(class_map, size, Image.Resampling.NEAREST)
        return class_map[0].astype(np.int64)

    def _crop(self, image: np.ndarray) -> np.ndarray:
        top, left, height, width = self.seen_box(image.shape[1:])
        return image[:, top : top + height, left : left + width]

    def seen_box(self, size: Sequence[int]) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the part of a photo of this (height, width) that the model sees."""
        height, width = size
        if self.geometry == "squash":
            return 0, 0, height, width
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side

    def outside_share(self, target_size: Sequence[int]) -> float:
        """Return the share, in [0, 1), of a photo of `target_size` (height, width) that the model does not see."""
        height, width = _checked_size(target_size)
        _, _, seen_height, seen_width = self.seen_box((height, width))
        return 1.0 - (seen_height * seen_width) / (height * width)

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[Sequence[int]] | Tensor | None = None,
        return_segmentation_scores: bool = False,
        *,
        keep_largest_lesion: bool = False,
        maximize_expected_dice: bool = False,
    ) -> list[Tensor] | list[SemanticSegmentationPostProcessorOutput]:
        """Turn the output of a model into maps of class ids.

        Args:
            outputs ([`~transformers.modeling_outputs.SemanticSegmenterOutput`]):
                Output with `logits` of shape `(batch_size, num_labels, height, width)`. With `votes` of the same
                shape, as of a model that votes by majority, a pixel takes the class with most votes.
            target_sizes (`list[tuple[int, int]]` of length `batch_size`, *optional*):
                (height, width) of each upright photo. Without it maps stay at the size of the logits.
            return_segmentation_scores (`bool`, *optional*, defaults to `False`):
                Whether to return the logits at the size of the map too. Their `softmax(dim=0)` are probabilities:
                logits are resized first, as for the map, so that the most probable class is the one in the map
                (unless `votes` or the options below decide otherwise).
            keep_largest_lesion (`bool`, *optional*, defaults to `False`):
                Whether to keep one lesion, the one of most pixels, which may touch at corners. The pixels of the
                others take their most probable other class.
            maximize_expected_dice (`bool`, *optional*, defaults to `False`):
                Whether to choose as lesion the k pixels of largest lesion probability, where k maximises the expected
                Dice, 2 * sum of their probabilities / (k + sum of all). Pixels left out take their most probable
                other class. At least one pixel is lesion, so this is for photos that show one.

        Returns:
            `list[torch.Tensor]`: one int64 map per photo, on the CPU, of shape `target_size`. What `center_crop`
            leaves out of the photo is background, 0. With `return_segmentation_scores`, a list of
            [`~transformers.image_processing_outputs.SemanticSegmentationPostProcessorOutput`] with the map as
            `segmentation` and float32 `segmentation_scores` of shape `(num_labels, *target_size)`.

        Raises:
            ValueError: If there is not one (height, width) per photo, or lesions are asked for where there is no
                class 1, the lesion.
        """
        logits = outputs.logits.detach().to("cpu", torch.float32)
        votes = getattr(outputs, "votes", None)
        votes = logits if votes is None else votes.detach().to("cpu", torch.float32)
        sizes = [None] * len(logits) if target_sizes is None else [_checked_size(size) for size in target_sizes]
        if len(sizes) != len(logits):
            raise ValueError(f"`target_sizes` must hold one size per image: {len(logits)}, got {len(sizes)}.")
        chooses_lesion = keep_largest_lesion or maximize_expected_dice
        if chooses_lesion and logits.shape[1] <= LESION:
            raise ValueError(f"To choose a lesion, class {LESION}, takes logits of 2 classes, got {logits.shape[1]}.")
        results = []
        for photo_logits, photo_votes, size in zip(logits, votes, sizes, strict=True):
            segmentation = self._upsample(photo_votes, size).max(dim=0).indices  # faster than argmax
            if chooses_lesion or return_segmentation_scores:
                scores = self._upsample(photo_logits, size)
            if chooses_lesion:
                segmentation = _choose_lesion(segmentation, scores, keep_largest_lesion, maximize_expected_dice)
            if return_segmentation_scores:
                data = {"segmentation": segmentation, "segmentation_scores": scores}
                segmentation = SemanticSegmentationPostProcessorOutput(data=data)
            results.append(segmentation)
        return results

    def _upsample(self, scores: Tensor, target_size: tuple[int, int] | None) -> Tensor:
        """Bring the scores of one photo, of shape `(num_labels, height, width)`, to its size; unseen is background."""
        if target_size is None:
            return scores
        top, left, height, width = self.seen_box(target_size)
        seen = F.interpolate(scores[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        if (height, width) == target_size:
            return seen
        upsampled = torch.full((len(scores), *target_size), -torch.inf)
        upsampled[0] = 0.0
        upsampled[:, top : top + height, left : left + width] = seen
        return upsampled

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Check the attributes, at construction and at each call."""
        kwargs = super()._standardize_kwargs(**{**kwargs, "default_to_square": True})
        size, geometry, num_labels = kwargs["size"], kwargs["geometry"], kwargs["num_labels"]
        if min(size.height or 0, size.width or 0) < 1:
            raise ValueError(f"`size` must be {{'height': ..., 'width': ...}} in pixels, got {dict(size)}.")
        if geometry not in GEOMETRIES:
            raise ValueError(f"`geometry` must be one of {list(GEOMETRIES)}, got {geometry!r}.")
        if not (isinstance(num_labels, int) and 1 <= num_labels <= IGNORE_INDEX):
            raise ValueError(f"`num_labels` must lie in 1..{IGNORE_INDEX}, got {num_labels!r}.")
        for name, advice in _FIXED_OPTIONS.items():
            given, only = kwargs[name], getattr(type(self), name)
            if given not in (None, only) and str(given) != str(only):
                raise ValueError(f"`{name}` can only be {only}, got {given!r}: {advice}.")
        return kwargs


def _check_origin(fields: dict[str, Any], own_names: set[str]) -> None:
    """Refuse a preprocessor_config.json of another class, or with an `auto_map` into another repository."""
    found = fields.get("image_processor_type")
    if found is not None and found not in own_names:
        raise ValueError(f"This preprocessor_config.json is of a {found!r}: open it with AutoImageProcessor.")
    auto_map = fields.get("auto_map", {})
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    if not all(isinstance(value, str) and re.fullmatch(r"\w+\.\w+", value) for value in values):
        raise ValueError(f"`auto_map` may only name a 'module.Class' of its own repository, got {auto_map}.")


def _choose_lesion(segmentation: Tensor, scores: Tensor, keep_largest: bool, maximize_expected_dice: bool) -> Tensor:
    """Change which pixels of a map are lesion; those that no longer are take the other class of largest score."""
    lesion = segmentation == LESION
    others = scores.index_fill(0, torch.tensor(LESION), -torch.inf).max(dim=0).indices
    segmentation = torch.where(lesion, others, segmentation)
    if maximize_expected_dice:
        lesion = _largest_expected_dice(scores.softmax(dim=0)[LESION])
    if keep_largest:
        lesion = _largest_component(lesion)
    return segmentation.masked_fill(lesion, LESION)


def _largest_expected_dice(probabilities: Tensor) -> Tensor:
    """Return the pixels of the set of largest expected Dice, bool of the shape of `probabilities`."""
    ranked = probabilities.flatten().sort(descending=True).values.double()
    num_pixels = torch.arange(1, len(ranked) + 1)
    expected_dice = 2 * ranked.cumsum(dim=0) / (num_pixels + ranked.sum())
    return (probabilities >= ranked[expected_dice.argmax()]) & (probabilities > 0)


def _largest_component(mask: Tensor) -> Tensor:
    """Return the component of most pixels of a bool mask, the topmost of equals; pixels may touch at corners."""
    components, _ = ndimage.label(mask.numpy(), structure=np.ones((3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return torch.from_numpy(components == sizes.argmax()) & mask


def read_image(path: str | os.PathLike | BinaryIO, name: str | None = None) -> Image.Image:
    """Read a photo as upright RGB without its metadata; of several frames or pages, the first.

    Args:
        path (`str`, `os.PathLike` or binary file object):
            The photo.
        name (`str`, *optional*):
            What errors call it; by default its path.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        ValueError: If the file is not a JPEG, PNG, WEBP, BMP or TIFF image, is damaged, is smaller than 2 x 2 pixels
            or, as its header tells before anything is decoded, has more than `MAX_PIXELS`.
    """
    name = name or str(path)
    if isinstance(path, (str, os.PathLike)) and not Path(path).is_file():
        raise FileNotFoundError(f"There is no image file at {name}.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"Image size ({image.height} x {image.width} pixels) exceeds {MAX_PIXELS:,} pixels.")
            return Image.fromarray(_upright_rgb(image))
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that can be read; it must be {', '.join(FORMATS)}.") from error
    except Image.DecompressionBombError as error:
        size, _, _ = str(error).partition(" exceeds")
        raise ValueError(f"Cannot read {name}: {size} exceeds {MAX_PIXELS:,} pixels.") from error
    except Exception as error:  # decoders raise a dozen kinds of error on damaged files
        raise ValueError(f"Cannot read {name}: {str(error) or type(error).__name__}") from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    """Return a PIL image of any mode as upright RGB, uint8 of shape `(height, width, 3)`, transparency over white."""
    _check_not_tiny(image.height, image.width)
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bit(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation. `ImageOps.exif_transpose` also writes EXIF, and fails on damaged tags."""
    image.load()  # a PNG may keep its EXIF behind its pixels
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """Scale pixels to uint8. White is 65535 for uint16, else the smallest of 1 (floats only), 255, 65535 that fits."""
    if values.dtype == np.uint8:
        return values
    is_16_bit = np.issubdtype(values.dtype, np.uint16)
    levels = (65535,) if is_16_bit else (1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)
    lowest, highest = values.min(), values.max()
    white = next((level for level in levels if highest <= level), None)
    if white is None or lowest < 0:
        raise ValueError(f"Pixels must lie in [0, 255] or [0, 65535], got [{lowest:g}, {highest:g}].")
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def _array_to_pil(array: np.ndarray, do_rescale: bool, input_data_format: str | None) -> Image.Image:
    """Return an array of one of the layouts of `preprocess` as a PIL image of 8 bits."""
    array = _channels_last(array, input_data_format)
    if array.dtype.kind not in "uif":
        raise TypeError(f"An image must hold numbers, such as uint8 or float32, got dtype {array.dtype}.")
    is_unit_range = array.dtype.kind == "f" and array.max() <= 1
    if is_unit_range == do_rescale:
        found = f"{array.dtype} in [{array.min():g}, {array.max():g}]"
        advice = "pass `do_rescale=False`" if do_rescale else "leave `do_rescale=True`"
        raise ValueError(f"`do_rescale=False` is for float arrays in [0, 1], got {found}: {advice}.")
    return Image.fromarray(_eight_bit(array).squeeze())


def _channels_last(array: np.ndarray, input_data_format: str | None) -> np.ndarray:
    """Return an array as `(height, width, channels)`."""
    layouts = {"channels_first": 0, "channels_last": -1}
    axes = [axis for layout, axis in layouts.items() if input_data_format in (None, layout)]
    axes = [axis for axis in axes if array.ndim == 3 and array.shape[axis] in (1, 3, 4)]
    if array.ndim != 2 and len(axes) != 1:
        raise ValueError(
            "An image array must be (height, width), (height, width, channels) or (channels, height, width) with 1, 3 "
            f"or 4 channels, got {array.shape} as {input_data_format}; `input_data_format` may be {list(layouts)}."
        )
    array = np.moveaxis(array, axes[0], -1) if axes else array[..., None]
    _check_not_tiny(*array.shape[:2])
    return array


def _check_not_tiny(height: int, width: int) -> None:
    if min(height, width) < 2:
        raise ValueError(f"An image must have at least 2 x 2 pixels, got {height} x {width}.")


def _class_ids(class_map: Any, image_size: tuple[int, int], num_labels: int, name: str) -> np.ndarray:
    """Check one map and return it as uint8 of shape `(1, height, width)`."""
    if not isinstance(class_map, (Image.Image, np.ndarray, Tensor)):
        raise TypeError(f"`{name}` must be a PIL image, array or tensor, got {type(class_map).__name__}.")
    ids = np.asarray(_upright(class_map)) if isinstance(class_map, Image.Image) else _to_numpy(class_map)
    if ids.dtype.kind not in "ui":
        advice = "convert the mask to class ids" if ids.dtype == bool else "class ids are integers"
        raise TypeError(f"`{name}` must be of an integer dtype, got {ids.dtype}: {advice}.")
    if ids.ndim != 2:
        raise ValueError(f"`{name}` must be of shape (height, width), got {ids.shape}.")
    if ids.shape != image_size:
        raise ValueError(f"`{name}` must have the (height, width) of its image, {image_size}, got {ids.shape}.")
    foreign = np.unique(ids[(ids != IGNORE_INDEX) & ((ids < 0) | (ids >= num_labels))])
    if foreign.size:
        allowed = f"0..{num_labels - 1} and {IGNORE_INDEX}"
        raise ValueError(f"`{name}` may hold the class ids {allowed}, found also {foreign[:10].tolist()}.")
    return ids.astype(np.uint8)[None]


def _as_list(images: Any, ndim: int, batch_size: int | None = None) -> list[Any]:
    """Return one image, a list of images or of lists, or an array with an axis for the batch, as a flat list."""
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in (item if isinstance(item, (list, tuple)) else [item])]
    is_batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == ndim + 1
    return list(images) if is_batch and batch_size in (None, len(images)) else [images]


def _to_numpy(array: np.ndarray | Tensor) -> np.ndarray:
    """Return a tensor of any device and dtype as an array; numpy has no bfloat16."""
    if isinstance(array, np.ndarray):
        return array
    return (array.detach().float() if array.is_floating_point() else array).cpu().numpy()


def _checked_size(size: Any) -> tuple[int, int]:
    values = np.asarray(size)
    if values.shape != (2,) or values.min() < 1:
        raise ValueError(f"A target size must be a (height, width) in pixels, got {size!r}.")
    return int(values[0]), int(values[1])


__all__ = ["FEDDImageProcessor", "read_image"]
