import io
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassStatScores
from transformers import pipeline

from fedd_hf import FEDDImageProcessor, prediction
from fedd_hf.data.contrast import lesion_contrast
from fedd_hf.data.schema import make_dataset as make_rows
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


def test_counts_are_those_of_torchmetrics():
    rng = np.random.default_rng(3)
    mask = rng.choice([0, 1, 2, 4, 255], (40, 50)).astype(np.uint8)
    segmentation_map = rng.integers(0, 5, (40, 50), dtype=np.uint8)

    counts = count_pixels(mask, segmentation_map, num_labels=5)

    metric = MulticlassStatScores(num_classes=5, average=None, ignore_index=255)
    expected = metric(torch.from_numpy(segmentation_map).long(), torch.from_numpy(mask).long())
    assert [[row[name] for name in ("tp", "fp", "tn", "fn")] for row in counts] == expected[:, :4].tolist()


def test_counts_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    mask, segmentation_map = rng.integers(0, 5, (2, 40, 50), dtype=np.uint8)

    counts = count_pixels(mask, segmentation_map, num_labels=5)

    confusion = confusion_matrix(mask.flatten(), segmentation_map.flatten(), labels=range(5))
    assert [row["tp"] for row in counts] == np.diag(confusion).tolist()
    assert [row["tp"] + row["fn"] for row in counts] == confusion.sum(axis=1).tolist()
    assert [row["tp"] + row["fp"] for row in counts] == confusion.sum(axis=0).tolist()


def test_each_class_counts_every_pixel_that_is_not_255():
    mask = np.array([[0, 1, 255], [4, 255, 2]], dtype=np.uint8)

    counts = count_pixels(mask, np.zeros((2, 3), dtype=np.uint8), num_labels=5)

    assert [sum(row.values()) for row in counts] == [4] * 5


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


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_upper_one():
    confidence = np.array([[0.2, np.nextafter(0.2, 0), 1.0]])

    (counts,) = count_confidences(np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8), confidence, num_labels=1)

    assert {k: n for k, n in enumerate(counts["bin_pixels"].tolist()) if n} == {2: 1, 3: 1, 14: 1}


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


def test_confidence_comes_back_at_the_size_of_each_photo(segmenter, processor, photos):
    segmented = list(stream_segmentations(segmenter, processor, photos, with_confidence=True))

    assert [photo.confidence.shape for photo in segmented] == [(20, 30), (45, 12), (9, 9)]
    for photo in segmented:
        assert (photo.confidence > 0).all()
        assert (photo.confidence <= 1).all()


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


def test_confidence_is_not_worked_out_unless_it_is_asked_for(segmenter, processor, photos, monkeypatch):
    monkeypatch.setattr(prediction, "_confidence", None)
    passes = []
    segmenter.register_forward_hook(lambda *_: passes.append(_[-1].member_logits))

    assert [photo.confidence for photo in segment_photos(segmenter, processor, photos)] == [None] * 3
    assert passes
    assert all(member_logits is None for member_logits in passes)


# --- maps and scores -------------------------------------------------------------------------------------------------


def test_maps_come_back_at_the_size_of_each_photo(segmenter, processor, photos):
    segmented = segment_photos(segmenter, processor, photos)

    assert [photo.segmentation_map.shape for photo in segmented] == [(20, 30), (45, 12), (9, 9)]
    assert {photo.segmentation_map.dtype for photo in segmented} == {np.dtype("uint8")}


def test_maps_are_the_same_in_a_batch_and_alone(segmenter, processor, photos):
    together = segment_photos(segmenter, processor, photos)

    for photo, of_batch in zip(photos, together, strict=True):
        (alone,) = segment_photos(segmenter, processor, [photo])
        assert (alone.segmentation_map == of_batch.segmentation_map).mean() > 0.99  # votes may turn on 1e-6
        assert alone.uncertainty == pytest.approx(of_batch.uncertainty, rel=1e-4)


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


def test_members_that_agree_leave_no_uncertainty(segmenter, processor, photos):
    for parameter in segmenter.decode_head.parameters():
        torch.nn.init.zeros_(parameter)

    segmented = segment_photos(segmenter, processor, photos)

    assert [photo.uncertainty for photo in segmented] == [0.0, 0.0, 0.0]


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


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_predictions_do_not_depend_on_the_size_of_batches(segmenter, classifier, processor, batch_size):
    segmented = segment_photos(segmenter, processor, draw_photos(7), batch_size)
    scores = score_photos(classifier, processor, draw_photos(7), batch_size)

    expected = segment_photos(segmenter, processor, draw_photos(7))
    for photo, same in zip(segmented, expected, strict=True):
        assert (photo.segmentation_map == same.segmentation_map).mean() > 0.99  # votes may turn on 1e-6
        assert photo.uncertainty == pytest.approx(same.uncertainty, abs=1e-6)
    assert scores == pytest.approx(score_photos(classifier, processor, draw_photos(7)), abs=1e-6)


def test_no_photos_are_no_predictions(segmenter, classifier, processor):
    assert segment_photos(segmenter, processor, []) == []
    assert score_photos(classifier, processor, []) == []


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


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_progress_is_shown_in_photos(task, segmenter, classifier, processor, monkeypatch):
    shown = []
    tqdm = prediction.tqdm

    def note(*arguments, **options):
        shown.append(tqdm(*arguments, **options))
        return shown[0]

    monkeypatch.setattr(prediction, "tqdm", note)
    if task == "segmentation":
        predict_segmentation(segmenter, processor, make_dataset(5), batch_size=2)
    else:
        predict_classification(classifier, processor, make_dataset(5), batch_size=2)

    assert (shown[0].unit, shown[0].total, shown[0].n) == ("photo", 5, 5)


# --- predictions tables ----------------------------------------------------------------------------------------------


def test_segmentation_table_has_a_row_per_image_and_class(segmenter, processor):
    table = predict_segmentation(segmenter, processor, make_dataset(7), batch_size=3)

    facts = ["uncertainty", "contrast", "photo_path", "truth_path", "map_path"]
    counts = ["tp", "fp", "fn", "tn", *BINS]
    assert list(table) == ["image_id", "group_id", "skin_tone", "label", *counts, *facts]
    assert table["image_id"].tolist() == [f"photo-{index}" for index in range(7) for _ in LABELS]
    assert table["label"].tolist() == [*LABELS] * 7


def test_segmentation_table_counts_what_the_written_maps_say(segmenter, processor, tmp_path):
    dataset = make_dataset(3)

    table = predict_segmentation(segmenter, processor, dataset, tmp_path)

    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == [f"photo-{index}.png" for index in range(3)]
    for row in dataset:
        segmentation_map = np.array(Image.open(tmp_path / "maps" / f"{row['image_id']}.png"))
        counted = table[table["image_id"] == row["image_id"]][["tp", "fp", "fn", "tn"]].to_dict("records")
        mask = np.asarray(row["mask"])
        assert segmentation_map.shape == mask.shape
        assert counted == [count_by_hand(mask, segmentation_map, label) for label in range(5)]


def test_bins_of_the_table_add_up_to_its_counts(segmenter, processor):
    table = predict_segmentation(segmenter, processor, make_dataset(3))

    pixels, correct, confidence = (np.stack(table[column]) for column in BINS)
    assert pixels.shape == (15, 15)
    assert pixels.sum(axis=1).tolist() == (table["tp"] + table["fp"]).tolist()
    assert correct.sum(axis=1).tolist() == table["tp"].tolist()
    assert (confidence >= pixels * np.arange(15) / 15 - 1e-6).all()
    assert (confidence <= pixels * np.arange(1, 16) / 15 + 1e-6).all()


def test_contrast_is_that_of_the_photo_and_its_true_mask(segmenter, classifier, processor):
    dataset = make_dataset(3)
    expected = [lesion_contrast(np.asarray(row["image"]), np.asarray(row["mask"])) for row in dataset]

    by_pixel = predict_segmentation(segmenter, processor, dataset).drop_duplicates("image_id")
    by_image = predict_classification(classifier, processor, dataset)

    assert by_pixel["contrast"].tolist() == by_image["contrast"].tolist() == expected


def test_a_photo_without_a_mask_is_scored_and_has_no_contrast(classifier, processor):
    rows = [{"image_id": "bare", "image": png(np.zeros((9, 9, 3), np.uint8)), "malignant": True}]

    table = predict_classification(classifier, processor, make_rows(rows, source="noise"))

    assert table["contrast"].isna().all()
    assert 0 <= table["y_score"].item() <= 1


def test_groups_of_photos_are_in_the_tables(segmenter, classifier, processor):
    dataset = make_dataset(5)

    by_pixel = predict_segmentation(segmenter, processor, dataset).drop_duplicates("image_id")
    by_image = predict_classification(classifier, processor, dataset)

    for table in (by_pixel, by_image):
        groups = [None if pd.isna(group) else group for group in table["group_id"]]
        assert groups == ["patient-0", "patient-0", "patient-1", "patient-1", None]


def test_uncertainty_of_a_score_is_its_entropy(classifier, processor):
    table = predict_classification(classifier, processor, make_dataset(3))

    for score, uncertainty in zip(table["y_score"], table["uncertainty"], strict=True):
        assert uncertainty == pytest.approx(-score * np.log(score) - (1 - score) * np.log(1 - score))


@pytest.mark.parametrize(("score", "entropy"), [(0.0, 0.0), (1.0, 0.0), (0.5, np.log(2))])
def test_entropy_of_a_certain_score_is_0(classifier, processor, monkeypatch, score, entropy):
    monkeypatch.setattr(prediction, "_score", lambda output: score)

    assert predict_classification(classifier, processor, make_dataset(1))["uncertainty"].item() == entropy


# --- pictures of the tables ------------------------------------------------------------------------------------------


def test_paths_lead_from_the_folder_of_the_table_to_photo_truth_and_map(segmenter, processor, tmp_path):
    dataset = make_dataset(2)

    table = predict_segmentation(segmenter, processor, dataset, tmp_path).drop_duplicates("image_id")

    for row, (_, paths) in zip(dataset, table[PATHS].iterrows(), strict=True):
        assert paths.tolist() == [f"{folder}/{row['image_id']}.png" for folder in ("photos", "masks", "maps")]
        photo, truth, segmentation_map = (np.asarray(Image.open(tmp_path / path)) for path in paths)
        np.testing.assert_array_equal(photo, np.asarray(row["image"]))
        np.testing.assert_array_equal(truth, np.asarray(row["mask"]))
        assert segmentation_map.shape == truth.shape


def test_a_table_of_scores_leads_to_the_photos(classifier, processor, tmp_path):
    table = predict_classification(classifier, processor, make_dataset(2), tmp_path)

    assert table["photo_path"].tolist() == ["photos/photo-0.png", "photos/photo-1.png"]
    assert [child.name for child in tmp_path.iterdir()] == ["photos"]


def test_without_a_folder_nothing_is_written(segmenter, classifier, processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    by_pixel = predict_segmentation(segmenter, processor, make_dataset(2))
    by_image = predict_classification(classifier, processor, make_dataset(2))

    assert by_pixel[PATHS].isna().all(axis=None)
    assert by_image["photo_path"].isna().all()
    assert list(tmp_path.iterdir()) == []


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


# --- tones, parquet, errors ------------------------------------------------------------------------------------------


def test_rows_without_a_tone_are_kept_without_one(segmenter, classifier, processor):
    dataset = make_dataset(8)

    by_pixel = predict_segmentation(segmenter, processor, dataset).drop_duplicates("image_id")
    by_image = predict_classification(classifier, processor, dataset)

    for table in (by_pixel, by_image):
        assert len(table) == 8
        tones = [None if pd.isna(tone) else tone for tone in table["skin_tone"]]
        assert tones == ["I-II", "III-IV", "V-VI", None] * 2


def test_a_dataset_without_any_tone_is_predicted(classifier, processor):
    table = predict_classification(classifier, processor, make_dataset(2, tones=(None,)))

    assert table["skin_tone"].isna().all()
    assert len(table) == 2


def test_classification_table_has_a_row_per_image(classifier, processor):
    dataset = make_dataset(7)

    table = predict_classification(classifier, processor, dataset, batch_size=3)

    facts = ["uncertainty", "contrast", "photo_path"]
    assert list(table) == ["image_id", "group_id", "skin_tone", "y_true", "y_score", *facts]
    assert table["image_id"].tolist() == dataset["image_id"]
    assert table["y_true"].tolist() == [1, 0, 0, 1, 0, 0, 1]
    alone = [score_photos(classifier, processor, [row["image"]])[0] for row in dataset]
    assert table["y_score"].tolist() == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("folder", [None, "run"])
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_tables_survive_parquet(task, folder, segmenter, classifier, processor, tmp_path):
    dataset, output_dir = make_dataset(4), None if folder is None else tmp_path / folder
    if task == "segmentation":
        table = predict_segmentation(segmenter, processor, dataset, output_dir)
    else:
        table = predict_classification(classifier, processor, dataset, output_dir)

    table.to_parquet(Path(tmp_path) / "predictions.parquet")

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)


def test_a_labelled_photo_whose_mask_has_another_size_is_refused(segmenter, processor):
    with pytest.raises(ValueError, match=r"photo-0.*of one size, got \(5, 5\) and \(20, 30\)"):
        predict_segmentation(segmenter, processor, make_dataset(1, mask_size=(5, 5)))


def test_a_scored_photo_whose_mask_has_another_size_is_refused(classifier, processor):
    with pytest.raises(ValueError, match=r"photo-0.*of one size, got \(5, 5\) and \(20, 30\)"):
        predict_classification(classifier, processor, make_dataset(1, mask_size=(5, 5)))
