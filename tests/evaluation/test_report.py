import json
import re
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest

from fedd_hf.evaluation.coverage import FLAG
from fedd_hf.evaluation.report import (
    HEADLINES,
    choose_rows,
    describe_machine,
    format_interval,
    read_report,
    write_report,
)
from fedd_hf.evaluation.text_tables import markdown_by_tone
from fedd_hf.evaluation.titles import TITLES


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = {"experiment": "x", "rows": [{"n": 3, "value": 0.1 + 0.2, "name": "I-II"}], "nothing": None}

    write_report(report, tmp_path / "report.json")

    assert read_report(tmp_path / "report.json") == report


def test_tables_become_lists_of_rows(tmp_path):
    table = pd.DataFrame({"skin_tone": ["all", "I-II"], "n": np.array([2, 1]), "value": [0.5, np.nan]})

    write_report({"by_tone": table}, tmp_path / "report.json")

    assert read_report(tmp_path / "report.json")["by_tone"] == [
        {"skin_tone": "all", "n": 2, "value": 0.5},
        {"skin_tone": "I-II", "n": 1, "value": None},
    ]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), np.float64("nan"), np.float32("nan")], ids=repr
)
def test_what_is_not_a_number_becomes_null(value, tmp_path):
    write_report({"deep": [{"value": value}, (value,)]}, tmp_path / "report.json")

    assert json.loads((tmp_path / "report.json").read_text()) == {"deep": [{"value": None}, [None]]}


@pytest.mark.parametrize("damage", [b'{"run": ', b"", b"\xff\xfe\x00binary"], ids=["cut", "empty", "binary"])
def test_a_damaged_report_is_refused_by_name(damage, tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(damage)

    with pytest.raises(ValueError, match=re.escape(f"{path} is not a report")):
        read_report(path)


def test_the_machine_is_described_by_versions_that_json_can_hold():
    machine = describe_machine()

    assert machine["torch"] == version("torch")
    assert machine["fedd-hf"] == version("fedd-hf")
    assert json.loads(json.dumps(machine)) == machine


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"value": 0.6124, "low": 0.54, "high": 0.6709}, "0.612 [0.540, 0.671]"),
        ({"value": 0.6124, "low": None, "high": None}, "0.612 [–]"),
        ({"value": 0.6124, "low": float("nan"), "high": float("nan")}, "0.612 [–]"),
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": float("nan"), "low": float("nan"), "high": float("nan")}, "–"),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, "0.000 [0.000, 0.000]"),
        ({"value": 0.6124, "low": 0.54, "high": 0.6709, "flag": ""}, "0.612 [0.540, 0.671]"),
        ({"value": 0.6124, "low": 0.54, "high": 0.6709, "flag": FLAG}, "0.612 [0.540, 0.671] †"),
        ({"value": 0.6124, "low": None, "high": None, "flag": FLAG}, "0.612 [–] †"),
        ({"value": None, "low": None, "high": None, "flag": FLAG}, "–"),
    ],
)
def test_intervals_are_formatted_with_a_dash_where_nothing_can_be_said(row, text):
    assert format_interval(row) == text


def row_of(metric, skin_tone, value=0.5, n=10, flag="", **more):
    return {
        "metric": metric,
        "skin_tone": skin_tone,
        "n": n,
        "value": value,
        "low": 0.4,
        "high": 0.6,
        "flag": flag,
    } | more


def test_a_table_by_tone_has_a_row_per_tone_and_a_column_per_metric():
    rows = [
        row_of("mean_iou", "all", 0.6, n=20),
        row_of("lesion_iou", "all", 0.5, n=20),
        row_of("mean_iou", "V-VI", 0.55, n=7),
        row_of("lesion_iou", "V-VI", None, n=7, low=None, high=None),
    ]

    assert markdown_by_tone(rows) == (
        "| skin tone | photos | mean IoU over classes | lesion IoU |\n"
        "| --- | --- | --- | --- |\n"
        "| all | 20 | 0.600 [0.400, 0.600] | 0.500 [0.400, 0.600] |\n"
        "| V-VI | 7 | 0.550 [0.400, 0.600] | – |\n"
    )


def test_flagged_rows_have_a_dagger_that_is_explained_below_the_table():
    table = markdown_by_tone([row_of("auroc", "all"), row_of("auroc", "I-II", flag=FLAG)])

    *_, of_all, of_tone, empty, note = table.splitlines()
    assert of_all.endswith("0.500 [0.400, 0.600] |")
    assert of_tone.endswith("0.500 [0.400, 0.600] † |")
    assert empty == ""
    assert note == "† coverage < 90 %, by simulation: too few photos to trust the interval."


def test_only_the_headline_metrics_are_shown_unless_others_are_asked_for():
    metrics = ["mean_iou", "iou_lesion", "auroc", "accuracy", "balanced_accuracy", "balanced_accuracy_test_youden"]
    rows = [row_of(metric, tone) for tone in ("all", "I-II") for metric in metrics]

    header = markdown_by_tone(rows).splitlines()[0]
    chosen = markdown_by_tone(rows, ["accuracy", "auroc", "specificity"]).splitlines()[0]

    assert header == "| skin tone | photos | mean IoU over classes | malignancy AUROC | balanced accuracy |"
    assert chosen == "| skin tone | photos | malignancy AUROC | accuracy |"
    assert {row["metric"] for row in choose_rows(rows)} == {"mean_iou", "auroc", "balanced_accuracy"}


def test_rows_of_reports_without_flags_are_still_read():
    row = row_of("auroc", "all")
    del row["flag"]

    assert "| all | 10 | 0.500 [0.400, 0.600] |" in markdown_by_tone([row])


def test_every_headline_metric_has_a_title():
    assert set(HEADLINES) <= set(TITLES)
