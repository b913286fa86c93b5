"""The table "Who may import whom" of the architecture, read from the source. Nothing is imported here."""

import ast
import re
from functools import cache
from pathlib import Path

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
    "labels": set(),
    "files": set(),
    "convert": {"configuration_fedd", "backbone_fedd"},
    "features": MODEL_FAMILY,
    "export": MODEL_FAMILY,
    "data": {"labels", "image_processing_fedd"},  # one safe way to read a photo
    "training": MODEL_FAMILY | {"features", "data"},
    "baselines": MODEL_FAMILY | {"training", "data", "labels"},
    "prediction": MODEL_FAMILY | {"data", "labels"},
    "evaluation": {"labels"},
    "compare": MODEL_FAMILY | {"features", "training", "prediction", "evaluation", "data", "baselines", "labels"},
    "figures": {"evaluation", "labels"},
    "hub": {"evaluation", "figures"},
    "demo": MODEL_FAMILY | {"prediction", "evaluation", "figures"},
    "__init__": MODEL_FAMILY | {"labels"},
}
FOR_EVERYBODY = {"files"}  # but for the model family, whose files remote code copies: it has a test of its own
IMPORTS_EVERYTHING = {"cli", "__main__"}
WITHOUT_TORCH = {"evaluation", "figures", "hub"}
READ_PICKLES = {PACKAGE / "convert.py", PACKAGE / "baselines" / "efficientnet_lite0.py"}
TORCH_LIBRARIES = {"torch", "torchvision", "diffusers", "transformers", "accelerate"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "scripts").rglob("*.py")), *sorted((ROOT / "hub_cards").rglob("*.py"))]
LABORATORY = {path.stem for path in (ROOT / "scripts").rglob("*.py")} - {path.stem for path in SOURCES}


def room_of(path):
    """The row of the table: a module at the top of the package, or a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def nodes_of(path):
    return list(ast.walk(ast.parse(path.read_text())))


def imported_modules(path):
    """Absolute names of all that a file imports, wherever it does so; `from x import y` gives `x.y`."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join((*package, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_libraries(path):
    return {module.split(".")[0] for module in imported_modules(path)}


@cache
def front_door():
    """Public name -> the room that defines it."""
    return {
        alias.name: node.module
        for node in nodes_of(PACKAGE / "__init__.py")
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def imported_rooms(path):
    parts = [module.split(".") for module in imported_modules(path)]
    return {front_door().get(part[1], part[1]) for part in parts if part[0] == "fedd_hf" and len(part) > 1}


def files_where(is_wrong, paths):
    return [path.relative_to(ROOT).as_posix() for path in paths if is_wrong(path)]


def test_modules_import_only_what_the_architecture_allows():
    bound = [path for path in SOURCES if room_of(path) not in IMPORTS_EVERYTHING]
    wrong = {
        path.relative_to(ROOT).as_posix(): forbidden
        for path in bound
        if (forbidden := imported_rooms(path) - {room_of(path), *FOR_EVERYBODY} - MAY_IMPORT.get(room_of(path), set()))
    }

    assert {room_of(path) for path in bound} == set(MAY_IMPORT)
    assert wrong == {}


def test_numbers_figures_and_cards_know_no_torch():
    bound = [path for path in SOURCES if room_of(path) in WITHOUT_TORCH]

    assert files_where(lambda path: imported_libraries(path) & TORCH_LIBRARIES, bound) == []


def test_model_family_imports_one_another_as_remote_code_can_follow():
    def is_wrong(path):
        froms = [node for node in nodes_of(path) if isinstance(node, ast.ImportFrom)]
        relative = [(node.level, node.module) for node in froms if node.level]
        absolute = [node.module for node in froms if not node.level]
        absolute += [alias.name for node in nodes_of(path) if isinstance(node, ast.Import) for alias in node.names]
        is_followed = all(level == 1 and module in MODEL_FAMILY for level, module in relative)
        return not is_followed or "fedd_hf" in {module.split(".")[0] for module in absolute}

    assert files_where(is_wrong, [PACKAGE / f"{name}.py" for name in MODEL_FAMILY]) == []


def test_no_import_is_for_type_checking_only():
    def is_wrong(path):
        names = {node.id for node in nodes_of(path) if isinstance(node, ast.Name)}
        return "TYPE_CHECKING" in names | {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)}

    assert files_where(is_wrong, EVERYTHING) == []


def test_nobody_imports_the_laboratory_or_tests():
    outside = {"scripts", "tests", "conftest"} | LABORATORY

    assert files_where(lambda path: imported_libraries(path) & outside, SOURCES) == []


def test_no_accelerator_is_named():
    def is_wrong(path):
        strings = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant)]
        is_named = any(
            isinstance(text, str) and re.fullmatch(r"(cuda|mps|xpu|npu|hpu)(:\d+)?", text) for text in strings
        )
        return is_named or any(isinstance(node, ast.Attribute) and node.attr == "cuda" for node in nodes_of(path))

    assert files_where(is_wrong, EVERYTHING) == []


def test_cpu_is_named_only_where_a_tensor_is_made_read_or_brought_back():
    def is_wrong(path):
        calls = [node for node in nodes_of(path) if isinstance(node, ast.Call)]
        keywords = [
            keyword for call in calls for keyword in call.keywords if keyword.arg in {"device", "map_location"}
        ]
        destinations = [call.args[0] for call in calls if getattr(call.func, "attr", None) == "to" and call.args]
        named = {node for node in nodes_of(path) if isinstance(node, ast.Constant) and node.value == "cpu"}
        return not named <= {*destinations, *(keyword.value for keyword in keywords)}

    assert files_where(is_wrong, SOURCES) == []


def test_pickles_are_read_by_converters_only():
    def is_wrong(path):
        used = {ast.unparse(node) for node in nodes_of(path) if isinstance(node, ast.Attribute)}
        return used & {"torch.load", "pickle.load", "pickle.loads"}

    others = [path for path in EVERYTHING if path not in READ_PICKLES]
    assert files_where(is_wrong, others) == []


def test_files_are_named_after_what_they_hold():
    assert files_where(lambda path: path.stem.strip("_") in {"utils", "helpers", "common", "misc"}, EVERYTHING) == []
