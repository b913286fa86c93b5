"""hub_cards/handler.py: requests and answers in the Hub's own formats, asked over HTTP by the Hub's own client."""

import base64
import io
import json
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from fedd_hf.data.painted import paint_dataset
from fedd_hf.image_processing_fedd import FEDDImageProcessor
from fedd_hf.prediction import score_photos, segment_photos

SOURCE = Path(__file__).parents[2] / "hub_cards" / "handler.py"


@pytest.fixture(scope="module")
def module():
    return runpy.run_path(str(SOURCE))


@pytest.fixture(scope="module")
def photo():
    (row,) = paint_dataset(num_per_tone=1, seed=0, size=48).select([0])
    return row["image"].resize((60, 40))


@pytest.fixture(scope="module")
def jpeg(photo):
    file = io.BytesIO()
    photo.save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def open_handler(module, tmp_path):
    """Save a model, and open the folder as an endpoint does."""

    def open_folder(model):
        model.save_pretrained(tmp_path)
        FEDDImageProcessor(size=model.config.image_size).save_pretrained(tmp_path)
        return module["EndpointHandler"](str(tmp_path))

    return open_folder


@pytest.fixture
def segment(open_handler, segmenter):
    return open_handler(segmenter)


@pytest.fixture
def classify(open_handler, classifier):
    return open_handler(classifier)


@pytest.fixture
def serve(monkeypatch):
    """Serve a handler as Inference Endpoints do: raw bytes or JSON in, JSON out, its errors as status 400."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # of the client, which asks this machine
    servers = []

    def start(handler):
        class Service(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_json = self.headers.get("Content-Type") == "application/json"
                try:
                    status, answer = 200, handler(json.loads(body) if is_json else {"inputs": body})
                except ValueError as error:
                    status, answer = 400, {"error": str(error)}
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return InferenceClient(model=f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def read_mask(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_the_client_of_the_hub_gets_a_mask_of_each_class(serve, segment, jpeg):
    segments = serve(segment).image_segmentation(jpeg)

    model, processor = segment.model, segment.processor
    (expected,) = segment_photos(model, processor, [Image.open(io.BytesIO(jpeg))])
    found = {part.label: np.asarray(part.mask) for part in segments}
    assert set(found) == {model.config.id2label[index] for index in np.unique(expected.segmentation_map)}
    for index, label in model.config.id2label.items():
        if label in found:
            np.testing.assert_array_equal(found[label], 255 * (expected.segmentation_map == index))
    assert all(0 < part.score <= 1 for part in segments)


def test_the_client_of_the_hub_gets_the_score_of_each_class_the_most_likely_first(serve, classify, jpeg):
    first, second = serve(classify).image_classification(jpeg)

    (malignancy,) = score_photos(classify.model, classify.processor, [Image.open(io.BytesIO(jpeg))])
    assert {first.label: first.score, second.label: second.score} == pytest.approx(
        {"benign": 1 - malignancy, "malignant": malignancy}
    )
    assert first.score >= second.score


def test_parameters_travel_with_a_photo_as_base64(serve, segment, classify, jpeg):
    assert serve(segment).image_segmentation(jpeg, threshold=1.0) == []
    (best,) = serve(classify).image_classification(jpeg, top_k=1)

    assert best.score >= 0.5


def test_what_an_endpoint_refuses_is_an_answer_of_one_sentence(serve, segment):
    with pytest.raises(HfHubHTTPError) as told:
        serve(segment).image_segmentation(b"no photo")

    assert told.value.response.status_code == 400
    assert "The photo is not an image that can be read" in told.value.response.json()["error"]


def test_a_photo_may_be_bytes_base64_a_data_address_or_a_pil_image(segment, jpeg):
    text = base64.b64encode(jpeg).decode()
    answers = [
        segment({"inputs": given})
        for given in (jpeg, text, f"data:image/jpeg;base64,{text}", Image.open(io.BytesIO(jpeg)))
    ]

    assert answers[1:] == answers[:1] * 3


def test_pixels_below_the_mask_threshold_are_left_out(segment, jpeg):
    answers = [segment({"inputs": jpeg, "parameters": {"mask_threshold": least}}) for least in (0.0, 0.25)]
    every, sure = ({part["label"]: read_mask(part["mask"]) for part in answer} for answer in answers)

    assert sum(mask.sum() for mask in sure.values()) < sum(mask.sum() for mask in every.values())
    assert all((mask <= every[label]).all() for label, mask in sure.items())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "`inputs` must be a photo: base64, bytes or a PIL image, got NoneType"),
        ({"inputs": "https://example.org/photo.jpg"}, "not base64: .* Addresses are not fetched"),
        ({"inputs": b""}, "The photo is not an image that can be read"),
        ({"inputs": b"0" * (20 * 2**20 + 1)}, "at most 20,971,520 bytes"),
        ({"inputs": Image.new("1", (5_001, 5_000))}, "at most 25,000,000 pixels, got 5001 x 5000"),
        ({"inputs": Image.new("RGB", (8, 8)), "parameters": {"treshold": 0.5}}, "'treshold'"),
        ({"inputs": Image.new("RGB", (8, 8)), "parameters": {"threshold": 2}}, r"`threshold` must lie in \[0, 1\]"),
        ({"inputs": Image.new("RGB", (8, 8)), "parameters": {"threshold": "high"}}, "`parameters` cannot be"),
    ],
)
def test_a_wrong_request_is_told_what_is_allowed(segment, request_, message):
    with pytest.raises(ValueError, match=message):
        segment(request_)
