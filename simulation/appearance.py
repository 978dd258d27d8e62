"""How one site's machine changes every picture: gamma, colour, noise and blur, fixed for the site by a seed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Pixels = npt.NDArray[np.uint8]

# What strength 1 may do at most, either way.
GAMMA = 0.7  # logarithm of the exponent
CAST = 0.25  # logarithm of a channel's gain
NOISE = 12.0  # grey levels of standard deviation
BLUR = 0.006  # standard deviation as a share of the picture's side


@dataclass(frozen=True)
class Appearance:
    """One machine: the exponent, the gain of each channel, noise in grey levels, blur as a share of the side."""

    gamma: float
    gains: tuple[float, float, float]
    noise: float
    blur: float

    @classmethod
    def draw(cls, strength: float, seed: int) -> "Appearance":
        """A machine drawn by the seed; strength 0 is the machine that changes nothing."""
        rng = np.random.default_rng(seed)
        red, green, blue = np.exp(strength * rng.uniform(-CAST, CAST, 3)).tolist()
        return cls(
            gamma=float(np.exp(strength * rng.uniform(-GAMMA, GAMMA))),
            gains=(red, green, blue),
            noise=strength * rng.uniform(0, NOISE),
            blur=strength * rng.uniform(0, BLUR),
        )

    @property
    def neutral(self) -> bool:
        """Whether pictures stay as they are, bit for bit."""
        return self == Appearance(1.0, (1.0, 1.0, 1.0), 0.0, 0.0)

    def apply(self, image: Pixels, seed: int) -> Pixels:
        """The picture (H, W, 3) as this machine shows it; the seed draws its noise."""
        if self.neutral:
            return image
        light = (image.astype(np.float32) / 255.0) ** self.gamma * np.array(self.gains, np.float32)
        sigma = self.blur * max(image.shape[:2])
        light = gaussian_filter(light, (sigma, sigma, 0.0))
        grain = np.random.default_rng(seed).standard_normal((*image.shape[:2], 1), dtype=np.float32)
        levels: Pixels = (light * 255.0 + self.noise * grain + 0.5).clip(0, 255).astype(np.uint8)
        return levels
