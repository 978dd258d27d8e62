"""HOST:PORT in words."""


def read_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, the host of an IPv6 address in brackets or not.

    Raises:
        ValueError: it is not of that form; the message says what to write.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("write HOST:PORT, like study.example.org:9092")
    if "/" in host:
        raise ValueError("write HOST:PORT without https://, like study.example.org:9092")
    return host.strip("[]"), int(port)
