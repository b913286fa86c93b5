import hashlib
import json
import os
import signal
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from datasets import Image as ImageColumn
from filelock import FileLock
from safetensors.torch import load_file

from fedd_hf import FEDDImageProcessor
from fedd_hf import features as feature_store
from fedd_hf.features import compute_features, read_maps, read_pooled
from fedd_hf.modeling_fedd import pool_features

DiskUsage = namedtuple("DiskUsage", ["total", "used", "free"])


def as_model_sees(processor, dataset):
    return processor([row["image"] for row in dataset], return_tensors="pt")["pixel_values"]


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*.safetensors"))}


def everything_in(folder):
    """Name what lies in the folders of files, hidden or not."""
    return sorted(path.name for path in folder.rglob("*") if path.parent != folder and path.is_file())


@pytest.fixture
def room(monkeypatch):
    """Set how many photos of a store still find room on the disk, beside what is kept free."""

    def leave(store, *photos):
        """Of each look at the disk, in order; the last stays."""
        answers = list(photos)

        def usage(_folder):
            room = answers.pop(0) if len(answers) > 1 else answers[0]
            return DiskUsage(0, 0, feature_store.KEPT_FREE + room * store.bytes_per_image)

        monkeypatch.setattr(feature_store.shutil, "disk_usage", usage)

    return leave


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_maps_are_exactly_those_of_the_backbone_which_stays_as_it_was(
    dtype, make_store, make_segmenter, processor, painted, accelerator, weights_of, assert_same_bits
):
    model = make_segmenter(blocks=[1, 4, 7], timesteps=[0, 50, 999])
    before = weights_of(model)

    files = make_store(model, dtype=dtype, batch_size=3).extract(painted, accelerator)

    pixel_values = as_model_sees(processor, painted)
    for start in (0, 3):
        expected = model.backbone(pixel_values[start : start + 3]).feature_maps
        for photo in range(3):
            for stored, wanted in zip(read_maps(files[start + photo]), expected, strict=True):
                assert torch.equal(stored, wanted[photo].movedim(0, -1).to(feature_store.DTYPES[dtype]))
    assert [tuple(stored.shape) for stored in read_maps(files[0])] == [(8, 8, 48), (16, 16, 48), (32, 32, 24)]
    assert_same_bits(weights_of(model), before)


def test_pooled_features_of_several_readings_keep_their_order(
    make_store, make_segmenter, processor, painted, accelerator
):
    model = make_segmenter(blocks=[4, 7], timesteps=[0, 50])

    pooled = read_pooled(
        make_store(model, dtype="float32", batch_size=6, pooled_size=16).extract(painted, accelerator)
    )

    feature_maps = model.backbone(as_model_sees(processor, painted)).feature_maps
    of_timesteps = zip(*(feature_map.chunk(2, dim=1) for feature_map in feature_maps), strict=True)
    expected = [pool_features(part, 16) for parts in of_timesteps for part in parts]
    assert torch.equal(pooled, torch.stack(expected, dim=1))


def test_a_file_is_named_after_the_pixels_that_the_network_sees(make_store, processor, painted, accelerator):
    files = make_store().extract(painted, accelerator)

    for file, pixel_values in zip(files, as_model_sees(processor, painted), strict=True):
        digest = hashlib.sha256(pixel_values.numpy().tobytes()).hexdigest()
        assert (file.parent.name, file.name) == (digest[:2], f"{digest}.safetensors")


def test_the_same_photo_is_stored_once(make_store, painted, accelerator):
    store = make_store()

    files = store.extract(painted.select([0, 1, 0, 2, 1, 0]), accelerator)

    assert [files.index(file) for file in files] == [0, 1, 0, 3, 1, 0]
    assert len(files_in(store.folder)) == 3


@pytest.mark.parametrize("options", [{}, {"dtype": "float32", "pooled_size": 16}], ids=str)
def test_the_size_that_is_told_is_the_size_that_is_written(options, make_store, painted, accelerator):
    store = make_store(**options)
    size = store.bytes_per_image
    assert f"{size:,} bytes an image, {1000 * size / 2**30:.2f} GiB for 1000 photos" in store.describe(1000)

    files = store.extract(painted, accelerator)

    for file in files:
        tensors = load_file(file)
        assert sum(tensor.nbytes for tensor in tensors.values()) == store.bytes_per_image
        assert 0 < file.stat().st_size - store.bytes_per_image < 1000  # the header


def test_the_manifest_says_what_the_features_depend_on(make_store, make_segmenter, painted, accelerator):
    model = make_segmenter()
    store = make_store(model, num_threads=1)

    store.extract(painted, accelerator)

    manifest = json.loads((store.folder / "manifest.json").read_text())
    reading = manifest["reading"]
    assert manifest["settings"] == {"batch_size": 4, "num_threads": 1}
    assert manifest["device"] == "cpu"
    assert (reading["blocks"], reading["timesteps"], reading["image_size"]) == ([4, 7], [50], 32)
    assert (reading["noise_seed"], reading["dtype"], reading["pooled_size"]) == (0, "float16", None)
    assert reading["image_processor"]["geometry"] == "squash"
    assert len(reading["backbone_tensors"]) == 64
    digest = hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()
    assert store.folder.name == digest[:16]


# --- what has its own folder -----------------------------------------------------------------------------------------


def change_a_weight(model):
    model.backbone.unet.conv_in.weight.data[0, 0, 0, 0] += 1e-3
    return model


def change_the_noise(model):
    model.backbone.noise[0, 0, 0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("model_fields", "processor_fields", "options", "change"),
    [
        ({"blocks": [4]}, {}, {}, None),
        ({"timesteps": [50, 51]}, {}, {}, None),
        ({"noise_seed": 1}, {}, {}, None),
        ({"image_size": 16}, {"size": 16}, {}, None),
        ({"beta_end": 0.03}, {}, {}, None),
        ({}, {"geometry": "center_crop"}, {}, None),
        ({}, {}, {"dtype": "float32"}, None),
        ({}, {}, {"pooled_size": 16}, None),
        ({}, {}, {}, change_a_weight),
        ({}, {}, {}, change_the_noise),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_what_changes_features_goes_to_another_folder(
    model_fields, processor_fields, options, change, make_store, make_segmenter
):
    model = make_segmenter(**model_fields)
    processor = FEDDImageProcessor(**({"size": 32} | processor_fields))

    other = make_store(change(model) if change else model, processor=processor, **options)

    assert other.folder != make_store().folder
    assert other.folder.parent == make_store().folder.parent


def test_heads_of_any_task_share_the_folder_of_one_reading(make_store, make_segmenter, make_classifier):
    model = make_segmenter(blocks=[5], ensemble_size=3, hidden_sizes=[4, 4], voting="mean")

    assert make_store(model, processor=FEDDImageProcessor(size=32, num_labels=9)).folder == (
        make_store(make_classifier()).folder
    )


# --- what is computed again ------------------------------------------------------------------------------------------


def test_a_second_extraction_computes_nothing_also_of_some_photos_in_another_order(
    make_store, make_segmenter, painted, accelerator, count_passes
):
    model = make_segmenter()
    store, first = make_store(model), count_passes(model)
    files = store.extract(painted, accelerator)
    assert first.total() == 2  # batches
    before, passes = files_in(store.folder), count_passes(model)

    again = make_store(model).extract(painted.select([5, 1, 3]), accelerator)

    assert passes.total() == 0
    assert again == [files[5], files[1], files[3]]
    assert files_in(store.folder) == before


def test_only_new_photos_are_written(make_store, painted, accelerator):
    store = make_store()
    old = store.extract(painted.select([0, 1, 2]), accelerator)
    written = {file: file.stat().st_mtime_ns for file in old}

    files = store.extract(painted.select([3, 0, 4, 1, 5, 2]), accelerator)

    assert len(files_in(store.folder)) == 6
    assert {file: file.stat().st_mtime_ns for file in old} == written
    assert [files[1], files[3], files[5]] == old


def test_features_do_not_depend_on_what_else_is_computed_with_them(make_store, painted, accelerator):
    orders = {"one": [0, 1, 2, 3, 4, 5], "two": [5, 3, 1, 0, 2, 4], "three": [4, 4, 5, 2], "four": [0, 1, 3]}

    stores = [make_store(root=root) for root in orders]
    for store, order in zip(stores, orders.values(), strict=True):
        store.extract(painted.select(order), accelerator)

    together = {}
    for store in stores:
        for name, content in files_in(store.folder).items():
            assert together.setdefault(name, content) == content
    assert len(together) == 6


def test_the_last_batch_is_filled_up_to_the_same_shape(make_segmenter, processor, painted):
    model = make_segmenter()
    shapes = []
    model.backbone.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape)))

    features = compute_features(model, as_model_sees(processor, painted), batch_size=4)

    assert shapes == [(4, 3, 32, 32)] * 2
    assert [tuple(maps.shape) for maps in features] == [(6, 16, 16, 16), (6, 32, 32, 8)]
    assert not any(maps.requires_grad for maps in features)


# --- interrupts and damage -------------------------------------------------------------------------------------------


def half_written(monkeypatch, after):
    """Let the writing of a file end in its middle, after so many whole ones."""
    save, saved = feature_store.save_file, []

    def write(tensors, path):
        save(tensors, path)
        saved.append(path)
        if len(saved) > after:
            path.write_bytes(path.read_bytes()[:1000])
            raise InterruptedError

    monkeypatch.setattr(feature_store, "save_file", write)


def test_the_next_run_removes_what_was_left_half_written_and_computes_the_rest(
    make_store, make_segmenter, painted, accelerator, monkeypatch, count_passes
):
    model = make_segmenter()
    reference, store = make_store(model, root="reference"), make_store(model)
    reference.extract(painted, accelerator)
    with monkeypatch.context() as patch:
        half_written(patch, after=4)
        with pytest.raises(InterruptedError):
            store.extract(painted, accelerator)
    assert len(everything_in(store.folder)) == 5
    assert files_in(store.folder).items() < files_in(reference.folder).items()
    passes = count_passes(model)

    store.extract(painted, accelerator)

    assert passes.total() == 1  # the first batch was stored
    assert files_in(store.folder) == files_in(reference.folder)
    assert everything_in(store.folder) == sorted(path.split("/")[1] for path in files_in(store.folder))


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-1], lambda content: b"\xff" * 500],
    ids=["empty", "last byte lost", "overwritten"],
)
def test_a_damaged_file_is_named_where_it_is_read_and_computed_again_by_the_next_run(
    damage, make_store, painted, accelerator
):
    store = make_store()
    files = store.extract(painted, accelerator)
    before = files_in(store.folder)
    files[2].write_bytes(damage(files[2].read_bytes()))

    with pytest.raises(ValueError, match="cannot be read") as error:
        read_maps(files[2])
    store.extract(painted, accelerator)

    assert str(error.value).startswith(f"The features {files[2]} cannot be read: ")
    assert str(error.value).endswith("Delete the file and extract again.")
    assert files_in(store.folder) == before


# --- settings, locks, threads ----------------------------------------------------------------------------------------


def test_a_store_resumes_with_its_own_settings_and_refuses_others(make_store, painted, accelerator):
    store = make_store(batch_size=3, num_threads=1)
    files = store.extract(painted, accelerator)

    assert make_store(batch_size=None).settings == {"batch_size": 3, "num_threads": 1}
    assert make_store(batch_size=3, num_threads=1).extract(painted, accelerator) == files
    for other in ({"batch_size": 4}, {"batch_size": 3, "num_threads": 2}):
        with pytest.raises(ValueError, match="was begun with {'batch_size': 3, 'num_threads': 1}, got") as error:
            make_store(**other)
        assert str(store.folder) in str(error.value)


def test_threads_and_lock_are_free_also_after_a_failure(make_store, make_segmenter, painted, accelerator, monkeypatch):
    model, before, seen = make_segmenter(), torch.get_num_threads(), []
    model.backbone.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    store = make_store(model, num_threads=before + 1)
    with monkeypatch.context() as patch:
        half_written(patch, after=0)
        with pytest.raises(InterruptedError):
            store.extract(painted.select([0]), accelerator)

    assert seen == [before + 1]
    assert torch.get_num_threads() == before
    assert len(store.extract(painted.select([0]), accelerator)) == 1


def test_a_second_run_does_not_write_the_same_store(make_store, painted, accelerator):
    store = make_store()
    store.folder.mkdir(parents=True)

    with (
        FileLock(store.folder / ".lock"),
        pytest.raises(OSError, match=r"Another run is writing .* Wait for it, or choose a new root\."),
    ):
        store.extract(painted, accelerator)

    assert len(store.extract(painted, accelerator)) == 6


# --- room on the disk ------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    make_store, make_segmenter, painted, accelerator, count_passes, room
):
    model = make_segmenter()
    store, passes = make_store(model), count_passes(model)
    room(store, 5)

    with pytest.raises(OSError, match="6 photos need") as error:
        store.extract(painted, accelerator)

    assert passes.total() == 0
    assert str(store.folder) in str(error.value)
    assert "make room and run again." in str(error.value)


def test_a_disk_that_fills_ends_the_run_and_nothing_that_is_stored_is_lost(
    make_store, make_segmenter, painted, accelerator, count_passes, room
):
    model = make_segmenter()
    reference, store = make_store(model, root="reference"), make_store(model)
    reference.extract(painted, accelerator)
    room(store, 6, 6, 1)  # of all, of the first batch, then somebody else writes

    with pytest.raises(OSError, match="2 photos need"):
        store.extract(painted, accelerator)

    assert len(files_in(store.folder)) == 4
    passes = count_passes(model)
    room(store, 2)
    store.extract(painted, accelerator)
    assert passes.total() == 1
    assert files_in(store.folder) == files_in(reference.folder)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="There is no limit for files on this system.")
def test_a_disk_that_is_full_in_the_middle_of_a_file_is_an_os_error(make_store, painted, accelerator):
    import resource

    store = make_store(dtype="float32")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.bytes_per_image // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=str(store.folder)):
            store.extract(painted, accelerator)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert files_in(store.folder) == {}
    assert len(store.extract(painted, accelerator)) == 6


# --- photos and numbers that cannot be -------------------------------------------------------------------------------


def with_photo(dataset, index, content):
    """Put other bytes in the place of a photo."""
    encoded = dataset.cast_column("image", ImageColumn(decode=False))["image"]
    images = [
        {"bytes": content(image["bytes"]), "path": None} if i == index else image for i, image in enumerate(encoded)
    ]
    return dataset.remove_columns("image").add_column("image", images, feature=dataset.features["image"])


def break_a_chunk(png):
    position = png.index(b"IDAT")
    return png[: position - 4] + b"\x00\x00\x00\x04" + png[position : position + 8] + b"broken chunks" * 9


@pytest.mark.parametrize(
    "content",
    [lambda png: b"no photo", lambda png: png[: len(png) // 2], break_a_chunk],
    ids=["no photo", "truncated", "broken chunk"],
)
def test_a_photo_that_cannot_be_read_is_named(content, make_store, painted, accelerator):
    store = make_store(batch_size=2)
    damaged = with_photo(painted, 3, content)

    with pytest.raises(ValueError, match="cannot be read") as error:
        store.extract(damaged, accelerator)

    assert str(error.value).startswith(f"Photo {painted['image_id'][3]!r} cannot be read: ")
    assert len(files_in(store.folder)) == 2


@pytest.mark.slow
def test_maps_are_mapped_into_memory_rather_than_read(tmp_path, run_python):
    file = tmp_path / "large.safetensors"
    feature_store.save_file({"t0050.block04": torch.ones(100, 1000, 1000, dtype=torch.float16)}, file)  # 200 MB
    script = (
        "import json, os, sys\nfrom pathlib import Path\nimport torch\n"
        "from fedd_hf.features import read_maps\n"
        "def resident():\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE')\n"
        "before = resident()\n(feature_map,) = read_maps(Path(sys.argv[1]))\n"
        "value = float(feature_map[50, 500, 500])\nprint(json.dumps([value, resident() - before]))"
    )

    value, grown = run_python(script, file)

    assert value == 1
    assert grown < 20e6


@pytest.mark.parametrize(
    ("dtype", "factor", "advice"),
    [
        ("float16", 1e6, "float16. Type --dtype float32."),
        ("float16", float("nan"), "float16. Type --dtype float32."),
        ("float32", float("nan"), "float32. The backbone is broken."),
    ],
)
def test_features_that_are_no_finite_numbers_are_refused_with_the_advice(
    dtype, factor, advice, make_store, painted, accelerator, monkeypatch
):
    def compute(*arguments):
        return [maps * factor for maps in compute_features(*arguments)]

    monkeypatch.setattr(feature_store, "compute_features", compute)
    store = make_store(dtype=dtype)

    with pytest.raises(ValueError, match=f"A feature is not a finite number of {advice}"):
        store.extract(painted, accelerator)

    assert files_in(store.folder) == {}


# --- several processes -----------------------------------------------------------------------------------------------

EXTRACT = """
import json, os, sys
from pathlib import Path
from accelerate import Accelerator
from datasets import load_from_disk
from fedd_hf import FEDDForSegmentation, FEDDImageProcessor
from fedd_hf.features import FeatureStore

backbone, photos, root = sys.argv[1:]
model = FEDDForSegmentation.from_backbone(backbone, blocks=[4, 7], timesteps=[50], image_size=32)
store = FeatureStore(Path(root), model, FEDDImageProcessor(size=32), batch_size=2, num_threads=1)
passes = []
model.backbone.register_forward_hook(lambda *_: passes.append(1))
accelerator = Accelerator(cpu=True)
files = store.extract(load_from_disk(photos), accelerator)
told = {"files": [str(file) for file in files], "passes": len(passes), "processes": accelerator.num_processes}
Path(os.environ["RESULTS"], f"{accelerator.process_index}.json").write_text(json.dumps(told))
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_share_the_work_and_write_the_same_bytes_as_one(run_processes, tiny_backbone, painted, tmp_path):
    rows = [0, 0, 0, 1, 1, 2, 3]  # both meet the same photo
    painted.select(rows).save_to_disk(tmp_path / "photos")

    (alone,) = run_processes(EXTRACT, tiny_backbone, tmp_path / "photos", tmp_path / "one", processes=1)
    first, second = run_processes(EXTRACT, tiny_backbone, tmp_path / "photos", tmp_path / "two")

    assert (alone["processes"], first["processes"], second["processes"]) == (1, 2, 2)
    assert first["files"] == second["files"]
    names = [os.path.relpath(file, tmp_path / "one") for file in alone["files"]]
    assert [os.path.relpath(file, tmp_path / "two") for file in first["files"]] == names
    one, two = (next((tmp_path / root).iterdir()) for root in ("one", "two"))
    assert files_in(one) == files_in(two)
    assert len(files_in(two)) == len(set(rows))
    assert everything_in(two) == sorted({Path(file).name for file in first["files"]})
