"""The page on which both models look at a photo, in a browser at the width of a desk and of a phone."""

import io
import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedd_hf import demo
from fedd_hf.cli import app
from fedd_hf.demo import Examiner, build_demo, launch
from fedd_hf.image_processing_fedd import read_image
from fedd_hf.prediction import open_model

PLACE = 0x8825  # EXIF tag of where a photo was taken


@pytest.fixture(scope="module")
def report(quickstart):
    return json.loads((quickstart / "report.json").read_text())


@pytest.fixture(scope="module")
def examiner(quickstart, report):
    return Examiner(
        open_model(str(quickstart / "segmentation")), open_model(str(quickstart / "classification")), report
    )


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Where gradio keeps what is uploaded."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(examiner, quickstart, uploads):
    """The address of the page; what is uploaded is deleted after two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setattr(demo, "KEPT_SECONDS", 2)
        page = build_demo(examiner, sorted((quickstart / "photos").iterdir()))
        launch(page, wait=False)
        yield page.local_url
        page.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page as a visitor sees it; whatever goes wrong in the browser fails the test."""
    tabs, errors = [], []

    def open_tab(width):
        tabs.append(tab := browser.new_page(viewport={"width": width, "height": 900}))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(address)
        tab.wait_for_selector("#photo")
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()
    assert errors == []


@pytest.fixture
def desk(open_page):
    return open_page(1280)


def upload(tab, path):
    tab.set_input_files("#photo input[type=file]", str(path))


def picture_of(tab, name):
    """The picture that the page shows, as the browser got it."""
    shown = tab.wait_for_selector(f"#{name} img")
    return Image.open(io.BytesIO(tab.request.get(shown.get_attribute("src")).body()))


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_photo_is_segmented_scored_and_judged_on_a_page_that_warns(open_page, quickstart, examiner, width):
    page = open_page(width)
    start = time.monotonic()
    upload(page, next((quickstart / "photos").iterdir()))
    page.wait_for_selector("#verdict li")

    assert time.monotonic() - start < 10
    assert picture_of(page, "overlay").size == picture_of(page, "doubt").size == (64, 64)
    assert set(page.inner_text("#areas").split()) >= set(examiner.labels.values())
    assert {"benign", "malignant"} <= set(page.inner_text("#score").split())
    assert "held-out photos" in page.inner_text("#verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_selector("text=by skin tone (95 % intervals)")
    text = page.inner_text("body")
    assert "Research only. Not a medical device, not for diagnosis." in text
    assert "painted photos, by skin tone (95 % intervals)" in text
    assert "V-VI" in text


def test_the_slider_makes_the_map_opaque(desk, quickstart, examiner):
    path = next((quickstart / "photos").iterdir())
    upload(desk, path)
    before = desk.wait_for_selector("#overlay img").get_attribute("src")
    desk.wait_for_selector("#verdict li")
    desk.fill("#opacity input[type=number]", "1")
    desk.press("#opacity input[type=number]", "Enter")
    desk.wait_for_function("(old) => document.querySelector('#overlay img').src !== old", arg=before)

    opaque = examiner.draw_overlay(examiner.examine(read_image(path)), 1.0)
    np.testing.assert_array_equal(np.asarray(picture_of(desk, "overlay").convert("RGB")), np.asarray(opaque))


def test_a_file_that_cannot_be_examined_is_told_in_one_sentence(desk, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    (tmp_path / "large.png").write_bytes(b"0" * 21_000_000)

    messages = {"tiny": "at least 2 x 2 pixels", "broken": "not an image that can be read", "large": "20"}
    for name, message in messages.items():
        desk.reload()
        desk.wait_for_selector("#photo")
        upload(desk, tmp_path / f"{name}.png")
        desk.wait_for_selector(".toast-body.error")
        assert message in desk.inner_text(".toast-body.error")
        assert desk.query_selector("#overlay img") is None


def test_nothing_of_a_photo_is_kept(address, browser, uploads, tmp_path):
    photo = Image.effect_noise((96, 96), 80).convert("RGB")
    exif = Image.Exif()
    exif[PLACE] = {1: "N"}
    photo.save(tmp_path / "patient.jpg", exif=exif)
    tab = browser.new_page()
    tab.goto(address)
    upload(tab, tmp_path / "patient.jpg")
    tab.wait_for_selector("#verdict li")
    assert not picture_of(tab, "overlay").getexif()
    tab.close()

    deadline = time.monotonic() + 30
    while left := [path for path in uploads.rglob("*") if path.is_file() and "painted" not in path.name]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


@pytest.mark.parametrize("path", ["https://example.org/photo.png", "/etc/hostname"])
def test_a_request_cannot_name_an_address_or_a_file_of_the_server(address, path):
    session = {"session_hash": "hostile", "fn_index": 0}
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, 0.5]
    body = json.dumps(session | {"data": data}).encode()
    join = urllib.request.Request(
        f"{address}gradio_api/queue/join", body, headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(join, timeout=20).read()
    with urllib.request.urlopen(f"{address}gradio_api/queue/data?session_hash=hostile", timeout=20) as stream:
        told = [json.loads(line[6:]) for line in stream.read().decode().splitlines() if line.startswith("data: ")]

    (done,) = [message for message in told if message["msg"] == "process_completed"]
    assert not done["success"]


def test_files_of_the_server_are_not_served(address, quickstart):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}gradio_api/file={quickstart / 'report.json'}", timeout=20)


def test_a_report_that_does_not_say_when_to_abstain_is_refused(examiner, report):
    old = report | {"classification": {"by_tone": []}}

    with pytest.raises(ValueError, match="The report lacks 'abstain_above'. Type `fedd quickstart` again"):
        Examiner(examiner.segmenter, examiner.classifier, old)


def test_a_model_abstains_where_it_is_less_sure_than_of_four_in_five_photos(examiner, quickstart):
    with Image.open(next((quickstart / "photos").iterdir())) as photo:
        finding = examiner.examine(photo.convert("RGB"))
    examiner.limits, kept = {"segmentation": 9.0, "classification": 0.0}, examiner.limits
    judged = examiner.judge(finding)
    examiner.limits = kept

    assert "Segmentation answers: it is as sure as it is of four in five" in judged
    assert "Malignancy **abstains**: it is less sure than of four in five" in judged


def test_the_command_needs_a_quickstart(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--quickstart", str(tmp_path / "none")])

    assert result.exit_code == 2
    assert "Type `fedd quickstart` first" in " ".join(result.output.replace("│", " ").split())


def test_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "fedd_hf.demo", None)

    result = CliRunner().invoke(app, ["demo", "--quickstart", str(tmp_path)])

    assert result.exit_code == 1
    assert 'pip install "fedd-hf[demo]"' in result.output
