import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import torch
from datasets import Image as ImageColumn
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from fedd_hf import FEDDImageProcessor
from fedd_hf import features as feature_store
from fedd_hf.features import compute_features, read_maps, read_pixel_values, read_pooled
from fedd_hf.modeling_fedd import default_batch_size, pool_features

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


def test_stored_features_are_exactly_those_of_the_backbone(
    make_store, make_segmenter, processor, painted, accelerator
):
    model = make_segmenter()

    files = make_store(model, dtype="float32", batch_size=3).extract(painted, accelerator)

    pixel_values = as_model_sees(processor, painted)
    for start in (0, 3):
        expected = model.backbone(pixel_values[start : start + 3]).feature_maps
        for photo in range(3):
            for stored, wanted in zip(read_maps(files[start + photo]), expected, strict=True):
                assert torch.equal(stored, wanted[photo].movedim(0, -1))


def test_features_are_rounded_to_float16(make_store, make_segmenter, painted, accelerator):
    model = make_segmenter()
    exact = make_store(model, dtype="float32").extract(painted, accelerator)

    rounded = make_store(model).extract(painted, accelerator)

    for of_photo, wanted in zip(map(read_maps, rounded), map(read_maps, exact), strict=True):
        assert {stored.dtype for stored in of_photo} == {torch.float16}
        assert all(torch.equal(stored, full.half()) for stored, full in zip(of_photo, wanted, strict=True))


def test_maps_are_those_of_the_blocks_with_the_channels_of_all_timesteps(
    make_store, make_segmenter, processor, painted, accelerator
):
    model = make_segmenter(blocks=[1, 4, 7], timesteps=[0, 50, 999])

    maps = read_maps(make_store(model, dtype="float32", batch_size=6).extract(painted, accelerator)[0])

    assert [tuple(stored.shape) for stored in maps] == [(8, 8, 48), (16, 16, 48), (32, 32, 24)]
    expected = model.backbone(as_model_sees(processor, painted)).feature_maps
    assert all(torch.equal(stored, wanted[0].movedim(0, -1)) for stored, wanted in zip(maps, expected, strict=True))


def test_pooled_features_are_those_that_the_classifier_pools(
    make_store, make_classifier, processor, painted, accelerator
):
    model = make_classifier()

    pooled = read_pooled(
        make_store(model, dtype="float32", batch_size=6, pooled_size=64).extract(painted, accelerator)
    )

    (feature_map,) = model.backbone(as_model_sees(processor, painted)).feature_maps
    assert pooled.shape == (6, 1, 64)
    assert torch.equal(pooled[:, 0], pool_features(feature_map, 64))


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


def test_pooled_features_are_read_as_float32(make_store, painted, accelerator):
    pooled = read_pooled(make_store(pooled_size=8).extract(painted, accelerator))

    assert (pooled.shape, pooled.dtype) == ((6, 2, 8), torch.float32)


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


def test_the_mask_does_not_matter(make_store, painted, accelerator):
    files = make_store().extract(painted, accelerator)
    others = painted.map(lambda row: {"mask": row["mask"].transpose(Image.Transpose.ROTATE_180)})

    assert make_store().extract(others, accelerator) == files


@pytest.mark.parametrize("pooled_size", [None, 16])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_size_that_is_told_is_the_size_that_is_written(dtype, pooled_size, make_store, painted, accelerator):
    store = make_store(dtype=dtype, pooled_size=pooled_size)

    files = store.extract(painted, accelerator)

    for file in files:
        tensors = load_file(file)
        assert sum(tensor.nbytes for tensor in tensors.values()) == store.bytes_per_image
        assert 0 < file.stat().st_size - store.bytes_per_image < 1000  # the header


def test_how_much_room_is_needed_is_said_beforehand(make_store):
    store = make_store()

    text = store.describe(1000)

    numbers = 16 * 16 * 16 + 32 * 32 * 8
    assert store.bytes_per_image == 2 * numbers
    assert f"{2 * numbers:,} bytes an image, {2000 * numbers / 2**30:.2f} GiB for 1000 photos" in text
    assert str(store.folder) in text


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


def test_the_default_batch_is_that_of_the_image_size(make_segmenter, processor, tmp_path):
    store = feature_store.FeatureStore(tmp_path, make_segmenter(), processor)

    assert store.settings == {"batch_size": default_batch_size(32), "num_threads": torch.get_num_threads()}


def test_an_unknown_dtype_is_refused(make_store):
    with pytest.raises(ValueError, match=r"`dtype` must be one of \['float16', 'float32'\], got 'bfloat16'\."):
        make_store(dtype="bfloat16")


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
        ({"blocks": [5, 7]}, {}, {}, None),
        ({"timesteps": [51]}, {}, {}, None),
        ({"timesteps": [50, 51]}, {}, {}, None),
        ({"noise_seed": 1}, {}, {}, None),
        ({"image_size": 16}, {"size": 16}, {}, None),
        ({"beta_end": 0.03}, {}, {}, None),
        ({}, {"geometry": "center_crop"}, {}, None),
        ({}, {"resample": 0}, {}, None),
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


def test_what_changes_only_the_head_shares_the_folder(make_store, make_segmenter):
    model = make_segmenter(ensemble_size=3, hidden_sizes=[4, 4], voting="mean")
    torch.nn.init.ones_(model.decode_head.members[0].projections[0].weight)

    assert make_store(model, processor=FEDDImageProcessor(size=32, num_labels=9)).folder == make_store().folder


def test_both_tasks_share_the_folder_of_one_reading(make_store, make_segmenter, make_classifier):
    segmenter = make_segmenter(blocks=[5])

    assert make_store(make_classifier()).folder == make_store(segmenter).folder


# --- what is computed again ------------------------------------------------------------------------------------------


def test_a_second_extraction_computes_nothing(make_store, make_segmenter, painted, accelerator, count_passes):
    model = make_segmenter()
    store = make_store(model)
    files = store.extract(painted, accelerator)
    before, passes = files_in(store.folder), count_passes(model)

    again = make_store(model).extract(painted, accelerator)

    assert passes.total() == 0
    assert again == files
    assert files_in(store.folder) == before


def test_the_backbone_runs_once_for_each_batch(make_store, make_segmenter, painted, accelerator, count_passes):
    model = make_segmenter()
    passes = count_passes(model)

    make_store(model, batch_size=2).extract(painted, accelerator)

    assert passes.total() == 3


def test_photos_that_are_removed_or_reordered_keep_their_files(
    make_store, make_segmenter, painted, accelerator, count_passes
):
    model = make_segmenter()
    files = make_store(model).extract(painted, accelerator)
    passes = count_passes(model)

    others = make_store(model).extract(painted.select([5, 1, 3]), accelerator)

    assert passes.total() == 0
    assert others == [files[5], files[1], files[3]]
    assert all(file.is_file() for file in files)


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


def test_mixed_precision_of_the_training_does_not_change_features(make_store, painted, make_accelerator):
    plain, mixed = make_store(root="plain"), make_store(root="mixed")

    plain.extract(painted, make_accelerator("no"))
    mixed.extract(painted, make_accelerator("bf16"))

    assert files_in(plain.folder) == files_in(mixed.folder)


# --- kills and damage ------------------------------------------------------------------------------------------------


class KilledError(Exception):
    """A run that ends in the middle."""


def half_written(monkeypatch, after):
    """Let the writing of a file end in its middle, after so many whole ones."""
    save, saved = feature_store.save_file, []

    def write(tensors, path):
        save(tensors, path)
        saved.append(path)
        if len(saved) > after:
            path.write_bytes(path.read_bytes()[:1000])
            raise KilledError

    monkeypatch.setattr(feature_store, "save_file", write)


def test_a_killed_run_leaves_whole_files_only(make_store, painted, accelerator, monkeypatch):
    reference, store = make_store(root="reference"), make_store()
    reference.extract(painted, accelerator)

    with monkeypatch.context() as patch:
        half_written(patch, after=2)
        with pytest.raises(KilledError):
            store.extract(painted, accelerator)

    kept = files_in(store.folder)
    assert len(kept) == 2
    assert kept.items() < files_in(reference.folder).items()


def test_the_next_run_removes_what_was_left_half_written_and_computes_the_rest(
    make_store, make_segmenter, painted, accelerator, monkeypatch, count_passes
):
    model = make_segmenter()
    reference, store = make_store(model, root="reference"), make_store(model)
    reference.extract(painted, accelerator)
    with monkeypatch.context() as patch:
        half_written(patch, after=4)
        with pytest.raises(KilledError):
            store.extract(painted, accelerator)
    assert len(everything_in(store.folder)) == 5
    passes = count_passes(model)

    store.extract(painted, accelerator)

    assert passes.total() == 1  # the first batch was stored
    assert files_in(store.folder) == files_in(reference.folder)
    assert everything_in(store.folder) == sorted(path.split("/")[1] for path in files_in(store.folder))


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_process_left(make_store, painted, accelerator, tmp_path):
    store = make_store()
    store.extract(painted, accelerator)
    (folder, *_) = [path for path in store.folder.iterdir() if path.is_dir()]
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom safetensors.torch import save_file\n"
        "save_file({'map': torch.ones(400_000_000, dtype=torch.uint8)}, Path(sys.argv[1]))"
    )
    before = set(folder.iterdir())
    process = subprocess.Popen([sys.executable, "-c", script, str(folder / ".photo.safetensors.tmp")])
    while set(folder.iterdir()) == before and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert set(folder.iterdir()) != before

    store.extract(painted, accelerator)

    assert set(folder.iterdir()) == before


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-1], lambda content: content[:100], lambda content: b"\xff" * 500],
    ids=["empty", "last byte lost", "truncated", "overwritten"],
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


def test_a_file_that_is_gone_is_named(make_store, painted, accelerator):
    store = make_store()
    files = store.extract(painted, accelerator)
    before = files_in(store.folder)
    files[0].unlink()

    with pytest.raises(ValueError, match=f"The features {files[0]} cannot be read"):
        read_maps(files[0])
    store.extract(painted, accelerator)

    assert files_in(store.folder) == before


# --- settings, locks, threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"batch_size": 3}, {"num_threads": 2}, {"batch_size": 3, "num_threads": 2}], ids=str
)
def test_a_store_refuses_other_settings_than_those_it_was_begun_with(other, make_store, painted, accelerator):
    store = make_store(num_threads=1)
    store.extract(painted, accelerator)

    with pytest.raises(ValueError, match="was begun with") as error:
        make_store(**({"num_threads": 1} | other))

    assert str(store.folder) in str(error.value)
    assert "{'batch_size': 4, 'num_threads': 1}" in str(error.value)
    assert str(other)[1:-1].split(",")[0] in str(error.value)


def test_a_store_goes_on_with_its_own_settings_where_none_are_given(make_store, painted, accelerator):
    make_store(batch_size=3, num_threads=2).extract(painted, accelerator)

    again = make_store(batch_size=None)

    assert again.settings == {"batch_size": 3, "num_threads": 2}


def test_the_same_settings_go_on(make_store, painted, accelerator):
    files = make_store(batch_size=3, num_threads=1).extract(painted, accelerator)

    assert make_store(batch_size=3, num_threads=1).extract(painted, accelerator) == files


def test_the_threads_are_those_of_the_store_and_then_what_they_were(make_store, make_segmenter, painted, accelerator):
    model, before, seen = make_segmenter(), torch.get_num_threads(), []
    model.backbone.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))

    make_store(model, num_threads=before + 1).extract(painted, accelerator)

    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_the_threads_are_what_they_were_also_after_a_failure(make_store, painted, accelerator, monkeypatch):
    before = torch.get_num_threads()
    half_written(monkeypatch, after=0)

    with pytest.raises(KilledError):
        make_store(num_threads=before + 1).extract(painted, accelerator)

    assert torch.get_num_threads() == before


def test_a_second_run_does_not_write_the_same_store(make_store, make_segmenter, painted, accelerator, count_passes):
    model = make_segmenter()
    store, passes = make_store(model), count_passes(model)
    store.folder.mkdir(parents=True)

    with (
        FileLock(store.folder / ".lock"),
        pytest.raises(OSError, match=r"Another run is writing .* Wait for it, or choose a new root\."),
    ):
        store.extract(painted, accelerator)

    assert passes.total() == 0
    assert len(store.extract(painted, accelerator)) == 6


def test_a_failed_run_does_not_keep_the_lock(make_store, painted, accelerator, monkeypatch):
    store = make_store()
    with monkeypatch.context() as patch:
        half_written(patch, after=0)
        with pytest.raises(KilledError):
            store.extract(painted, accelerator)

    assert len(make_store().extract(painted, accelerator)) == 6


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
    assert "make room and run again, or train with --no-store." in str(error.value)


def test_a_disk_with_just_enough_room_is_enough(make_store, painted, accelerator, room):
    store = make_store()
    room(store, 6)

    assert len(store.extract(painted, accelerator)) == 6


def test_what_is_stored_needs_no_room(make_store, painted, accelerator, room):
    store = make_store()
    store.extract(painted.select(range(4)), accelerator)
    room(store, 2)

    assert len(store.extract(painted, accelerator)) == 6


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
    [lambda png: b"no photo", lambda png: png[: len(png) // 2], break_a_chunk, lambda png: b""],
    ids=["no photo", "truncated", "broken chunk", "empty"],
)
def test_a_photo_that_cannot_be_read_is_named(content, make_store, painted, accelerator):
    store = make_store(batch_size=2)
    damaged = with_photo(painted, 3, content)

    with pytest.raises(ValueError, match="cannot be read") as error:
        store.extract(damaged, accelerator)

    assert str(error.value).startswith(f"Photo {painted['image_id'][3]!r} cannot be read: ")
    assert len(files_in(store.folder)) == 2


def test_a_photo_is_read_as_the_processor_returns_it(painted, processor):
    pixel_values = read_pixel_values(painted, 2, processor)

    assert torch.equal(pixel_values, as_model_sees(processor, painted)[2])


@pytest.mark.parametrize("factor", [1e6, float("nan"), float("inf")])
def test_features_that_do_not_fit_float16_are_refused_with_the_advice(
    factor, make_store, painted, accelerator, monkeypatch
):
    def compute(*arguments):
        return [maps * factor for maps in compute_features(*arguments)]

    monkeypatch.setattr(feature_store, "compute_features", compute)
    store = make_store()

    with pytest.raises(ValueError, match=r"A feature is not a finite number of float16\. Type --dtype float32\."):
        store.extract(painted, accelerator)

    assert files_in(store.folder) == {}


def test_large_features_fit_float32(make_store, painted, accelerator, monkeypatch):
    def compute(*arguments):
        return [maps * 1e6 for maps in compute_features(*arguments)]

    monkeypatch.setattr(feature_store, "compute_features", compute)

    assert len(make_store(dtype="float32").extract(painted, accelerator)) == 6


def test_features_that_are_no_numbers_are_not_called_too_large_for_float32(
    make_store, painted, accelerator, monkeypatch
):
    def compute(*arguments):
        return [maps * float("nan") for maps in compute_features(*arguments)]

    monkeypatch.setattr(feature_store, "compute_features", compute)

    with pytest.raises(ValueError, match="feature") as error:
        make_store(dtype="float32").extract(painted, accelerator)

    assert "Type --dtype float32" not in str(error.value)


# --- the model stays -------------------------------------------------------------------------------------------------


def test_extraction_leaves_the_model_as_it_was(
    make_store, make_segmenter, painted, accelerator, weights_of, assert_same_bits
):
    model = make_segmenter()
    before = weights_of(model)

    make_store(model).extract(painted, accelerator)

    assert_same_bits(weights_of(model), before)


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
@pytest.mark.parametrize("num_photos", [6, 5, 1])
def test_two_processes_share_the_work_and_write_the_same_bytes_as_one(
    num_photos, run_processes, tiny_backbone, painted, tmp_path
):
    painted.select(range(num_photos)).save_to_disk(tmp_path / "photos")

    (alone,) = run_processes(EXTRACT, tiny_backbone, tmp_path / "photos", tmp_path / "one", processes=1)
    first, second = run_processes(EXTRACT, tiny_backbone, tmp_path / "photos", tmp_path / "two")

    assert (alone["processes"], first["processes"], second["processes"]) == (1, 2, 2)
    assert alone["passes"] == first["passes"] + second["passes"]
    assert first["files"] == second["files"]
    names = [os.path.relpath(file, tmp_path / "one") for file in alone["files"]]
    assert [os.path.relpath(file, tmp_path / "two") for file in first["files"]] == names
    assert files_in(next((tmp_path / "one").iterdir())) == files_in(next((tmp_path / "two").iterdir()))
    assert len(files_in(next((tmp_path / "two").iterdir()))) == num_photos


@pytest.mark.slow
def test_two_processes_may_meet_the_same_photo(run_processes, tiny_backbone, painted, tmp_path):
    painted.select([0, 0, 0, 0, 1, 1, 0, 1]).save_to_disk(tmp_path / "photos")

    first, second = run_processes(EXTRACT, tiny_backbone, tmp_path / "photos", tmp_path / "two")

    assert first["files"] == second["files"]
    assert len(set(first["files"])) == 2
    assert everything_in(next((tmp_path / "two").iterdir())) == sorted({os.path.basename(f) for f in first["files"]})
