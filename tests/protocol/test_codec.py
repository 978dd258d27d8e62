import numpy as np
import pytest

from protocol.codec import RUN, Codec, decode, encode, encoded_bytes
from protocol.packing import Schema

SCHEMA = Schema.of(
    [
        ("a.weight", (3 * RUN - 7,), np.float32),
        ("b.weight", (5, 3), np.float32),
        ("n.running_mean", (5,), np.float32),
        ("n.running_var", (5,), np.float32),
        ("n.num_batches_tracked", (), np.int64),
    ]
)
PARAMETERS = 3 * RUN - 7 + 15
WHOLE = 5 * 4 + 5 * 4 + 8


def model(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {t.name: (size * rng.normal(0, 1, t.shape)).astype(t.dtype) for t in SCHEMA.tensors}
    arrays["n.running_var"] = np.abs(arrays["n.running_var"])
    return arrays | {"n.num_batches_tracked": np.array(seed)}


def moved(x: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    step = model(seed, 0.01)
    return {name: np.asarray(a + step[name], a.dtype) for name, a in x.items()} | {
        "n.num_batches_tracked": np.array(9)
    }


def there(codec: Codec, x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    data, _ = encode(codec, SCHEMA, SCHEMA.pack(x), SCHEMA.pack(y), None)
    assert len(data) == encoded_bytes(codec, SCHEMA)
    return decode(codec, SCHEMA, x, data)


def test_fp32_is_the_update_itself_bit_for_bit() -> None:
    x = model(1)
    y = moved(x, 2)
    packed = SCHEMA.pack(y)
    assert encode("fp32", SCHEMA, SCHEMA.pack(x), packed, None) == (packed, None)
    assert all((there("fp32", x, y)[name] == y[name]).all() for name in y)


def test_an_updates_length_is_known_beforehand() -> None:
    assert encoded_bytes("fp32", SCHEMA) == SCHEMA.nbytes
    assert encoded_bytes("bf16", SCHEMA) == 2 * PARAMETERS + WHOLE
    assert encoded_bytes("int8", SCHEMA) == PARAMETERS + 4 * 4 + WHOLE  # 3080 numbers are 4 runs


@pytest.mark.parametrize(("codec", "share"), [("bf16", 1 / 256), ("int8", 1 / 254)])
def test_a_parameter_is_off_by_half_a_step_at_most(codec: Codec, share: float) -> None:
    x = model(1)
    y = moved(x, 2)
    got = there(codec, x, y)
    for name in ("a.weight", "b.weight"):
        largest = np.abs(y[name] - x[name]).max() if codec == "bf16" else np.abs(y["a.weight"] - x["a.weight"]).max()
        largest = max(largest, np.abs(y[name] - x[name]).max())
        assert 0 < np.abs(got[name] - y[name]).max() <= largest * share * (1 + 1e-3) + 1e-6


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_statistics_and_counters_travel_as_they_are(codec: Codec) -> None:
    x = model(1)
    y = moved(x, 2)
    got = there(codec, x, y)
    assert all((got[name] == y[name]).all() for name in y if name.startswith("n."))


def test_int8_by_hand() -> None:
    schema = Schema.of([("w", (4,), np.float32)])
    x = {"w": np.zeros(4, np.float32)}
    y = {"w": np.array([1.27, -1.27, 0.014, 0.0], np.float32)}
    data, left = encode("int8", schema, schema.pack(x), schema.pack(y), None)
    assert np.frombuffer(data, np.int8, 4, 4).tolist() == [127, -127, 1, 0]
    assert left is not None
    np.testing.assert_allclose(left, [0, 0, 0.004, 0], atol=1e-7)
    again, _ = encode("int8", schema, schema.pack(x), schema.pack(y), left)
    assert np.frombuffer(again, np.int8, 4, 4).tolist() == [127, -127, 2, 0]  # 0.014 + 0.004 is nearer to 0.02


def test_bf16_by_hand() -> None:
    schema = Schema.of([("w", (3,), np.float32)])
    x = {"w": np.zeros(3, np.float32)}
    y = {"w": np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)}  # steps of 2^-7 above 1: two ties
    data, left = encode("bf16", schema, schema.pack(x), schema.pack(y), None)
    assert decode("bf16", schema, x, data)["w"].tolist() == [1.0, 1.0, 1 + 2**-6]
    assert left is not None
    assert left.tolist() == [0.0, 2**-8, -(2**-8)]


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_what_is_left_over_comes_later_and_never_grows(codec: Codec) -> None:
    x = model(1)
    packed, left, total, sent = SCHEMA.pack(x), None, 0.0, 0.0
    one = 0.0
    for number in range(50):
        y = moved(x, 100 + number)
        data, left = encode(codec, SCHEMA, packed, SCHEMA.pack(y), left)
        got = decode(codec, SCHEMA, x, data)
        total, sent = total + (y["a.weight"] - x["a.weight"]), sent + (got["a.weight"] - x["a.weight"])
        one = max(one, float(np.abs(y["a.weight"] - got["a.weight"]).max()))
    assert left is not None
    np.testing.assert_allclose(total - sent, left[: 3 * RUN - 7], atol=2e-5)
    assert np.abs(left).max() <= 2 * one


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8"])
def test_another_length_is_refused_before_it_is_read(codec: Codec) -> None:
    x = model(1)
    data, _ = encode(codec, SCHEMA, SCHEMA.pack(x), SCHEMA.pack(moved(x, 2)), None)
    for wrong in (data[:-1], data + b"x", b""):
        with pytest.raises(ValueError, match=r"bytes where .* (makes|were expected)|were expected"):
            decode(codec, SCHEMA, x, wrong)


def test_an_update_that_stays_put_stays_put() -> None:
    x = model(1)
    assert all((there("int8", x, x)[name] == x[name]).all() for name in x)
