"""Lesions of a painted photo, in CIELAB: colours and structures by which benign and malignant differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .textures import blend, detail_scale, smooth_noise, soft_step, valleys

# Lightness relative to the skin around, and shift of a* and b* on light skin.
PIGMENTS = {
    "tan": (0.82, 4.0, 5.0),
    "brown": (0.60, 7.0, 6.0),
    "dark brown": (0.40, 6.0, 2.0),
    "black": (0.24, -4.0, -8.0),
    "blue-grey": (0.55, -8.0, -16.0),
    "red": (0.70, 19.0, 4.0),
    "pink": (0.92, 13.0, 0.0),
    "purple": (0.55, 14.0, -8.0),
    "white": (1.13, -5.0, -5.0),
    "pearl": (1.06, 4.0, -5.0),
    "crust": (0.38, 13.0, 9.0),
    "scale": (1.14, -3.0, 6.0),
}


@dataclass(frozen=True)
class LesionKind:
    """How a family of lesions looks.

    `disorder` in [0, 1] is how far its `pigments` lie in patches rather than rings, `relief` its height, as a dome or
    as a rolled `rim`, and `structures` are what it may show besides.
    """

    pigments: tuple[str, ...]
    disorder: float
    relief: float
    rim: bool = False
    structures: tuple[str, ...] = ()


# Each table has look-alikes of the other: inflamed keratosis and blue naevus, melanoma in situ and without pigment.
BENIGN_KINDS = {
    "naevus": LesionKind(("brown", "dark brown"), disorder=0.2, relief=0.1, structures=("network",)),
    "light naevus": LesionKind(("tan", "brown"), disorder=0.3, relief=0.3, structures=("network",)),
    "atypical naevus": LesionKind(("tan", "brown", "pink"), disorder=0.55, relief=0.1, structures=("network",)),
    "blue naevus": LesionKind(("blue-grey", "black"), disorder=0.2, relief=0.4),
    "papule": LesionKind(("pink", "tan"), disorder=0.2, relief=1.0),
    "keratosis": LesionKind(("tan", "brown", "dark brown"), disorder=0.5, relief=0.6, structures=("plugs", "flakes")),
    "inflamed keratosis": LesionKind(("tan", "red"), disorder=0.5, relief=0.6, structures=("flakes", "ulcer")),
    "dermatofibroma": LesionKind(("brown", "pink"), disorder=0.15, relief=0.5),
    "angioma": LesionKind(("red", "purple"), disorder=0.3, relief=0.8),
}
MALIGNANT_KINDS = {
    "melanoma": LesionKind(("brown", "black", "blue-grey", "red"), disorder=0.8, relief=0.2, structures=("scar",)),
    "dark melanoma": LesionKind(
        ("tan", "dark brown", "black"), disorder=0.85, relief=0.15, structures=("scar", "network")
    ),
    "melanoma in situ": LesionKind(("tan", "brown", "dark brown"), disorder=0.5, relief=0.1, structures=("network",)),
    "amelanotic melanoma": LesionKind(("pink", "red"), disorder=0.4, relief=0.9, structures=("vessels",)),
    "basal cell carcinoma": LesionKind(
        ("pink", "red", "pearl"), disorder=0.6, relief=0.9, rim=True, structures=("vessels", "ulcer")
    ),
    "squamous cell carcinoma": LesionKind(
        ("red", "pink", "white"), disorder=0.7, relief=0.7, structures=("flakes", "ulcer")
    ),
    "bleeding tumour": LesionKind(("purple", "black", "brown"), disorder=0.6, relief=0.8, structures=("ulcer",)),
}
STRUCTURE_RATE = 0.75


@dataclass(frozen=True)
class LesionSite:
    """Where a lesion grows.

    `inwards` of shape `(height, width)` is 0 outside and rises from the border to 1 at the deepest pixel, `radius`
    pixels from the border; `skin_colour` is L*, a*, b* of the skin around.
    """

    inwards: np.ndarray
    radius: float
    skin_colour: np.ndarray

    def noise(self, rng: np.random.Generator, grain: float, *, stretch: float = 1.0, angle: float = 0.0) -> np.ndarray:
        """Return noise whose grain is given in radii."""
        grain = max(grain * self.radius, 0.7)
        return smooth_noise(rng, self.inwards.shape, grain, stretch=stretch, angle=angle)

    def pigment(self, name: str) -> np.ndarray:
        """Return the colour of a pigment in this skin: in dark skin redness shows less, and more purple."""
        lightness, red, yellow = PIGMENTS[name]
        visibility = np.clip(self.skin_colour[0] / 65.0, 0.5, 1.0)
        shift = visibility * np.array([red, yellow - 6.0 * (1.0 - visibility)])
        chroma = self.skin_colour[1:] * min(1.0, 0.35 + 0.65 * lightness) + shift
        return np.array([self.skin_colour[0] * lightness, *chroma])


def paint_lesion(
    rng: np.random.Generator,
    skin: np.ndarray,
    region: np.ndarray,
    skin_colour: np.ndarray,
    malignant: bool,
    light_angle: float,
) -> np.ndarray:
    """Paint a lesion of a random kind on `skin` wherever `region` is true.

    Pigments darken relative to the skin, so that contrast falls from light to dark skin as it does in clinic.
    """
    if not region.any():
        return skin
    kinds = list((MALIGNANT_KINDS if malignant else BENIGN_KINDS).values())
    kind = kinds[rng.integers(len(kinds))]
    depth = ndimage.distance_transform_edt(region)
    site = LesionSite(depth / depth.max(), float(depth.max()), skin_colour)
    lab = _pigmentation(rng, site, kind) + 0.7 * (skin - skin_colour)
    for structure in kind.structures:
        if rng.random() < STRUCTURE_RATE:
            lab = STRUCTURES[structure](rng, site, lab)
    lab[..., 0] += _relief(rng, site, kind, light_angle) * (0.4 + lab[..., 0] / 100.0)
    return blend(skin, lab, _opacity(rng, site))


def _pigmentation(rng: np.random.Generator, site: LesionSite, kind: LesionKind) -> np.ndarray:
    """Lay the pigments over one another: in rings if the kind is orderly, in patches if it is not."""
    disorder = np.clip(kind.disorder + rng.normal(0.0, 0.15), 0.05, 0.95)
    lab = np.broadcast_to(site.pigment(kind.pigments[0]), (*site.inwards.shape, 3))
    for name in kind.pigments[1:]:
        rings = 2.0 * site.inwards - rng.uniform(0.4, 1.2)
        patches = 0.85 * site.noise(rng, rng.uniform(0.2, 0.5)) + 0.5 * site.noise(rng, 0.09) - rng.uniform(0.0, 0.7)
        level = (1.0 - disorder) * rings + disorder * patches
        lab = blend(lab, site.pigment(name) + rng.normal(0.0, 2.0, 3), soft_step(level, rng.uniform(0.1, 0.4)))
    return lab + site.noise(rng, 0.1)[..., None] * [1.5, 0.5, 0.5]


def _opacity(rng: np.random.Generator, site: LesionSite) -> np.ndarray:
    """Return how much the lesion hides the skin: least at its border, never so little that the border is lost."""
    at_border, inside, width = rng.uniform(0.45, 0.95), rng.uniform(0.75, 1.0), rng.uniform(0.02, 0.3)
    fade = 1.0 - np.exp(-site.inwards / max(width, 0.5 / site.radius))
    return inside * (at_border + (1.0 - at_border) * fade)


def _relief(rng: np.random.Generator, site: LesionSite, kind: LesionKind, light_angle: float) -> np.ndarray:
    """Return the shading of a bumpy dome or rolled rim and its glint, in L* on a white surface."""
    profile = np.sin(np.pi * site.inwards) if kind.rim else 1.0 - (1.0 - site.inwards) ** 2
    bumps = 0.06 * site.noise(rng, 0.15) * (site.inwards > 0.0)
    height = site.radius * ndimage.gaussian_filter(profile + bumps, max(0.1 * site.radius, 0.6))
    slope = np.stack(np.gradient(height), axis=-1)
    light = np.array([np.sin(light_angle), np.cos(light_angle)])
    glint = rng.uniform(0.0, 16.0) * np.exp(-(((slope + 0.6 * light) ** 2).sum(axis=-1) / 0.09))
    flatness = min(1.0, 25.0 * detail_scale(site.inwards.shape) / site.radius)
    return kind.relief * flatness * rng.uniform(0.5, 1.1) * (glint - 11.0 * np.tanh(slope @ light))


def _network(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Darken along the meshes of a pigment network."""
    return lab + valleys(site.noise(rng, 0.07), 0.35)[..., None] * [-5.0, 1.0, 1.0]


def _plugs(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Stud with dark plugs and pale cysts."""
    dots = site.noise(rng, 0.07)
    lab = blend(lab, site.pigment("dark brown"), 0.8 * soft_step(dots - 1.5, 0.1))
    return blend(lab, site.pigment("scale"), 0.6 * soft_step(-dots - 1.8, 0.1))


def _flakes(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Cover a part with yellow-white scale."""
    coverage = soft_step(site.noise(rng, 0.3) - 0.4, 0.2) * soft_step(site.noise(rng, 0.06) - 0.3, 0.3)
    return blend(lab, site.pigment("scale"), 0.8 * coverage)


def _scar(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Bleach a patch away from the border, where a melanoma regressed."""
    patch = soft_step(site.noise(rng, 0.3) - rng.uniform(0.7, 1.2), 0.12) * soft_step(site.inwards - 0.3, 0.08)
    return blend(lab, site.pigment("white"), 0.75 * patch)


def _vessels(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Run thin branching vessels across the surface."""
    branches = valleys(site.noise(rng, 0.12, stretch=2.0, angle=rng.uniform(0.0, np.pi)), 0.12)
    return blend(lab, site.pigment("red"), 0.75 * branches * soft_step(site.noise(rng, 0.3), 0.3))


def _ulcer(rng: np.random.Generator, site: LesionSite, lab: np.ndarray) -> np.ndarray:
    """Open an ulcer with a crust of dried blood."""
    ulcer = soft_step(site.inwards - rng.uniform(0.5, 0.8) + 0.25 * site.noise(rng, 0.2), 0.06)
    crust = blend(site.pigment("crust"), site.pigment("red"), soft_step(site.noise(rng, 0.06) - 0.6, 0.2))
    return blend(lab, crust, 0.9 * ulcer)


STRUCTURES: dict[str, Callable[[np.random.Generator, LesionSite, np.ndarray], np.ndarray]] = {
    "network": _network,
    "plugs": _plugs,
    "flakes": _flakes,
    "scar": _scar,
    "vessels": _vessels,
    "ulcer": _ulcer,
}
