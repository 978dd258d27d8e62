"""Generated pictures with lesions and their exact masks: what the project trains on where no real data are given.

Three kinds, drawn from simple physics rather than from any data set:
ultrasound (layered tissue under multiplicative speckle, attenuated with depth; a dark lesion with its shadow or
enhancement), endoscopy (mucosa with folds around a dark lumen, a round black frame, wet highlights; a domed
polyp) and dermoscopy (skin with hairs; a pigmented lesion with an irregular, soft border).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

Field = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

EDGE = 0.12
"""Softness of a lesion's edge, as a share of its radius."""


def phantom(
    kind: str, side: int, rng: np.random.Generator, radius: tuple[float, float] = (0.2, 0.5)
) -> tuple[Pixels, Pixels]:
    """One picture and its mask.

    Args:
        kind: a key of `KINDS`.
        side: height and width in pixels.
        radius: range of the lesion's mean radius, as a share of half the side.

    Returns:
        The image (side, side, 3) and the mask (side, side) of labels 0 and 1, with some foreground.
    """
    depth = _lesion(side, rng, radius)
    colours = KINDS[kind](depth, rng)
    return (colours.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), (depth < 1.0).astype(np.uint8)


def _grid(side: int) -> tuple[Field, Field]:
    """Rows and columns of pixel centres, from -1 to 1."""
    line = np.linspace(-1.0 + 1.0 / side, 1.0 - 1.0 / side, side, dtype=np.float32)
    return line[:, None], line[None, :]


def _noise(rng: np.random.Generator, side: int, rows: int, columns: int | None = None) -> Field:
    """Smooth noise (side, side) with that many bumps down and across, values of about unit deviation."""
    coarse = rng.standard_normal((rows, columns or rows), dtype=np.float32)
    fine = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32)


def _lesion(side: int, rng: np.random.Generator, radius: tuple[float, float]) -> Field:
    """How deep a pixel lies in the lesion: 0 at its centre, 1 on its outline, above 1 outside."""
    size = rng.uniform(*radius)
    reach = 0.9 - size
    y, x = _grid(side)
    y, x = y - rng.uniform(-reach, reach) * 0.8, x - rng.uniform(-reach, reach) * 0.8
    turn, squash = rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    angle = np.arctan2(across / squash, along)
    outline = np.ones_like(angle)
    for lobes in (2, 3, 5, 8):
        outline += rng.uniform(0, 0.22 / lobes) * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    depth: Field = np.hypot(along, across / squash) / (size * outline)
    return depth


def _inside(depth: Field, edge: float = EDGE) -> Field:
    """1 in the lesion, 0 outside, softly from one to the other around the outline."""
    inside: Field = 1.0 / (1.0 + np.exp(np.clip((depth - 1.0) / (edge * 0.35), -30, 30)))
    return inside


def _ultrasound(depth: Field, rng: np.random.Generator) -> Field:
    side = len(depth)
    y, x = _grid(side)
    down = (y + 1.0) / 2.0 + 0.05 * _noise(rng, side, 3, 4)
    inside = _inside(depth)
    # skin, fat, gland and muscle lie in bands; fibres run across the picture
    gland = np.exp(-(((down - rng.uniform(0.35, 0.5)) / 0.22) ** 2))
    skin = np.exp(-(((down - 0.03) / 0.04) ** 2))
    fascia = np.exp(-(((down - rng.uniform(0.75, 0.9)) / 0.025) ** 2))
    fibres = np.abs(_noise(rng, side, 18, 4)) + 0.6 * np.abs(_noise(rng, side, 9, 5))
    fat = 0.16 * (_noise(rng, side, 6, 4) > 0.5) * (1.0 - gland)
    echo = 0.2 + 0.25 * gland + 0.6 * skin + 0.4 * fascia + 0.2 * fibres * (0.4 + gland) - fat
    # behind the lesion the beam is weaker (shadow) or stronger (enhancement)
    below = np.cumsum(inside, axis=0) / (0.25 * side)
    echo = echo * np.exp(rng.choice([-0.9, -0.5, 0.35]) * below.clip(0, 1) * (1.0 - inside))
    core = rng.uniform(0.04, 0.12) * (1.0 + 0.6 * _noise(rng, side, 7)).clip(0.1)
    rim = rng.uniform(0.0, 0.25) * np.exp(-(((depth - 1.12) / 0.08) ** 2))
    echo = (echo + rim) * (1.0 - inside) + core * inside
    echo = echo * np.exp(-rng.uniform(0.2, 1.1) * (y + 1.0))
    # speckle: the length of a sum of random waves, wider across the beam than along it
    grain = max(side / 256.0, 0.35)
    waves = rng.standard_normal((2, side, side), dtype=np.float32)
    waves = gaussian_filter(waves, (0, 0.8 * grain, 1.6 * grain))
    speckle = np.hypot(*(waves / waves.std()))
    grey = np.log1p(rng.uniform(6.0, 11.0) * (echo.clip(0.02) * (0.3 + 0.7 * speckle))) / 2.6
    grey = grey * (np.abs(x) < 1.0 - rng.uniform(0, 0.12) * (1.0 - y) / 2.0)
    return np.repeat(grey[..., None], 3, axis=2)


def _endoscopy(depth: Field, rng: np.random.Generator) -> Field:
    side = len(depth)
    y, x = _grid(side)
    inside = _inside(depth)
    far_y, far_x = rng.uniform(-0.6, 0.6, 2)
    away = np.hypot(y - far_y, x - far_x) + 0.12 * _noise(rng, side, 4)
    lumen = np.exp(-((away / rng.uniform(0.3, 0.5)) ** 2))
    # folds are rings around the lumen: bright crests with a sharp dark side
    phase = (away * rng.uniform(2.0, 3.2) + rng.uniform()) % 1.0
    folds = 0.16 * np.exp(-(((phase - 0.55) / 0.18) ** 2)) - 0.13 * np.exp(-(((phase - 0.85) / 0.07) ** 2))
    vessels = np.exp(-((_noise(rng, side, 9) / 0.09) ** 2)) * (_noise(rng, side, 4) > 0.2)
    light = 0.72 + folds - 0.5 * lumen + 0.05 * _noise(rng, side, 5) - 0.1 * vessels
    # a polyp is a dome: lit from the endoscope at the centre of the picture, dark in its own shade
    dome = np.sqrt((1.0 - depth.clip(0, 1) ** 2).clip(0))
    slope_y, slope_x = np.gradient(gaussian_filter(dome, side / 64.0))
    facing = -(slope_x * x + slope_y * y) * side / 6.0
    polyp = 0.72 + 0.18 * dome + 0.35 * facing.clip(-0.5, 0.5) + 0.09 * _noise(rng, side, 18)
    shade = 0.35 * np.exp(-(((depth - 1.08) / 0.1) ** 2)) * (1.0 - inside)
    light = (light - shade) * (1.0 - inside) + polyp * inside
    red = rng.uniform(0.85, 1.0)
    mucosa = np.array([red, rng.uniform(0.42, 0.55), rng.uniform(0.3, 0.42)], np.float32)
    paler = np.array([1.0, rng.uniform(1.1, 1.4), rng.uniform(1.15, 1.5)], np.float32)
    colour = mucosa * (1.0 - inside[..., None]) + mucosa * paler * inside[..., None]
    picture = light[..., None] * colour
    wet = _noise(rng, side, 22) + 0.8 * dome * inside
    shine = (gaussian_filter((wet > 2.3).astype(np.float32), 0.5) * light).clip(0, 1)
    picture = picture + (1.0 - picture) * 0.9 * shine[..., None]
    frame = np.hypot(y, x) if rng.random() < 0.6 else np.maximum(np.hypot(y, x) * 0.86, np.abs(x) * 1.02)
    picture = picture * (1.0 - 0.35 * (frame.clip(0, 1.2) ** 2))[..., None]
    return picture * (1.0 / (1.0 + np.exp((frame - 1.06) * 40.0)))[..., None]


def _dermoscopy(depth: Field, rng: np.random.Generator) -> Field:
    side = len(depth)
    y, x = _grid(side)
    tone = rng.uniform(0.55, 0.95)
    skin = tone * np.array([1.0, rng.uniform(0.72, 0.84), rng.uniform(0.6, 0.76)], np.float32)
    grain = 0.03 * _noise(rng, side, side // 2) + 0.035 * _noise(rng, side, 6)
    picture = skin * (1.0 + grain)[..., None]
    # pigment: deeper towards the middle, patchy, netted, with a border that fades unevenly
    ragged = depth + 0.05 * _noise(rng, side, 16)
    inside = _inside(ragged, EDGE * rng.uniform(0.7, 2.0))
    net = np.abs(_noise(rng, side, 26)) * rng.uniform(0.0, 0.25)
    patches = (0.75 + 0.25 * _noise(rng, side, 5) + net - 0.15 * depth.clip(0, 1)).clip(0.3, 1.3)
    pigment = (rng.uniform(0.45, 0.85) * patches * inside)[..., None]
    brown = np.array([0.55, rng.uniform(0.85, 1.0), rng.uniform(0.95, 1.1)], np.float32)
    picture = picture * (1.0 - pigment * brown).clip(0.08, 1.0)
    for _ in range(rng.poisson(3)):
        picture = picture * (1.0 - _hair(side, rng))[..., None]
    corner = np.hypot(y, x) - rng.uniform(1.0, 1.6)
    return picture * (1.0 / (1.0 + np.exp(corner * 14.0)))[..., None]


def _hair(side: int, rng: np.random.Generator) -> Field:
    """How dark a hair, an arc of a large circle, makes each pixel."""
    y, x = _grid(side)
    bend, turn = rng.uniform(1.5, 6.0), rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(-0.9, 0.9)
    along = np.cos(turn) * x + np.sin(turn) * y
    across = np.cos(turn) * y - np.sin(turn) * x
    off = np.abs(np.hypot(along, across - bend - offset) - bend)
    width = max(rng.uniform(0.008, 0.018), 0.9 / side)
    part = (along > rng.uniform(-1.4, -0.1)) & (along < rng.uniform(0.1, 1.4))
    dark: Field = rng.uniform(0.5, 0.85) * np.exp(-((off / width) ** 2)) * part
    return dark


KINDS: dict[str, Callable[[Field, np.random.Generator], Field]] = {
    "ultrasound": _ultrasound,
    "endoscopy": _endoscopy,
    "dermoscopy": _dermoscopy,
}
