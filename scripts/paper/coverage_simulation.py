"""How often intervals hold the truth: photos simulated like those of DDI, thousands of times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tqdm.auto import tqdm

from fedd_hf.evaluation.by_tone import photos_of, sample_of, within
from fedd_hf.evaluation.classification import classification_metrics
from fedd_hf.evaluation.intervals import NUM_DRAWS, Metric, difference_of_tones, interval
from fedd_hf.evaluation.report import describe_machine, read_report, write_report
from fedd_hf.evaluation.segmentation import segmentation_metrics
from fedd_hf.labels import SkinTone

NUM_PHOTOS = (10, 20, 30, 50, 66, 200)  # of each skin tone
PIXELS = 256 * 256
POPULATION = 1_000_000  # photos whose metric is the truth
TONES = (SkinTone.I_II.label, SkinTone.V_VI.label)


@dataclass(frozen=True, kw_only=True)
class SegmentationScenario:
    """Photos with one lesion each, on two skin tones.

    Source of the areas: the released masks, whose lesions have a median of 0.61 % of the pixels; 5 % have less than
    0.08 %, 5 % more than 7.1 %.

    Args:
        name (`str`): Name in the report.
        spread (`float`): Standard deviation of the log of the lesion's area; 1.49 is that of DDI.
        missed (`tuple[float, float]`): Share of the photos of each tone whose lesion is almost missed.
        photos_per_patient (`int`): Photos of a patient, at most; they are alike in area and in how well they go.
    """

    name: str
    spread: float = 1.49
    missed: tuple[float, float] = (0.10, 0.20)
    photos_per_patient: int = 1

    metrics = ("lesion_iou", "lesion_iou_per_image")

    def draw(self, num_photos: int, rng: np.random.Generator) -> pd.DataFrame:
        """Draw a predictions table with `num_photos` photos of each tone."""
        parts = [self._draw_tone(tone, num_photos, rng) for tone in range(len(TONES))]
        return _number_photos(pd.concat(parts, ignore_index=True)).assign(label="lesion")

    def _draw_tone(self, tone: int, num_photos: int, rng: np.random.Generator) -> pd.DataFrame:
        patients = _draw_patients(num_photos, self.photos_per_patient, rng)
        latent = _draw_alike(patients, 3, rng)  # area, quality, false positives
        areas = np.clip(0.0061 * np.exp(self.spread * latent[0]), 1e-4, 0.4) * PIXELS
        is_missed = rng.random(patients.max() + 1)[patients] < self.missed[tone]
        quality = np.where(is_missed, expit(-3 + latent[1]), expit(1.2 + latent[1]))
        true_positives = np.round(areas * quality)
        false_positives = np.round(areas * 0.3 * np.exp(0.8 * latent[2]))
        return pd.DataFrame(
            {
                "group_id": [f"{TONES[tone]} {patient}" for patient in patients],
                "skin_tone": TONES[tone],
                "tp": true_positives,
                "fp": false_positives,
                "fn": np.round(areas) - true_positives,
                "tn": PIXELS - np.round(areas) - false_positives,
            }
        )

    def make_metrics(self, table: pd.DataFrame) -> dict[str, Metric]:
        """Return the metrics whose intervals are tried."""
        metrics = segmentation_metrics(table)
        return {name: metrics[name] for name in self.metrics}


@dataclass(frozen=True, kw_only=True)
class MalignancyScenario:
    """Scores of malignant and benign photos, normally distributed before the sigmoid, on two skin tones.

    Args:
        name (`str`): Name in the report.
        separation (`tuple[float, float]`): Distance of malignant from benign scores in standard deviations, by tone.
        prevalence (`float`): Share of malignant photos; 0.25 is about that of DDI.
        photos_per_patient (`int`): Photos of a patient, at most; they have one diagnosis and scores that are alike.
    """

    name: str
    separation: tuple[float, float] = (0.95, 0.54)
    prevalence: float = 0.25
    photos_per_patient: int = 1

    metrics = ("auroc", "balanced_accuracy")

    def draw(self, num_photos: int, rng: np.random.Generator) -> pd.DataFrame:
        """Draw a predictions table with `num_photos` photos of each tone."""
        parts = [self._draw_tone(tone, num_photos, rng) for tone in range(len(TONES))]
        return _number_photos(pd.concat(parts, ignore_index=True))

    def _draw_tone(self, tone: int, num_photos: int, rng: np.random.Generator) -> pd.DataFrame:
        patients = _draw_patients(num_photos, self.photos_per_patient, rng)
        num_patients = patients.max() + 1
        ranks = rng.permutation(num_patients)
        is_malignant = (ranks < max(2, round(self.prevalence * num_patients)))[patients]
        (noise,) = _draw_alike(patients, 1, rng)
        scores = expit(noise + self.separation[tone] * (is_malignant - 0.5))
        groups = [f"{TONES[tone]} {patient}" for patient in patients]
        columns = {"group_id": groups, "y_true": is_malignant.astype(int), "y_score": scores}
        return pd.DataFrame(columns).assign(skin_tone=TONES[tone])

    def make_metrics(self, table: pd.DataFrame) -> dict[str, Metric]:
        """Return the metrics whose intervals are tried."""
        metrics = classification_metrics(table)
        return {name: metrics[name] for name in self.metrics}


Scenario = SegmentationScenario | MalignancyScenario

SCENARIOS: tuple[Scenario, ...] = (
    SegmentationScenario(name="lesions as large as those of DDI"),
    SegmentationScenario(name="lesions of more even size", spread=0.8),
    SegmentationScenario(name="one to four photos of a patient", photos_per_patient=4),
    MalignancyScenario(name="AUROC .75 and .65, 25 % malignant"),
    MalignancyScenario(name="AUROC .85 and .75, 25 % malignant", separation=(1.47, 0.95)),
    MalignancyScenario(name="AUROC .85 and .75, 50 % malignant", separation=(1.47, 0.95), prevalence=0.5),
    MalignancyScenario(name="AUROC .75 and .65, one to four photos of a patient", photos_per_patient=4),
)


def simulate_coverage(
    output: Path, num_sets: int = 1000, scenarios: tuple[Scenario, ...] = SCENARIOS, seed: int = 0
) -> dict[str, Any]:
    """Draw data sets, and count how often the interval of a metric or of a gap holds the true value.

    Args:
        output (`Path`):
            Report, to which each scenario and number of photos is added as it is done; those that are there already
            are kept.
        num_sets (`int`, *optional*, defaults to 1000):
            Data sets of each scenario and number of photos.
        scenarios (`tuple`, *optional*):
            What is drawn.
        seed (`int`, *optional*, defaults to 0):
            Seed of everything.

    Returns:
        `dict`: `rows` of `scenario`, `metric`, `is_gap`, `n` (photos of a tone), `clusters` (patients of a tone, on
        average), `truth`, `coverage` (of the first tone, or of the gap), `undefined` (share of data sets without an
        interval, which count as missed) and `width` (median); `settings`, `seconds` and `machine`.

    Raises:
        ValueError: If the report is of other scenarios.
    """
    settings: dict[str, Any] = {"num_sets": num_sets, "num_draws": NUM_DRAWS, "seed": seed}
    settings |= {"scenarios": [json.loads(json.dumps(asdict(scenario))) for scenario in scenarios]}
    new: dict[str, Any] = {"settings": settings, "seconds": 0.0, "rows": []}
    report = read_report(output) if output.is_file() else new
    if report.get("settings") != settings:
        raise ValueError(f"{output} was simulated with other settings. Give another `output`, or delete it.")
    done = {(row["scenario"], row["n"]) for row in report["rows"]}
    plan = [(scenario, n) for scenario in scenarios for n in NUM_PHOTOS if (scenario.name, n) not in done]
    for scenario, num_photos in (progress := tqdm(plan, unit="cell")):
        progress.set_description(f"{scenario.name}, n = {num_photos}")
        start = time.perf_counter()
        report["rows"] += _simulate_cell(scenario, num_photos, num_sets, seed)
        report["seconds"] = round(report["seconds"] + time.perf_counter() - start, 1)
        write_report(report | {"machine": describe_machine()}, output)
    return report


def _simulate_cell(scenario: Scenario, num_photos: int, num_sets: int, seed: int) -> list[dict[str, Any]]:
    truths = _find_truths(scenario, seed)
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    clusters = []
    for number in range(num_sets):
        table = scenario.draw(num_photos, np.random.default_rng([seed, num_photos, number]))
        sample = sample_of(photos_of(table))
        clusters.append(len(sample.strata) / len(TONES))
        for name, metric in scenario.make_metrics(table).items():
            of_first = within(metric, sample.tones == TONES[0])
            of_both = difference_of_tones(metric, sample, *TONES)
            found.setdefault((name, False), []).append(interval(of_first, sample, seed=number))
            found.setdefault((name, True), []).append(interval(of_both, sample, seed=number))
    size = {"n": num_photos, "clusters": float(np.mean(clusters))}
    return [
        {"scenario": scenario.name, "metric": name, "is_gap": is_gap, **size}
        | _count_hits(np.array(intervals), truths[name, is_gap])
        for (name, is_gap), intervals in found.items()
    ]


def _count_hits(intervals: np.ndarray, truth: float) -> dict[str, float]:
    low, high = intervals.T
    return {
        "truth": truth,
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "undefined": float(np.isnan(low).mean()),
        "width": float(np.nanmedian(high - low)),
    }


@cache
def _find_truths(scenario: Scenario, seed: int) -> dict[tuple[str, bool], float]:
    """Return the values of each metric over very many photos: of the first tone, and second minus first."""
    table = scenario.draw(POPULATION, np.random.default_rng([seed]))
    of_tones = [TRUTHS[type(scenario)](table[table["skin_tone"] == tone]) for tone in TONES]
    first, second = of_tones
    truths = {(name, False): first[name] for name in first}
    return truths | {(name, True): second[name] - first[name] for name in first}


def _true_segmentation(photos: pd.DataFrame) -> dict[str, float]:
    unions = photos["tp"] + photos["fp"] + photos["fn"]
    return {
        "lesion_iou": float(photos["tp"].sum() / unions.sum()),
        "lesion_iou_per_image": float((photos["tp"] / unions).mean()),
    }


def _true_malignancy(photos: pd.DataFrame) -> dict[str, float]:
    y_true, y_score = photos["y_true"], photos["y_score"]
    return {
        "auroc": float(roc_auc_score(y_true, y_score)),
        "balanced_accuracy": float(balanced_accuracy_score(y_true, y_score > 0.5)),
    }


TRUTHS: dict[type, Callable[[pd.DataFrame], dict[str, float]]] = {
    SegmentationScenario: _true_segmentation,
    MalignancyScenario: _true_malignancy,
}


def _draw_patients(num_photos: int, photos_per_patient: int, rng: np.random.Generator) -> np.ndarray:
    """Return the patient of each photo, counted from 0; patients have from one photo to as many as are allowed."""
    numbers = rng.integers(1, photos_per_patient + 1, size=num_photos)
    return np.repeat(np.arange(num_photos), numbers)[:num_photos]


def _draw_alike(patients: np.ndarray, num_values: int, rng: np.random.Generator) -> np.ndarray:
    """Draw standard normal numbers, `(num_values, num_photos)`, correlated by one half within a patient."""
    if len(np.unique(patients)) == len(patients):
        return rng.normal(size=(num_values, len(patients)))
    shared = rng.normal(size=(num_values, patients.max() + 1))[:, patients]
    return (shared + rng.normal(size=(num_values, len(patients)))) / np.sqrt(2)


def _number_photos(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(image_id=[f"{number:07d}" for number in range(len(table))])
