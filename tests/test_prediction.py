import io
import weakref
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import pipeline

from fedd_hf import FEDDImageProcessor, image_processing_fedd, prediction
from fedd_hf.data.contrast import lesion_contrast
from fedd_hf.data.schema import make_dataset as make_rows
from fedd_hf.modeling_fedd import pool_features
from fedd_hf.prediction import (
    count_confidences,
    count_pixels,
    predict_classification,
    predict_segmentation,
    score_photos,
    segment_photos,
    stream_scores,
    stream_segmentations,
)

LABELS = ("background", "lesion", "marker", "ruler", "skin")
BINS = ["bin_pixels", "bin_correct", "bin_confidence"]
PATHS = ["photo_path", "truth_path", "map_path"]


@pytest.fixture
def processor():
    return FEDDImageProcessor(size=16)


@pytest.fixture
def photos():
    """Photos of three shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in [(20, 30), (45, 12), (9, 9)]]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def make_dataset(num_rows=7, mask_size=None, tones=(0, 1, 2, None)):
    rng = np.random.default_rng(1)
    rows = []
    for index in range(num_rows):
        size = (20 + index, 30)
        mask = rng.choice([0, 1, 2, 3, 4, 255], mask_size or size).astype(np.uint8)
        photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        tone = tones[index % len(tones)]
        rows.append(
            {
                "image_id": f"photo-{index}",
                "image": png(photo),
                "mask": png(mask),
                "skin_tone": tone,
                "malignant": index % 3 == 0,
                "group_id": f"patient-{index // 2}" if index < 4 else None,
            }
        )
    return make_rows(rows, source="noise")


def count_by_hand(mask, segmentation_map, label):
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for truth, said in zip(mask.flatten().tolist(), segmentation_map.flatten().tolist(), strict=True):
        if truth != 255:
            is_right = (truth == label) == (said == label)
            counts[("t" if is_right else "f") + ("p" if said == label else "n")] += 1
    return counts


# --- count_pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("present", [(0, 1, 2, 3, 4), (0, 1, 4, 255), (1,), (255,)], ids=str)
def test_counts_are_those_of_a_loop_over_pixels(present):
    rng = np.random.default_rng(2)
    mask = rng.choice(present, (13, 17)).astype(np.uint8)
    segmentation_map = rng.choice([0, 1, 3, 4], (13, 17)).astype(np.uint8)

    counts = count_pixels(mask, segmentation_map, num_labels=5)

    assert counts == [count_by_hand(mask, segmentation_map, label) for label in range(5)]


def test_a_mask_of_another_size_than_its_map_is_refused():
    with pytest.raises(ValueError, match=r"of one size, got \(4, 5\) and \(5, 4\)"):
        count_pixels(np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), num_labels=5)


def test_a_mask_with_a_class_that_the_model_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.4 and 255, found also \[7, 200\]"):
        count_pixels(np.array([[1, 7, 200, 255]], np.uint8), np.zeros((1, 4), np.uint8), num_labels=5)


# --- count_confidences -----------------------------------------------------------------------------------------------


def test_pixels_are_binned_by_predicted_class_and_confidence():
    mask = np.array([[1, 0, 1, 1, 255, 0]], np.uint8)
    segmentation_map = np.array([[1, 1, 1, 0, 1, 0]], np.uint8)
    confidence = np.array([[0.5, 0.52, 1.0, 0.0, 0.9, np.nan]], np.float32)

    background, lesion = count_confidences(mask, segmentation_map, confidence, num_labels=2)

    assert {k: n for k, n in enumerate(lesion["bin_pixels"].tolist()) if n} == {7: 2, 14: 1}
    assert {k: n for k, n in enumerate(lesion["bin_correct"].tolist()) if n} == {7: 1, 14: 1}
    assert lesion["bin_confidence"][[7, 14]] == pytest.approx([1.02, 1.0])
    assert {k: n for k, n in enumerate(background["bin_pixels"].tolist()) if n} == {0: 1}
    assert background["bin_correct"].sum() == background["bin_confidence"].sum() == 0


# --- confidence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voting", ["majority", "mean"])
def test_confidence_is_the_mean_probability_of_the_class_that_is_predicted(segmenter, photos, voting):
    segmenter.config.voting = voting
    processor = FEDDImageProcessor(size=16)
    photo = photos[0].resize((16, 16))

    (segmented,) = stream_segmentations(segmenter, processor, [photo], with_confidence=True)

    with torch.no_grad():
        outputs = segmenter(**processor(photo, return_tensors="pt"), output_member_logits=True)
    probabilities = outputs.member_logits[0].softmax(dim=1).mean(dim=0).numpy()
    for row in range(16):
        for column in range(16):
            label = segmented.segmentation_map[row, column]
            assert segmented.confidence[row, column] == pytest.approx(probabilities[label, row, column], abs=1e-6)


def test_what_the_model_does_not_see_has_no_confidence_and_is_in_no_bin(segmenter):
    processor = FEDDImageProcessor(size=16, geometry="center_crop")
    dataset = make_dataset(1)

    (segmented,) = stream_segmentations(segmenter, processor, [dataset[0]["image"]], with_confidence=True)
    table = predict_segmentation(segmenter, processor, dataset)

    seen = np.zeros((20, 30), bool)
    seen[:, 5:25] = True
    np.testing.assert_array_equal(np.isnan(segmented.confidence), ~seen)
    counted = (np.asarray(dataset[0]["mask"]) != 255) & seen
    assert np.stack(table["bin_pixels"]).sum() == counted.sum()


# --- maps and scores -------------------------------------------------------------------------------------------------


def test_a_photo_that_lies_on_its_side_gets_an_upright_map(segmenter, processor, photos):
    sideways, exif = photos[0].copy(), Image.Exif()
    exif[274] = 6  # orientation: turn by 90 degrees
    buffer = io.BytesIO()
    sideways.save(buffer, format="PNG", exif=exif)

    (segmented,) = segment_photos(segmenter, processor, [Image.open(buffer)])

    assert segmented.segmentation_map.shape == (30, 20)


def test_uncertainty_is_the_mean_of_the_most_uncertain_tenth(segmenter, processor, photos):
    inputs = processor(photos, return_tensors="pt")
    with torch.no_grad():
        maps = segmenter(**inputs, output_uncertainty=True).uncertainty

    segmented = segment_photos(segmenter, processor, photos)

    for photo, uncertainty in zip(segmented, maps, strict=True):
        values = sorted(uncertainty.flatten().tolist(), reverse=True)[: 16 * 16 // 10]
        assert photo.uncertainty == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert photo.uncertainty > 0


def test_scores_are_the_sigmoid_of_the_logit_and_lie_in_0_to_1(classifier, processor, photos):
    scores = score_photos(classifier, processor, photos)

    with torch.no_grad():
        logits = classifier(**processor(photos, return_tensors="pt")).logits[:, 1]
    assert all(0 <= score <= 1 for score in scores)
    assert scores == pytest.approx([1 / (1 + np.exp(-logit)) for logit in logits.tolist()], rel=1e-5)


def test_prediction_does_not_depend_on_the_mode_in_which_the_model_was_left(segmenter, classifier, processor, photos):
    wanted = score_photos(classifier, processor, photos), segment_photos(segmenter, processor, photos)[0].uncertainty

    classifier.train(), segmenter.train()

    assert score_photos(classifier, processor, photos) == wanted[0]
    assert segment_photos(segmenter, processor, photos)[0].uncertainty == wanted[1]


# --- batches ---------------------------------------------------------------------------------------------------------


def draw_photos(number):
    rng = np.random.default_rng(5)
    for index in range(number):
        yield Image.fromarray(rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8))


@pytest.fixture
def forward_passes(monkeypatch):
    """Sizes of the batches that a model sees, and whether gradients could be taken."""
    passes = []

    def watch(model):
        model.register_forward_pre_hook(
            lambda _, arguments: passes.append((len(arguments[0]), torch.is_inference_mode_enabled()))
        )
        return passes

    return watch


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [5, 2]), (1, [1] * 7), (3, [3, 3, 1]), (9, [7])], ids=str)
def test_photos_go_through_the_model_in_batches_without_gradients(
    classifier, processor, forward_passes, batch_size, sizes, monkeypatch
):
    monkeypatch.setattr(prediction, "default_batch_size", lambda image_size: 80 // image_size)
    passes = forward_passes(classifier)

    scores = score_photos(classifier, processor, draw_photos(7), batch_size)

    assert len(scores) == 7
    assert passes == [(size, True) for size in sizes]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_photos_are_read_batch_by_batch_and_let_go(task, segmenter, classifier, processor):
    photos = []

    def read():
        for photo in draw_photos(9):
            photos.append(weakref.ref(photo))
            yield photo

    if task == "segmentation":
        predictions = stream_segmentations(segmenter, processor, read(), batch_size=3)
    else:
        predictions = stream_scores(classifier, processor, read(), batch_size=3)

    for index, _ in enumerate(predictions):
        assert len(photos) == 3 * (index // 3 + 1)
        assert sum(photo() is not None for photo in photos) <= 1


def test_a_pipeline_gives_the_same_map(segmenter, processor, photos):
    segment = pipeline("image-segmentation", model=segmenter, image_processor=processor, device="cpu")

    for photo, segmented in zip(photos, segment_photos(segmenter, processor, photos, batch_size=1), strict=True):
        for part in segment(photo):
            mask = segmented.segmentation_map == segmenter.config.label2id[part["label"]]
            np.testing.assert_array_equal(np.asarray(part["mask"]) > 0, mask)


# --- predictions tables ----------------------------------------------------------------------------------------------


def test_a_photo_without_a_mask_is_scored_and_has_no_contrast(classifier, processor):
    rows = [{"image_id": "bare", "image": png(np.zeros((9, 9, 3), np.uint8)), "malignant": True}]

    table = predict_classification(classifier, processor, make_rows(rows, source="noise"))

    assert table["contrast"].isna().all()
    assert 0 <= table["y_score"].item() <= 1


@pytest.mark.parametrize(("score", "entropy"), [(0.0, 0.0), (1.0, 0.0), (0.5, np.log(2))])
def test_entropy_of_a_certain_score_is_0(classifier, processor, monkeypatch, score, entropy):
    monkeypatch.setattr(prediction, "_score", lambda output: score)

    assert predict_classification(classifier, processor, make_dataset(1))["uncertainty"].item() == entropy


# --- pictures of the tables ------------------------------------------------------------------------------------------


def test_maps_are_written_anew_and_photos_are_not(segmenter, processor, tmp_path):
    predict_segmentation(segmenter, processor, make_dataset(1), tmp_path)
    for folder in ("photos", "masks", "maps"):
        (tmp_path / folder / "photo-0.png").write_bytes(b"from before")

    predict_segmentation(segmenter, processor, make_dataset(1), tmp_path)

    contents = {folder: (tmp_path / folder / "photo-0.png").read_bytes() for folder in ("photos", "masks", "maps")}
    assert contents["photos"] == contents["masks"] == b"from before"
    assert contents["maps"].startswith(b"\x89PNG")


def test_written_photos_are_upright_and_without_metadata(classifier, processor, tmp_path):
    exif = Image.Exif()
    exif[270], exif[274] = "SECRET-DESCRIPTION", 6  # turn by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, format="JPEG", exif=exif)
    assert b"SECRET-DESCRIPTION" in buffer.getvalue()
    rows = [{"image_id": "a", "image": {"bytes": buffer.getvalue(), "path": None}, "malignant": False}]

    predict_classification(classifier, processor, make_rows(rows, source="noise"), tmp_path)

    assert b"SECRET-DESCRIPTION" not in (tmp_path / "photos" / "a.png").read_bytes()
    assert Image.open(tmp_path / "photos" / "a.png").size == (20, 30)


def test_ids_that_are_no_file_names_stay_inside_the_folder_and_apart(classifier, processor, tmp_path):
    ids = ["../../escape", "a/b", "a_b", "a:b", ".hidden", "", "Ä" * 200, "x" * 101]
    photo = png(np.zeros((9, 9, 3), np.uint8))
    rows = [{"image_id": image_id, "image": photo, "malignant": False} for image_id in ids]

    table = predict_classification(classifier, processor, make_rows(rows, source="noise"), tmp_path / "out")

    assert [child.name for child in tmp_path.iterdir()] == ["out"]
    written = sorted(f"photos/{file.name}" for file in (tmp_path / "out" / "photos").iterdir())
    assert sorted(table["photo_path"]) == written
    assert len(written) == len(ids)
    assert table["photo_path"][2] == "photos/a_b.png"
    assert all(path.isascii() and len(path) < 120 and not path.startswith("photos/.") for path in written)


def test_a_picture_that_cannot_be_finished_is_not_there(classifier, processor, tmp_path, monkeypatch):
    def stop(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(Path, "replace", stop)

    with pytest.raises(OSError, match="disk is full"):
        predict_classification(classifier, processor, make_dataset(1), tmp_path)

    assert list((tmp_path / "photos").glob("*.png")) == []


# --- whole tables ----------------------------------------------------------------------------------------------------


def test_a_table_of_maps_counts_what_the_written_maps_say(segmenter, processor, tmp_path):
    dataset = make_dataset(5)

    table = predict_segmentation(segmenter, processor, dataset, tmp_path, batch_size=3)

    facts = ["uncertainty", "contrast", "photo_path", "truth_path", "map_path"]
    assert list(table) == ["image_id", "group_id", "skin_tone", "label", "tp", "fp", "fn", "tn", *BINS, *facts]
    assert table["label"].tolist() == [*LABELS] * 5
    pixels, correct, _ = (np.stack(table[column]) for column in BINS)
    assert pixels.sum(axis=1).tolist() == (table["tp"] + table["fp"]).tolist()
    assert correct.sum(axis=1).tolist() == table["tp"].tolist()
    for row, (_, of_photo) in zip(dataset, table.groupby("image_id", sort=False), strict=True):
        paths, mask = of_photo[PATHS].iloc[0].tolist(), np.asarray(row["mask"])
        assert paths == [f"{folder}/{row['image_id']}.png" for folder in ("photos", "masks", "maps")]
        photo, truth, segmentation_map = (np.asarray(Image.open(tmp_path / path)) for path in paths)
        np.testing.assert_array_equal(photo, np.asarray(row["image"]))
        np.testing.assert_array_equal(truth, mask)
        counted = of_photo[["tp", "fp", "fn", "tn"]].to_dict("records")
        assert counted == [count_by_hand(mask, segmentation_map, label) for label in range(5)]
        assert set(of_photo["contrast"]) == {lesion_contrast(photo, mask)}


def test_a_table_of_scores_has_a_row_for_each_photo_with_its_groups(classifier, processor, tmp_path):
    dataset = make_dataset(5)

    table = predict_classification(classifier, processor, dataset, tmp_path / "run", batch_size=3)

    facts = ["uncertainty", "contrast", "photo_path"]
    assert list(table) == ["image_id", "group_id", "skin_tone", "y_true", "y_score", *facts]
    assert table["image_id"].tolist() == dataset["image_id"]
    assert table["y_true"].tolist() == [1, 0, 0, 1, 0]
    alone = [score_photos(classifier, processor, [row["image"]])[0] for row in dataset]
    assert table["y_score"].tolist() == pytest.approx(alone, rel=1e-4)
    score = table["y_score"]
    entropies = -score * np.log(score) - (1 - score) * np.log(1 - score)
    assert table["uncertainty"].tolist() == pytest.approx(entropies.tolist())
    assert table["contrast"].tolist() == [
        lesion_contrast(np.asarray(row["image"]), np.asarray(row["mask"])) for row in dataset
    ]
    told = table[["group_id", "skin_tone"]].astype(object).where(table[["group_id", "skin_tone"]].notna(), None)
    assert told["group_id"].tolist() == ["patient-0", "patient-0", "patient-1", "patient-1", None]
    assert told["skin_tone"].tolist() == ["I-II", "III-IV", "V-VI", None, "I-II"]
    assert [child.name for child in (tmp_path / "run").iterdir()] == ["photos"]
    table.to_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)


@pytest.mark.parametrize("predict", [predict_segmentation, predict_classification])
def test_each_photo_is_decoded_and_converted_once(predict, segmenter, classifier, processor, monkeypatch):
    decoded, converted = [], []
    upright, decode = image_processing_fedd._upright_rgb, datasets.Image.decode_example

    def count(image):
        converted.extend([image] if image.format == "PNG" else [])
        return upright(image)

    def count_decoded(*arguments, **options):
        decoded.append(arguments)
        return decode(*arguments, **options)

    monkeypatch.setattr(datasets.Image, "decode_example", count_decoded)
    monkeypatch.setattr(image_processing_fedd, "_upright_rgb", count)

    predict(segmenter if predict is predict_segmentation else classifier, processor, make_dataset(5))

    assert len(decoded) == 2 * 5  # photo and mask
    assert len(converted) == 5


def test_stored_features_stand_for_the_backbone(segmenter, classifier, processor):
    dataset = make_dataset(3)
    pixel_values = processor([row["image"] for row in dataset], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        maps = segmenter.backbone(pixel_values).feature_maps
        pooled = pool_features(*classifier.backbone(pixel_values).feature_maps, classifier.config.pooled_size)
    of_photos = ([of_block[row].movedim(0, -1) for of_block in maps] for row in range(3))

    maps_of_model = predict_segmentation(segmenter, processor, dataset)
    scores_of_model = predict_classification(classifier, processor, dataset)
    for model in (segmenter, classifier):
        model.backbone.forward = None
    by_pixel = predict_segmentation(segmenter, processor, dataset, features=of_photos)
    by_image = predict_classification(classifier, processor, dataset, features=([vector] for vector in pooled))

    np.testing.assert_allclose(by_pixel["uncertainty"], maps_of_model["uncertainty"], atol=1e-5)
    assert (by_pixel["tp"] - maps_of_model["tp"]).abs().max() <= 2  # votes may turn on 1e-6
    np.testing.assert_allclose(by_image["y_score"], scores_of_model["y_score"], atol=1e-5)


@pytest.mark.parametrize("predict", [predict_segmentation, predict_classification])
def test_a_photo_whose_mask_has_another_size_is_refused(predict, segmenter, classifier, processor):
    model = segmenter if predict is predict_segmentation else classifier

    with pytest.raises(ValueError, match=r"photo-0.*of one size, got \(5, 5\) and \(20, 30\)"):
        predict(model, processor, make_dataset(1, mask_size=(5, 5)))
