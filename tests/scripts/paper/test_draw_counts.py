import pytest
from matplotlib.colors import to_hex

from draw_counts import MAX_DISEASES, draw_counts
from fedd_hf.evaluation.by_tone import TONES
from fedd_hf.figures.style import TONE_COLOURS

DDI = {"I-II": (159, 49), "III-IV": (167, 74), "V-VI": (159, 48)}


def disease_row(disease, tone, photos):
    return {"disease": disease, "skin_tone": tone, "photos": photos}


@pytest.fixture
def counts():
    rows = [
        {"skin_tone": tone, "malignant": malignant, "photos": photos[malignant]}
        for tone, photos in DDI.items()
        for malignant in (False, True)
    ]
    diseases = [disease_row("melanoma", "I-II", 2), disease_row("basal-cell-carcinoma", "I-II", 3)]
    diseases += [disease_row("basal-cell-carcinoma", "V-VI", 4)]
    return {"by_malignancy": rows, "malignant_diseases": diseases}


def names(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_photos_are_counted_by_diagnosis_within_each_tone(counts):
    left, _ = draw_counts(counts).axes

    benign, malignant = left.containers
    assert (benign.get_label(), malignant.get_label()) == ("benign", "malignant")
    assert [bar.get_height() for bar in benign] == [159, 167, 159]
    assert [bar.get_height() for bar in malignant] == [49, 74, 48]


def test_each_tone_is_named_with_its_number_of_photos(counts):
    left, _ = draw_counts(counts).axes

    ticks = [label.get_text() for label in left.get_xticklabels()]
    assert ticks == ["I-II\nn = 208", "III-IV\nn = 241", "V-VI\nn = 207"]
    assert left.get_title() == "Diagnosis (n = 656)"


def test_diseases_are_stacked_by_tone_the_most_frequent_first(counts):
    _, right = draw_counts(counts).axes

    light, medium, dark = right.containers
    assert names(right) == ["basal cell carcinoma", "melanoma"]
    assert [(bar.get_x(), bar.get_width()) for bar in light] == [(0, 3), (0, 2)]
    assert [bar.get_width() for bar in medium] == [0, 0]
    assert [(bar.get_x(), bar.get_width()) for bar in dark] == [(3, 4), (2, 0)]
    assert [to_hex(bars[0].get_facecolor()).upper() for bars in right.containers] == [TONE_COLOURS[t] for t in TONES]
    assert right.get_ylim()[0] > right.get_ylim()[1]  # the first one on top


def test_legends_name_diagnoses_and_tones_with_their_malignant_photos(counts):
    left, right = draw_counts(counts).legends

    assert [text.get_text() for text in left.get_texts()] == ["benign", "malignant"]
    assert [text.get_text() for text in right.get_texts()] == ["I-II (n = 5)", "III-IV (n = 0)", "V-VI (n = 4)"]


def test_the_rarest_of_many_diseases_are_drawn_together_and_none_is_lost(counts):
    counts["malignant_diseases"] = [disease_row(f"d{rank:02d}", "I-II", 40 - rank) for rank in range(MAX_DISEASES + 3)]

    _, right = draw_counts(counts).axes

    drawn = [bar.get_width() for bar in right.containers[0]]
    assert names(right)[-2:] == ["d23", "4 others"]
    assert len(drawn) == MAX_DISEASES
    assert drawn[-1] == 16 + 15 + 14 + 13
    assert sum(drawn) == sum(40 - rank for rank in range(MAX_DISEASES + 3))
