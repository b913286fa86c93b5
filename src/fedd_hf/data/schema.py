"""One row format for every source of labelled photos."""

from __future__ import annotations

from datasets import ClassLabel, Dataset, Features, Image, Value

from fedd_hf.skin_tone import SkinTone

FEATURES = Features(
    {
        "image_id": Value("string"),
        "image": Image(),
        "mask": Image(),  # PNG of mode L, pixel = class id: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin
        "skin_tone": ClassLabel(names=[tone.label for tone in SkinTone]),  # null where no tone is recorded
        "malignant": Value("bool"),
    }
)


def tone_labels(dataset: Dataset) -> list[str | None]:
    """Return the label of the skin-tone group of each row, None where no tone is recorded."""
    names = dataset.features["skin_tone"].names
    return [None if index is None else names[index] for index in dataset["skin_tone"]]


def take_per_tone(dataset: Dataset, num_per_tone: int) -> Dataset:
    """Return the first `num_per_tone` rows of each skin-tone group, in their order.

    Raises:
        ValueError: If a group that occurs has fewer rows.
    """
    labels = tone_labels(dataset)
    chosen: list[int] = []
    for tone in SkinTone:
        rows = [index for index, label in enumerate(labels) if label == tone.label]
        if 0 < len(rows) < num_per_tone:
            raise ValueError(f"`num_per_tone` is {num_per_tone}, but tone {tone.label} has {len(rows)} rows.")
        chosen += rows[:num_per_tone]
    return dataset.select(sorted(chosen))
