import pytest

from protocol.address import read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [("a.example:9092", ("a.example", 9092)), ("10.0.0.1:1", ("10.0.0.1", 1)), ("[::1]:443", ("::1", 443))],
)
def test_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", "a.example", "a.example:", ":9092", "a:b", "a:0", "a:65536", "https://a:9092"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        read_address(text)
