import pytest
import torch

from urwkv.ops.plain import FLOAT32_REACH, biwkv_plain
from urwkv.ops.reference import biwkv_reference


def both(tokens, decay, first, strength, dtype):
    """biwkv_plain in `dtype`, and the definition in float64."""
    generator = torch.Generator().manual_seed(tokens)
    k, v = torch.randn(2, 2, 3, tokens, 8, generator=generator)
    w = torch.linspace(-decay, decay, 8).expand(2, 8) / tokens
    u = torch.linspace(first, -first, 8).expand(2, 8) / tokens
    found = biwkv_plain(w, u, strength * k, v, dtype)
    wide = [x.double() for x in (w[:, None, None], u[:, None, None], strength * k, v)]
    return found, biwkv_reference(*wide).float()


@pytest.mark.parametrize("strength", [1, 30, 300])
@pytest.mark.parametrize("tokens", [1, 2, 17, 300])
def test_float32_is_exact_within_its_reach(tokens, strength):
    found, expected = both(tokens, FLOAT32_REACH, FLOAT32_REACH, strength, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("strength", [1, 300])
@pytest.mark.parametrize("tokens", [1, 17, 300])
def test_float64_reaches_farther(tokens, strength):
    found, expected = both(tokens, 200, 200, strength, torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_two_tokens_by_hand():
    # y_1 = (v_2 e^{k_2} + v_1 e^{u + k_1}) / (e^{k_2} + e^{u + k_1}); neighbours have no decay between them
    k = torch.tensor([0.0, 2.0]).log1p().view(1, 1, 2, 1)  # weights 1 and 3
    v = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    w, u = torch.full((1, 1), 5.0), torch.full((1, 1), 2.0).log()
    y = biwkv_plain(w, u, k, v)
    torch.testing.assert_close(y.flatten(), torch.tensor([(24 + 8) / (3 + 2), (4 + 48) / (1 + 6)]))


def test_the_dtype_of_the_values_is_kept():
    k = torch.zeros(1, 1, 3, 2)
    assert biwkv_plain(k[0, 0, :1], k[0, 0, :1], k, k, torch.float64).dtype == torch.float32
