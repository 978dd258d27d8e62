import numpy as np
import pytest

from protocol.packing import Schema

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "n.running_var": np.array([1.5, 2.5], np.float32),
    "n.num_batches_tracked": np.array(7),
}


def schema(**changed: np.ndarray) -> Schema:
    return Schema.of((name, a.shape, a.dtype) for name, a in (ARRAYS | changed).items())


def test_what_is_packed_is_unpacked_bit_for_bit() -> None:
    packed = schema().pack(ARRAYS)
    assert len(packed) == schema().nbytes
    unpacked = schema().unpack(packed)
    assert unpacked.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert unpacked[name].dtype == array.dtype
        np.testing.assert_array_equal(unpacked[name], array)


def test_groups_follow_from_names_and_dtypes() -> None:
    assert [t.group for t in schema().tensors] == ["counter", "statistic", "parameter"]


def test_tensors_start_on_sixteen_byte_boundaries() -> None:
    assert [t.offset for t in schema().tensors] == [0, 16, 32]


def test_the_hash_tells_any_difference() -> None:
    others = [
        schema(w=ARRAYS["w"].astype(np.float64)),
        schema(w=ARRAYS["w"].reshape(3, 2)),
        Schema.of((n.replace("w", "v"), a.shape, a.dtype) for n, a in ARRAYS.items()),
    ]
    assert len({schema().hash, *(other.hash for other in others)}) == 4
    assert schema().hash == schema().hash


def test_the_order_of_the_entries_does_not_matter() -> None:
    assert Schema.of((n, a.shape, a.dtype) for n, a in reversed(ARRAYS.items())) == schema()


def test_a_packed_model_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="a packed model of 3 bytes where 56 were expected"):
        schema().unpack(b"abc")
