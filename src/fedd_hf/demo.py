"""A page on which both models look at one photo: what `fedd demo` opens and the Space shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from matplotlib import colormaps
from PIL import Image
from scipy.special import entr

from .evaluation.text_tables import markdown_by_tone
from .figures.overlays import OPACITY, overlay
from .figures.style import CLASS_COLOURS
from .image_processing_fedd import read_image
from .prediction import SegmentedPhoto, score_photos, stream_segmentations

MAX_FILE_SIZE = "20mb"
MAX_PIXELS = 25_000_000
SHOWN_SIZE = 768  # longer side of the pictures on the page, in pixels
HEIGHT = 320  # of pictures on the page, in pixels
KEPT_SECONDS = 60  # an upload lives as long at least; older ones are looked for as often
WARNING = (
    "**Research only. Not a medical device, not for diagnosis.** The score is not calibrated for any clinic, and a "
    "low one rules nothing out: whoever worries about a lesion should show it to a physician. Do not upload photos "
    f"that identify a person. Your photo is not kept: it is deleted within {2 * KEPT_SECONDS} seconds."
)
WIDE_TABLES = "table { display: block; overflow-x: auto; white-space: nowrap }"


def make_photo_input() -> gr.Image:
    """Make the place for an upload, which gives the path of a file as it came and never fetches one from elsewhere.

    Gradio opens files of any format, and fetches whatever address a request names instead of an upload. Its methods
    are replaced on the instance, as for a subclass gradio would write a `.pyi` file beside this one.
    """
    photo = gr.Image(label="Photo", sources=["upload"], elem_id="photo", height=HEIGHT)
    move = photo.async_move_resource_to_block_cache

    async def move_upload(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http://", "https://")):
            raise gr.Error("Photos are not fetched from addresses: upload the file.", print_exception=False)
        return await move(url_or_file_path)

    def keep_path(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    photo.async_move_resource_to_block_cache = move_upload  # type: ignore[method-assign]
    photo.preprocess = keep_path  # type: ignore[assignment, method-assign]
    return photo


def read_upload(path: str) -> Image.Image:
    """Read a photo as all photos are read: known formats alone, upright, without metadata.

    Raises:
        gradio.Error: If it is damaged or too large; the page shows what it says.
    """
    try:
        photo = read_image(path, "The file")
    except (OSError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    if photo.width * photo.height > MAX_PIXELS:
        raise gr.Error(f"A photo may have at most {MAX_PIXELS:,} pixels.", print_exception=False)
    return photo


@dataclass(frozen=True)
class Finding:
    """What the models say of a photo.

    Args:
        photo (`PIL.Image.Image`):
            The photo, as large as the page shows it.
        segmented (`SegmentedPhoto`):
            Its map with confidences.
        malignancy (`float`):
            Its score, in [0, 1].
    """

    photo: Image.Image
    segmented: SegmentedPhoto
    malignancy: float


class Examiner:
    """Both models and what is known of them.

    Args:
        segmenter (`tuple`):
            A segmentation model and its image processor, as [`~fedd_hf.prediction.open_model`] returns them.
        classifier (`tuple`):
            A malignancy classifier and its image processor.
        report (`dict`):
            Report of [`~fedd_hf.cli.quickstart_run.run_quickstart`].

    Raises:
        ValueError: If the report does not say when to abstain.
    """

    def __init__(self, segmenter: tuple[Any, Any], classifier: tuple[Any, Any], report: dict[str, Any]) -> None:
        self.segmenter, self.classifier = segmenter, classifier
        try:
            self.limits = {task: report[task]["abstain_above"] for task in ("segmentation", "classification")}
        except KeyError as error:
            raise ValueError(f"The report lacks {error}. Type `fedd quickstart` again.") from error
        self.labels = segmenter[0].config.id2label
        self.title = f"How well these models do on {report['data']['name']}, by skin tone (95 % intervals)"
        self.performance = "\n".join(markdown_by_tone(report[task]["by_tone"]) for task in self.limits)

    def examine(self, photo: Image.Image) -> Finding:
        """Segment a photo and score it."""
        photo.thumbnail((SHOWN_SIZE, SHOWN_SIZE))
        (segmented,) = stream_segmentations(*self.segmenter, [photo], with_confidence=True)
        (malignancy,) = score_photos(*self.classifier, [photo])
        return Finding(photo, segmented, malignancy)

    def draw_overlay(self, finding: Finding, opacity: float) -> Image.Image:
        """Lay the map over the photo."""
        return overlay(finding.photo, finding.segmented.segmentation_map, self.labels, opacity)

    def measure_areas(self, finding: Finding) -> dict[str, float]:
        """Return the share of the photo that each class covers."""
        counts = np.bincount(finding.segmented.segmentation_map.flatten(), minlength=len(self.labels))
        return {label: float(counts[index] / counts.sum()) for index, label in self.labels.items()}

    def judge(self, finding: Finding) -> str:
        """Say of each task whether the model is sure enough, compared with held-out photos."""
        score = finding.malignancy
        doubts = {
            "segmentation": ("Segmentation", finding.segmented.uncertainty),
            "classification": ("Malignancy", float(entr(score) + entr(1 - score))),
        }
        return "\n".join(_judge(name, doubt, self.limits[task]) for task, (name, doubt) in doubts.items())


def _judge(name: str, uncertainty: float, limit: float) -> str:
    verdict = "answers: it is as sure as it is of" if uncertainty <= limit else "**abstains**: it is less sure than of"
    return f"- {name} {verdict} four in five held-out photos ({uncertainty:.3f}, limit {limit:.3f})."


def draw_doubt(finding: Finding) -> Image.Image:
    """Show where the model is unsure: bright where the mean probability of the shown class is low."""
    doubt = 1 - np.asarray(finding.segmented.confidence)
    pixels = colormaps["magma"](np.nan_to_num(doubt))[..., :3]
    return Image.fromarray((255 * pixels).astype(np.uint8))


def make_picture(label: str, name: str) -> gr.Image:
    """Make the place for a picture that the models draw."""
    return gr.Image(label=label, elem_id=name, height=HEIGHT, format="png", interactive=False, buttons=[])


def draw_legend() -> str:
    """Name the colours of the map; the background is left as it is."""
    swatch = '<span style="display: inline-block; width: 0.8em; height: 0.8em; background: rgb{}"></span> {}'
    drawn = [swatch.format(colour, label) for label, colour in CLASS_COLOURS.items() if label != "background"]
    return " &ensp; ".join([*drawn, "background: as it is"])


def build_demo(examiner: Examiner, examples: Sequence[Path]) -> gr.Blocks:
    """Build the page.

    Args:
        examiner ([`Examiner`]):
            The models.
        examples (`list[Path]`):
            Painted photos to try.

    Example:
        >>> launch(build_demo(examiner, []))  # doctest: +SKIP
    """
    with gr.Blocks(title="FEDD", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(f"# FEDD: lesions and malignancy from few labels\n\n{WARNING}")
        finding = gr.State(time_to_live=KEPT_SECONDS)
        with gr.Row():
            with gr.Column():
                photo = make_photo_input()
                gr.Examples([[str(path)] for path in examples], photo, label="Painted photos to try")
            with gr.Column():
                shown = make_picture("What it sees", "overlay")
                opacity = gr.Slider(0, 1, OPACITY, label="Opacity of the map", elem_id="opacity")
                gr.HTML(draw_legend())
                areas = gr.Label(label="Share of the photo", elem_id="areas", show_heading=False)
        with gr.Row():
            with gr.Column():
                score = gr.Label(label="Malignancy score", elem_id="score", show_heading=False)
                verdict = gr.Markdown(elem_id="verdict")
            with gr.Column():
                doubt = gr.Image(
                    label="Where it is unsure", elem_id="doubt", height=HEIGHT, interactive=False, buttons=[]
                )
        with gr.Accordion(examiner.title):
            gr.Markdown(examiner.performance)

        def look(given: str | None, share: float) -> list[Any]:
            if given is None:
                return [None, None, None, None, "", None]
            found = examiner.examine(read_upload(given))
            scores = {"malignant": found.malignancy, "benign": 1 - found.malignancy}
            pictures = (examiner.draw_overlay(found, share), draw_doubt(found))
            return [found, pictures[0], examiner.measure_areas(found), scores, examiner.judge(found), pictures[1]]

        def blend(found: Finding | None, share: float) -> Image.Image | None:
            return None if found is None else examiner.draw_overlay(found, share)

        photo.change(look, [photo, opacity], [finding, shown, areas, score, verdict, doubt], api_visibility="private")
        opacity.change(blend, [finding, opacity], shown, api_visibility="private")
    return page


def launch(page: gr.Blocks, port: int | None = None, wait: bool = True) -> None:
    """Serve the page on this machine until it is interrupted; no file but uploads and examples can be read.

    Args:
        page (`gr.Blocks`):
            What [`build_demo`] built.
        port (`int`, *optional*):
            Port; by default the one that a Space asks for, or the first from 7860 that is free.
        wait (`bool`, *optional*, defaults to `True`):
            Whether to return only when the page is closed.
    """
    page.launch(
        server_port=port,
        max_file_size=MAX_FILE_SIZE,
        allowed_paths=[],
        share=False,
        enable_monitoring=False,
        prevent_thread_lock=not wait,
        footer_links=["gradio"],
        css=WIDE_TABLES,
    )
