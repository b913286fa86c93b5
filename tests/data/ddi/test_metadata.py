import pytest

from fedd_hf.data.ddi.local_copy import read_ddi_metadata

TABLE = """\
,DDI_ID,DDI_file,skin_tone,malignant,disease
0,2,000002.png,56,True,melanoma
1,1,000001.png,12,False,melanocytic-nevi
2,3,000003.png,34,False,
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "ddi_metadata.csv"
        path.write_text(text)
        return path

    return write


def test_rows_come_in_the_order_of_their_ids_with_tone_and_diagnosis(write):
    metadata = read_ddi_metadata(write(TABLE))

    assert metadata.to_dict("records") == [
        row | {"file": f"{row['image_id']}.png"}
        for row in (
            {"image_id": "000001", "skin_tone": "I-II", "malignant": False, "disease": "melanocytic-nevi"},
            {"image_id": "000002", "skin_tone": "V-VI", "malignant": True, "disease": "melanoma"},
            {"image_id": "000003", "skin_tone": "III-IV", "malignant": False, "disease": None},
        )
    ]


@pytest.mark.parametrize("kind", [str, lambda value: str(int(value == "True"))], ids=["words", "numbers"])
def test_the_older_header_is_read_too(write, kind):
    older = TABLE.replace("malignant", "malignancy(malig=1)").replace("True", kind("True"))
    older = older.replace("False", kind("False"))

    assert read_ddi_metadata(write(older))["malignant"].tolist() == [False, True, False]


@pytest.mark.parametrize("column", ["DDI_file", "skin_tone", "malignant", "disease"])
def test_a_missing_column_is_named(write, column):
    with pytest.raises(ValueError, match=rf"lacks the columns \['{column}'\]; it has .*'DDI_ID'"):
        read_ddi_metadata(write(TABLE.replace(column, "other")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("000002.png", "2.png", r"`DDI_file` must be like 000001.png, not so: \['2.png'\]"),
        ("000002.png", "000001.png", r"`DDI_file` must occur once, not so: \['000001.png'\]"),
        ("56", "5", r"`skin_tone` must be one of \[12, 34, 56\], not so: \['000002.png'\]"),
        ("56", "", r"`skin_tone` must be one of \[12, 34, 56\], not so: \['000002.png'\]"),
        ("True", "maybe", r"`malignant` must be True or False, not so: \['000002.png'\]"),
    ],
)
def test_a_row_that_is_not_of_ddi_is_named(write, old, new, message):
    with pytest.raises(ValueError, match=message):
        read_ddi_metadata(write(TABLE.replace(old, new)))
