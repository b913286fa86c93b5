"""Features of a frozen backbone on disk: computed once per photo, shared by heads, runs and processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from fedd_hf.files import write_whole
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.modeling_fedd import (
    FEDDForImageClassification,
    FEDDForSegmentation,
    FEDDPreTrainedModel,
    default_batch_size,
    pool_features,
)

MANIFEST = "manifest.json"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
KEPT_FREE = 2**30  # bytes of the disk that are never filled

Model = FEDDForSegmentation | FEDDForImageClassification


class FeatureStore:
    """A folder of features, one safetensors file per photo, named after the pixels that the network sees.

    The folder's name is a hash of all else that features depend on: the tensors of the backbone and its noise, blocks,
    timesteps, image size, geometry, dtype. A photo is thus never computed twice, and never read for another backbone.
    Batches always have the same shape, which makes features independent of what else is computed with them: one
    process, two processes and a run that was interrupted write the same bytes.

    Args:
        root (`Path`):
            Folder of all stores; this one is a folder in it.
        model ([`FEDDForSegmentation`] or [`FEDDForImageClassification`]):
            Model whose backbone is read.
        processor ([`FEDDImageProcessor`]):
            What brings photos to the backbone.
        dtype (`str`, *optional*, defaults to `"float16"`):
            `"float16"` or `"float32"`.
        pooled_size (`int`, *optional*):
            Keep this many max-pooled numbers of each block and timestep, rather than its feature map.
        batch_size (`int`, *optional*):
            Photos per pass. A store that exists goes on with the batch size and threads it was begun with.
        num_threads (`int`, *optional*, defaults to those of torch):
            Threads of each process. Other batch sizes and threads change features by about 1e-6.

    Raises:
        ValueError: If `dtype` is unknown, or the store was begun with another batch size or other threads.
    """

    def __init__(
        self,
        root: Path,
        model: Model,
        processor: FEDDImageProcessor,
        *,
        dtype: str = "float16",
        pooled_size: int | None = None,
        batch_size: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {list(DTYPES)}, got {dtype!r}.")
        self.model, self.processor = model, processor
        self.dtype, self.pooled_size = DTYPES[dtype], pooled_size
        self.tensor_names = _tensor_names(model, is_pooled=pooled_size is not None)
        form = {"dtype": dtype, "pooled_size": pooled_size, "tensors": self.tensor_names}
        self.reading = _describe_reading(model, processor) | form
        self.folder = Path(root) / hash_json(self.reading)[:16]
        settings = {"batch_size": default_batch_size(model.config.image_size), "num_threads": torch.get_num_threads()}
        given = {"batch_size": batch_size, "num_threads": num_threads}
        self.settings = self._settle(settings, {name: value for name, value in given.items() if value is not None})

    @property
    def bytes_per_image(self) -> int:
        """Bytes of the features of one photo, without the file's header."""
        config = self.model.config
        sizes = [
            channels * config.block_size(block) ** 2
            for channels, block in zip(config.feature_channels, config.blocks, strict=True)
        ]
        numbers = sum(sizes) if self.pooled_size is None else self.pooled_size * len(self.tensor_names)
        return numbers * self.dtype.itemsize

    def describe(self, num_images: int) -> str:
        """Say how much room photos need, before it is taken."""
        size = self.bytes_per_image
        room = f"{size:,} bytes an image, {_gib(num_images * size)} for {num_images} photos"
        return f"Features: {room}, less what is stored already: {self.folder}"

    def extract(self, dataset: Dataset, accelerator: Accelerator) -> list[Path]:
        """Compute what is not stored yet, shared between processes, and return the file of each photo.

        Args:
            dataset (`datasets.Dataset`):
                Rows of [`~fedd_hf.data.schema.FEATURES`].
            accelerator (`accelerate.Accelerator`):
                Where, and as which of how many processes.

        Returns:
            `list[Path]`: one file for each row, in their order.

        Raises:
            OSError: If the disk has no room, or another run is writing this store.
            ValueError: If a photo cannot be read, or a feature does not fit the dtype.
        """
        self.model.to(accelerator.device)
        with self._writing(accelerator), _threads(self.settings["num_threads"]):
            if accelerator.is_main_process:
                self._check_room(len(dataset))
            size = self.settings["batch_size"]
            starts = range(accelerator.process_index * size, len(dataset), accelerator.num_processes * size)
            files: list[tuple[int, str]] = []
            for rows in _with_progress(
                [range(start, min(start + size, len(dataset))) for start in starts], accelerator
            ):
                files += zip(rows, self._extract_batch(dataset, rows), strict=True)
            everything = dict(gather_object(files))
        return [self.folder / everything[row] for row in range(len(dataset))]

    def _extract_batch(self, dataset: Dataset, rows: range) -> list[str]:
        """Store the photos of one batch and return their files' names."""
        pixel_values = torch.stack([read_pixel_values(dataset, row, self.processor) for row in rows])
        names = [_name_of(photo) for photo in pixel_values]
        missing = [index for index, name in enumerate(names) if not _is_whole(self.folder / name)]
        if missing:
            self._check_free(len(missing))
            features = compute_features(self.model, pixel_values, self.settings["batch_size"])
            for index in missing:
                self._write(self.folder / names[index], [feature_map[index] for feature_map in features])
        return names

    def _write(self, path: Path, feature_maps: list[Tensor]) -> None:
        """Write the features of one photo, whole or not at all."""
        features = feature_maps if self.pooled_size is None else self._pool(feature_maps, self.pooled_size)
        tensors = {
            name: feature.to(self.dtype).contiguous()
            for name, feature in zip(self.tensor_names, features, strict=True)
        }
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            advice = "Type --dtype float32." if self.dtype == torch.float16 else "The backbone is broken."
            raise ValueError(f"A feature is not a finite number of {self.reading['dtype']}. {advice}")
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another process may have the same photo
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}. What is stored so far stays.") from error
        temporary.replace(path)

    def _pool(self, feature_maps: list[Tensor], pooled_size: int) -> list[Tensor]:
        """Pool the map of each timestep and block on its own."""
        parts = [feature_map.movedim(-1, 0).chunk(len(self.model.config.timesteps)) for feature_map in feature_maps]
        return [
            pool_features(part[None], pooled_size)[0] for timestep in zip(*parts, strict=True) for part in timestep
        ]

    def _settle(self, settings: dict[str, int], given: dict[str, int]) -> dict[str, int]:
        """Return the settings that the store was begun with, else those given, else the defaults."""
        if not (self.folder / MANIFEST).is_file():
            return settings | given
        begun = json.loads((self.folder / MANIFEST).read_text())["settings"]
        if begun != begun | given:
            raise ValueError(
                f"{self.folder} was begun with {begun}, got {given}. Go on with those, or choose a new root."
            )
        return begun

    @contextmanager
    def _writing(self, accelerator: Accelerator) -> Iterator[None]:
        """Hold the lock of the store, write its manifest, and clear what an interrupted run left unfinished."""
        lock = FileLock(self.folder / ".lock", blocking=False)
        if accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise OSError(f"Another run is writing {self.folder}. Wait for it, or choose a new root.") from error
            for leftover in self.folder.glob("*/.*"):  # also those of safetensors, `.tmp` and six letters
                leftover.unlink()
            manifest = {"reading": self.reading, "settings": self.settings, "device": accelerator.device.type}
            write_json(manifest, self.folder / MANIFEST)
        accelerator.wait_for_everyone()
        try:
            yield
        finally:
            lock.release()

    def _check_room(self, num_images: int) -> None:
        stored = sum(1 for _ in self.folder.glob("*/*.safetensors"))
        self._check_free(max(0, num_images - stored))

    def _check_free(self, num_images: int) -> None:
        needed, free = num_images * self.bytes_per_image, shutil.disk_usage(self.folder).free
        if needed > free - KEPT_FREE:
            raise OSError(
                f"{num_images} photos need {_gib(needed)} in {self.folder}, where {_gib(free)} are free, of which "
                f"{_gib(KEPT_FREE)} stay free. Nothing that is stored is lost: make room and run again."
            )


@torch.no_grad()
def compute_features(model: FEDDPreTrainedModel, pixel_values: Tensor, batch_size: int) -> list[Tensor]:
    """Run the backbone in batches of one shape, the last of them filled up, and bring the features to the CPU.

    Args:
        model ([`FEDDPreTrainedModel`]):
            Model on its device.
        pixel_values (`torch.Tensor` of shape `(num_images, 3, image_size, image_size)`):
            Images scaled to [-1, 1].
        batch_size (`int`):
            Photos per pass.

    Returns:
        `list[torch.Tensor]`: one tensor of shape `(num_images, height, width, channels)` per block, the channels of
        all timesteps together.
    """
    parts = []
    for batch in pixel_values.split(batch_size):
        filled = torch.cat([batch, batch[-1:].expand(batch_size - len(batch), -1, -1, -1)])
        maps = model.backbone(filled.to(model.device)).feature_maps
        parts.append([feature_map[: len(batch)].movedim(1, -1).cpu() for feature_map in maps])
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


def read_maps(file: Path) -> tuple[Tensor, ...]:
    """Open the feature maps of one photo without reading them: the file is mapped into memory.

    Returns:
        `tuple[torch.Tensor]`: one map of shape `(height, width, channels)` per block, as [`FEDDBackbone`] returns
        them; of pooled features one vector per timestep and block, timesteps outermost.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            return tuple(tensors.get_tensor(name) for name in sorted(tensors.keys()))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The features {file} cannot be read: {error}. Delete the file and extract again.") from error


def read_pooled(files: list[Path]) -> Tensor:
    """Read pooled features, float32 of shape `(num_images, num_timesteps * num_blocks, pooled_size)`."""
    return torch.stack([torch.stack(read_maps(file)).float() for file in files])


def pool_labelled(store: FeatureStore, dataset: Dataset, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """Extract pooled features, as [`read_pooled`] returns them, with the labels of their photos: 1 is malignant."""
    return read_pooled(store.extract(dataset, accelerator)), torch.tensor(dataset["malignant"], dtype=torch.long)


def read_pixel_values(dataset: Dataset, row: int, processor: FEDDImageProcessor) -> Tensor:
    """Return a photo as the backbone sees it, float32 of shape `(3, image_size, image_size)`.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return processor(dataset[row]["image"], return_tensors="pt")["pixel_values"][0]
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: a broken PNG
        name = dataset.select_columns("image_id")[row]["image_id"]
        raise ValueError(f"Photo {name!r} cannot be read: {error}") from error


def hash_json(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(value: Any, path: Path) -> None:
    """Write JSON, whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def _describe_reading(model: Model, processor: FEDDImageProcessor) -> dict[str, Any]:
    """List all that features depend on, but for the photo."""
    config = model.config
    schedule = [float(alpha_bar) for alpha_bar in model.backbone.alphas_cumprod]
    fields = {name: getattr(config, name) for name in ("blocks", "timesteps", "noise_seed", "image_size")}
    return fields | {
        "backbone_tensors": _hash_tensors(model.backbone.state_dict()),
        "alphas_cumprod": schedule,
        "image_processor": {name: value for name, value in processor.to_dict().items() if name != "num_labels"},
    }


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor_names(model: Model, is_pooled: bool) -> list[str]:
    """Name the map of each block, or the vector of each timestep and block, so that they sort as they are read."""
    config = model.config
    if not is_pooled:
        return [f"block{block:02d}" for block in config.blocks]
    return [f"t{timestep:04d}.block{block:02d}" for timestep in config.timesteps for block in config.blocks]


def _name_of(pixel_values: Tensor) -> str:
    digest = hashlib.sha256(pixel_values.contiguous().numpy().data).hexdigest()
    return f"{digest[:2]}/{digest}.safetensors"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _is_whole(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_progress(batches: list[range], accelerator: Accelerator) -> Iterator[range]:
    """Yield batches while a bar counts photos, their rate and the time left; of several processes, the first's."""
    total = sum(map(len, batches))
    with tqdm(
        total=total, desc="Features", unit="photo", leave=False, disable=not accelerator.is_main_process
    ) as progress:
        for rows in batches:
            yield rows
            progress.update(len(rows))
