"""A painted double of DDI, photos and released masks, for those who have no licensed copy, and for tests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fedd_hf.data.ddi.local_copy import METADATA_FILE
from fedd_hf.data.ddi.release import FRACTIONS, MASK_SIZE, read_released_masks, released_files, released_splits
from fedd_hf.data.painted.layout import check_size, paint_mask
from fedd_hf.data.painted.photos import paint_photo
from fedd_hf.files import write_whole
from fedd_hf.labels import SkinTone

SETTINGS_FILE = "painted.json"
MASKS_FILE = "ddi_labels.zip"
NUM_PHOTOS = 656
RGBA_EVERY = 4  # some of DDI's PNGs have an alpha channel

# Photos of DDI by tone, and malignant ones among them. Source: DDI-Dataset, as counted in its metadata.
PHOTOS = {SkinTone.I_II: (208, 49), SkinTone.III_IV: (241, 74), SkinTone.V_VI: (207, 48)}
# Malignant photos among those with a mask: 4, 11, 16 and 18 of the nested training sets, 2 of validation, 33 of test.
MALIGNANT_TRAIN = {5: 4, 10: 7, 15: 5, 20: 2}
MALIGNANT_VALIDATION = 2
MALIGNANT_TEST = {SkinTone.I_II: 11, SkinTone.III_IV: 15, SkinTone.V_VI: 7}
DISEASES = {
    True: ("basal-cell-carcinoma", "squamous-cell-carcinoma-in-situ", "melanoma", "mycosis-fungoides"),
    False: ("melanocytic-nevi", "seborrheic-keratosis", "verruca-vulgaris", "epidermal-cyst", "dermatofibroma"),
}


def paint_ddi(
    output_dir: str | Path, masks: str | Path | None = None, photo_size: int = MASK_SIZE, seed: int = 0
) -> None:
    """Paint 656 photos in the layout, with the file names, splits and balance of DDI.

    The folder gets `images/000001.png` to `000656.png`, `ddi_metadata.csv`, and `ddi_labels.zip` with the 333 masks in
    the layout of the release. What diagnosis and, outside the test set, what tone an id has is painted too. A painting
    that was interrupted goes on where it stopped.

    Args:
        output_dir (`str` or `Path`):
            New folder, or an earlier one of the same arguments.
        masks (`str` or `Path`, *optional*):
            Released masks (folder or zip) over which to paint; `ddi_labels.zip` is then not written.
        photo_size (`int`, *optional*, defaults to 256):
            Shorter side of the photos in pixels, at least 32; some are wider.
        seed (`int`, *optional*, defaults to 0):
            Not negative.

    Raises:
        FileExistsError: If `output_dir` holds something else.
        ValueError: If `photo_size` or `seed` is too small, or `masks` are not those of the release.
    """
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    check_size(photo_size)
    output_dir = Path(output_dir)
    released = None if masks is None else read_released_masks(masks)
    settings = {"painted": "no patient", "photo_size": photo_size, "seed": seed, "released_masks": masks is not None}
    _claim(output_dir, settings)
    metadata = paint_metadata(seed)
    painted = {}
    for row in tqdm(metadata.to_dict("records"), desc="Painting DDI", unit="photo"):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(row["image_id"]),)))
        mask = paint_mask(rng, MASK_SIZE, malignant=row["malignant"])
        painted[row["image_id"]] = mask
        mask = mask if released is None else released.get(row["image_id"], mask)
        path = output_dir / "images" / row["file"]
        if not path.exists():
            _write(path, _encode(_paint(mask, row, photo_size, rng)))
    if released is None:
        _write(output_dir / MASKS_FILE, _zip_release(painted))
    _write(output_dir / METADATA_FILE, _ddi_csv(metadata))


def _claim(output_dir: Path, settings: dict) -> None:
    """Make the folder ours, or see that it is."""
    claim = output_dir / SETTINGS_FILE
    text = json.dumps(settings) + "\n"
    if claim.is_file():
        if claim.read_text() != text:
            raise FileExistsError(f"{output_dir} was painted with other arguments: {claim.read_text().strip()}")
    elif output_dir.exists() and any(output_dir.iterdir()):
        raise FileExistsError(f"`output_dir` must be new or an earlier painting, but {output_dir} holds other files.")
    (output_dir / "images").mkdir(parents=True, exist_ok=True)
    _write(claim, text.encode())


def paint_metadata(seed: int = 0) -> pd.DataFrame:
    """Invent tone and diagnosis of each photo, with the counts of DDI, of its tones and of each released split.

    Returns:
        `pd.DataFrame`: as [`~fedd_hf.data.ddi.local_copy.read_ddi_metadata`] returns it.
    """
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"image_id": [f"{number:06d}" for number in range(1, NUM_PHOTOS + 1)]})
    rows = rows.merge(released_splits(), on="image_id", how="left")
    rows["malignant"] = False
    strata = [(rows["label_fraction"] == fraction, MALIGNANT_TRAIN[fraction]) for fraction in FRACTIONS]
    for members, num_malignant in [*strata, (rows["split"] == "validation", MALIGNANT_VALIDATION)]:
        tones = rng.permutation(np.repeat([tone.label for tone in SkinTone], members.sum() // len(SkinTone)))
        rows.loc[members, "skin_tone"] = tones
        _mark_malignant(rows, members, num_malignant, rng)
    unmasked = rows["split"].isna()
    left = {tone.label: PHOTOS[tone][0] - (rows["skin_tone"] == tone.label).sum() for tone in SkinTone}
    rows.loc[unmasked, "skin_tone"] = rng.permutation(np.repeat(list(left), list(left.values())))
    for tone in SkinTone:
        of_tone = rows["skin_tone"] == tone.label
        _mark_malignant(rows, of_tone & (rows["split"] == "test"), MALIGNANT_TEST[tone], rng)
        num_left = PHOTOS[tone][1] - rows.loc[of_tone, "malignant"].sum()
        _mark_malignant(rows, of_tone & unmasked, num_left, rng)
    diseases = [DISEASES[malignant][rng.integers(len(DISEASES[malignant]))] for malignant in rows["malignant"]]
    rows = rows.assign(file=rows["image_id"] + ".png", disease=diseases)
    return rows[["image_id", "file", "skin_tone", "malignant", "disease"]]


def _mark_malignant(rows: pd.DataFrame, members: pd.Series, number: int, rng: np.random.Generator) -> None:
    rows.loc[rng.choice(np.flatnonzero(members), number, replace=False), "malignant"] = True


def _paint(mask: np.ndarray, row: dict, photo_size: int, rng: np.random.Generator) -> Image.Image:
    """Paint a photo whose mask, squashed to a square, is `mask`; every second is wider than high."""
    size = (photo_size, photo_size)
    painted = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    tone = SkinTone.from_label(row["skin_tone"])
    photo = Image.fromarray(paint_photo(painted, tone, row["malignant"], rng))
    number = int(row["image_id"])
    if number % 2:
        photo = photo.resize((photo_size * 4 // 3, photo_size), Image.Resampling.BILINEAR)
    return photo.convert("RGBA") if number % RGBA_EVERY == 0 else photo


def _encode(photo: Image.Image) -> bytes:
    buffer = BytesIO()
    photo.save(buffer, format="PNG")
    return buffer.getvalue()


def _zip_release(masks: dict[str, np.ndarray]) -> bytes:
    """Return a zip file in the layout of the release, the same bytes for the same masks."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in _release_members(masks):
            array = BytesIO()
            np.save(array, mask.astype(np.int32))
            archive.writestr(zipfile.ZipInfo(name), array.getvalue(), zipfile.ZIP_DEFLATED, 1)
    return buffer.getvalue()


def _release_members(masks: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for folder, image_ids in released_files(released_splits()).items():
        yield from ((f"ddi_labels/{folder}/{name}.npy", masks[name]) for name in image_ids)


def _ddi_csv(metadata: pd.DataFrame) -> bytes:
    codes = [int(SkinTone.from_label(tone)) for tone in metadata["skin_tone"]]
    table = pd.DataFrame(
        {
            "DDI_ID": metadata["image_id"].astype(int),
            "DDI_file": metadata["file"],
            "skin_tone": codes,
            "malignant": metadata["malignant"],
            "disease": metadata["disease"],
        }
    )
    return table.to_csv().encode()  # with the index, which has no name, as DDI's own table


def _write(path: Path, content: bytes) -> None:
    with write_whole(path) as partial:
        partial.write_bytes(content)
