"""Scripts of tests that run as if fedd_hf were not installed."""

# The package is there in the tests, so the process looks away from it.
LOOK_AWAY = """
import importlib.util, json, sys

class LookAway:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *arguments):
        return None if name.partition(".")[0] == "fedd_hf" else self.finder.find_spec(name, *arguments)

sys.meta_path = [LookAway(finder) for finder in sys.meta_path]
assert importlib.util.find_spec("fedd_hf") is None
"""
