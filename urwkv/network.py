"""U-RWKV: a five-stage U-shaped network with Bi-WKV at its bottom (arXiv 2507.11415, MICCAI 2025).

Where the paper and its authors' code differ, both readings are a switch of `Architecture`.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch.nn.functional as F
from torch import Tensor, nn

from urwkv.blocks import DeepSASE, Fusion, Norm, Sase, ShallowSASE, Up, conv_norm_gelu
from urwkv.darm import DARM, Dual
from urwkv.head import Head
from urwkv.shift import Shift
from urwkv.steps import Steps

Variant = Literal["base", "small"]

STRIDE = 16  # four halvings on the way down


@dataclass(frozen=True)
class Size:
    """Widths of the five stages, and how much SASE and Fusion widen inside."""

    widths: tuple[int, int, int, int, int]
    ratio: int


SIZES: dict[Variant, Size] = {
    "base": Size((16, 32, 128, 160, 256), ratio=4),
    "small": Size((8, 16, 32, 64, 128), ratio=2),
}


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the network's shape; the one home of its defaults.

    Attributes:
        variant: "base" (2.98 M parameters) or "small" (0.47 M).
        sase: shallow SASE as in the paper's figure, "expand", or its "simple" form.
        dual: the second direction in DARM, see `urwkv.darm.DARM`.
        shift: the token shift, see `urwkv.shift.shift_tokens`.
        norm: "batch" or "group" (no buffers; needed for differential privacy).
        in_channels: channels of the images.
        num_classes: channels of the logits; 1 is lesion against background, otherwise class 0 is background.

    Raises:
        ValueError: a value is not allowed; the message begins with the field's name.
    """

    variant: Variant = "base"
    sase: Sase = "expand"
    dual: Dual = "paper"
    shift: Shift = "quad"
    norm: Norm = "batch"
    in_channels: int = 3
    num_classes: int = 1

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if get_origin(hint) is Literal:
                if value not in get_args(hint):
                    raise ValueError(f"{field.name} = {value!r} is not one of: {', '.join(get_args(hint))}")
            elif type(value) is not int or value < 1:
                raise ValueError(f"{field.name} = {value!r} must be a whole number of at least 1")


class URWKV(nn.Module):
    """The network: images (B, in_channels, H, W) to logits (B, num_classes, H, W), any H and W.

    Base has 2,977,313 parameters (2,827,297 with sase "simple"), small 466,865, at 3 channels and 1 class.

    The arguments are the fields of `Architecture`, which is kept as `.architecture`. Sides that are not
    multiples of 16 are padded, at the right and below, by repeating the edge, and the logits cropped back.

    Raises:
        ValueError: an argument is not allowed; or, when called, shift is "paper" and the image not square.
    """

    def __init__(
        self,
        *,
        variant: Variant = Architecture.variant,
        sase: Sase = Architecture.sase,
        dual: Dual = Architecture.dual,
        shift: Shift = Architecture.shift,
        norm: Norm = Architecture.norm,
        in_channels: int = Architecture.in_channels,
        num_classes: int = Architecture.num_classes,
    ) -> None:
        super().__init__()
        self.architecture = Architecture(variant, sase, dual, shift, norm, in_channels, num_classes)
        size = SIZES[variant]
        d, ratio = size.widths, size.ratio
        self.stem = conv_norm_gelu(in_channels, d[0], norm)
        shallow = zip((d[0], *d[:3]), d[:4], strict=True)
        self.down = nn.ModuleList(ShallowSASE(cin, cout, norm, sase, ratio) for cin, cout in shallow)
        self.pool = Steps(nn.MaxPool2d(2))
        self.deep = DeepSASE(d[3], d[4], norm)
        self.darm = DARM(d[4], dual, shift)
        self.up = nn.ModuleList(Up(d[i + 1], d[i], norm) for i in (3, 2, 1, 0))
        self.fuse = nn.ModuleList(Fusion(d[i], norm, ratio) for i in (3, 2, 1, 0))
        self.head = Head(d[0], num_classes)

    @classmethod
    def from_architecture(cls, architecture: Architecture) -> "URWKV":
        """The network that `architecture` describes, freshly initialised."""
        words: dict[str, Any] = asdict(architecture)
        return cls(**words)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        missing = (0, -width % STRIDE, 0, -height % STRIDE)
        x = self.stem(F.pad(images, missing, mode="replicate") if any(missing) else images)
        skips = []
        for stage in self.down:
            skip, x = self.pool.fork(stage(x))
            skips.append(skip)
        x = self.darm(self.deep(x))
        for up, fuse in zip(self.up, self.fuse, strict=True):
            x = fuse.join(skips.pop(), x, up)  # type: ignore[operator]
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]
