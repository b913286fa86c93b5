import pytest

from fedd_hf.data.sources.tables import FITZPATRICK, MALIGNANT, read_rows, read_table, unpaired


@pytest.fixture
def write(tmp_path):
    def write_table(text, name="metadata.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_table


def test_cells_stay_as_they_are_written_and_empty_ones_are_left_out(write):
    rows = read_rows(write("image_id,age,disease\n0012,63.0,\n"), {"image_id": ()}, [])

    assert [row.cells for row in rows] == [{"image_id": "0012", "age": "63.0"}]
    assert rows[0].key == "0012"


def test_a_photo_that_is_named_again_or_not_at_all_is_told(write):
    path = write("image_id,dx\na,nv\n,mel\na,nv\n")
    problems = []

    rows = read_rows(path, {"image_id": ()}, problems)

    assert [row.key for row in rows] == ["a", "a"]
    assert problems == [f"{path}, line 3: `image_id` is empty.", f"{path}, line 4: 'a' occurs again."]


def test_a_table_without_a_column_that_names_the_photo_is_refused(write):
    with pytest.raises(ValueError, match=r"needs a column `file_name` or `image_id`; it has \['id'\]"):
        read_rows(write("id\n1\n"), {"file_name": (), "image_id": ()}, [])


def test_columns_that_are_needed_beside_it_are_refused_by_name(write):
    with pytest.raises(ValueError, match=r"lacks the columns \['dx'\]; it has \['image_id'\]"):
        read_rows(write("image_id\na\n"), {"image_id": ("dx",)}, [])


def test_a_table_without_rows_is_refused(write):
    with pytest.raises(ValueError, match=r"metadata\.csv has no rows"):
        read_table(write("image_id\n"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\xd8binary", b'a,b\n"1,2\n'], ids=["empty", "binary", "quote"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "metadata.csv").write_bytes(content)

    with pytest.raises(ValueError, match=r"metadata\.csv is no CSV file that can be read"):
        read_table(tmp_path / "metadata.csv")


def test_a_missing_table_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no table at .*labels\.csv"):
        read_table(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("1", True), ("1.0", True), ("TRUE", True), ("Benign", False), (" 0", False), ("", None)],
)
def test_a_cell_means_the_same_in_any_case_and_as_a_decimal(write, text, meaning):
    rows = read_rows(write(f"image_id,malignant\na,{text}\n"), {"image_id": ()}, [])

    assert rows[0].meaning("malignant", MALIGNANT) is meaning


def test_fitzpatrick_types_are_read_as_numbers_and_as_numerals():
    assert FITZPATRICK == {
        "1": "I-II",
        "2": "I-II",
        "3": "III-IV",
        "4": "III-IV",
        "5": "V-VI",
        "6": "V-VI",
        "I": "I-II",
        "II": "I-II",
        "III": "III-IV",
        "IV": "III-IV",
        "V": "V-VI",
        "VI": "V-VI",
    }


def test_rows_and_photos_that_lack_each_other_are_told(write, tmp_path):
    path = write("image_id\na\nb\n")
    rows = read_rows(path, {"image_id": ()}, [])

    problems = unpaired({"b": tmp_path / "b.jpg", "c": tmp_path / "c.jpg"}, rows, path)

    assert problems == [f"{path}, line 2: there is no photo 'a'.", f"{tmp_path / 'c.jpg'} has no row in {path}."]
