"""The table "Who may import whom" of the architecture, read from the source. Nothing is imported here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fedd_hf"

MODEL_FAMILY = {
    "configuration_fedd",
    "unet_files_fedd",
    "pretrained_fedd",
    "backbone_fedd",
    "modeling_fedd",
    "image_processing_fedd",
}
MAY_IMPORT = {
    "configuration_fedd": set(),
    "unet_files_fedd": {"configuration_fedd"},
    "pretrained_fedd": {"configuration_fedd", "unet_files_fedd"},
    "backbone_fedd": {"configuration_fedd", "pretrained_fedd"},
    "modeling_fedd": {"configuration_fedd", "pretrained_fedd", "backbone_fedd"},
    "image_processing_fedd": set(),
    "skin_tone": set(),
    "pixel_class": set(),
    "checkpoints": {"configuration_fedd", "backbone_fedd"},
    "pipelines": MODEL_FAMILY,
    "export": MODEL_FAMILY,
    "data": {"skin_tone", "pixel_class", "image_processing_fedd"},  # one safe way to read a photo
    "training": MODEL_FAMILY | {"data"},
    "baselines": MODEL_FAMILY | {"checkpoints", "training", "data"},
    "inference": MODEL_FAMILY | {"data", "skin_tone"},
    "evaluation": {"skin_tone"},
    "experiments": MODEL_FAMILY | {"training", "inference", "evaluation", "data", "baselines", "skin_tone"},
    "figures": {"evaluation", "skin_tone", "pixel_class"},
    "hub": {"evaluation", "figures"},
    "demo": MODEL_FAMILY | {"inference", "evaluation", "figures"},
    "__init__": MODEL_FAMILY | {"skin_tone"},
}
IMPORTS_EVERYTHING = {"cli", "__main__"}
WITHOUT_TORCH = {"evaluation", "figures", "hub"}
TORCH_LIBRARIES = {"torch", "torchvision", "diffusers", "transformers", "accelerate"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "scripts").rglob("*.py")), *sorted((ROOT / "hub_cards").rglob("*.py"))]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def unit_of(path):
    """The row of the table: a module at the top of the package, or a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path):
    return ast.parse(path.read_text())


def imported_modules(path):
    """Absolute names of all that a file imports, wherever it does so; `from x import y` gives `x.y`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join((*package, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def front_door():
    """Public name -> the unit that defines it."""
    return {
        alias.name: node.module
        for node in tree_of(PACKAGE / "__init__.py").body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def imported_units(path):
    names = front_door()
    parts = [module.split(".") for module in imported_modules(path)]
    return {names.get(part[1], part[1]) for part in parts if part[0] == "fedd_hf" and len(part) > 1}


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
each_file = pytest.mark.parametrize("path", EVERYTHING, ids=name_of)


@each_source
def test_module_imports_only_what_the_architecture_allows(path):
    unit = unit_of(path)
    if unit in IMPORTS_EVERYTHING:
        return

    assert unit in MAY_IMPORT, f"{unit} has no row in the table"
    assert imported_units(path) - {unit} <= MAY_IMPORT[unit]


@each_source
def test_numbers_figures_and_cards_know_no_torch(path):
    if unit_of(path) in WITHOUT_TORCH:
        assert TORCH_LIBRARIES.isdisjoint(module.split(".")[0] for module in imported_modules(path))


@pytest.mark.parametrize("name", sorted(MODEL_FAMILY))
def test_model_family_imports_one_another_as_remote_code_can_follow(name):
    nodes = list(ast.walk(tree_of(PACKAGE / f"{name}.py")))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    absolute = [node.module for node in froms if not node.level]
    absolute += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]

    assert all(node.level == 1 and node.module in MODEL_FAMILY for node in froms if node.level)
    assert "fedd_hf" not in {module.split(".")[0] for module in absolute}


@each_file
def test_no_import_is_for_type_checking_only(path):
    names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}

    assert "TYPE_CHECKING" not in names


@each_source
def test_nobody_imports_scripts_or_tests(path):
    assert {"scripts", "tests", "conftest"}.isdisjoint(module.split(".")[0] for module in imported_modules(path))


@each_file
def test_no_accelerator_is_named(path):
    nodes = list(ast.walk(tree_of(path)))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]

    assert [text for text in strings if re.fullmatch(r"(cuda|mps|xpu|npu|hpu)(:\d+)?", text)] == []
    assert not any(isinstance(node, ast.Attribute) and node.attr == "cuda" for node in nodes)


@each_source
def test_cpu_is_named_only_where_a_tensor_is_made_read_or_brought_back(path):
    nodes = list(ast.walk(tree_of(path)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    keywords = [keyword for call in calls for keyword in call.keywords if keyword.arg in {"device", "map_location"}]
    destinations = [call.args[0] for call in calls if getattr(call.func, "attr", None) == "to" and call.args]
    named = {node for node in nodes if isinstance(node, ast.Constant) and node.value == "cpu"}

    assert named <= {*destinations, *(keyword.value for keyword in keywords)}


@each_file
def test_pickles_are_read_by_the_converter_only(path):
    if not path.is_relative_to(PACKAGE / "checkpoints"):
        used = {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
        assert {"torch.load", "pickle.load", "pickle.loads"}.isdisjoint(used)


@each_file
def test_file_is_named_after_what_it_holds(path):
    assert path.stem.strip("_") not in {"utils", "helpers", "common", "misc"}
