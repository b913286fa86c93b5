"""Rules that make malignant or benign of a source's labels, by name."""

from __future__ import annotations

from collections.abc import Mapping

Policy = Mapping[str, bool | None]


def check_policy(name: str, policies: Mapping[str, Policy]) -> None:
    """Refuse a rule that there is not.

    Raises:
        ValueError: If there is none of this name; the message names those that there are.
    """
    if name not in policies:
        raise ValueError(f"`malignancy_policy` must be one of {list(policies)}, got {name!r}.")
