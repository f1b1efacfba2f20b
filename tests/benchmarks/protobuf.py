"""As much of the encoding of protobuf as etcd's messages need, by hand: numbers and bytes in fields. Pure."""

from collections.abc import Iterator
from typing import Final

_VARINT: Final = 0
_BYTES: Final = 2


def varint(number: int) -> bytes:
    """Return a number that is not below zero."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def field(number: int, value: int | bytes) -> bytes:
    """Return one field."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Go through the fields of a message. Raises ValueError for a kind of field that is not known here."""
    at = 0
    while at < len(message):
        key, at = _read(message, at)
        value, at = _read(message, at)
        match key & 7:
            case 0:
                yield key >> 3, value
            case 2:
                yield key >> 3, message[at : at + value]
                at += value
            case kind:
                raise ValueError(f"field {key >> 3} is of kind {kind}")


def _read(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
