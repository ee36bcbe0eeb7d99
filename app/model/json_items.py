"""The elements of a large JSON array, one by one: no step looks further than one of them. No I/O.

Owns: where a value ends. msgspec says it when it is asked to decode a value with more behind it; what is between the
values is looked at here. An element is a valid JSON value; whether it is anything more is for those who decode it.
"""

import re
from collections.abc import Generator

import msgspec

NULL = msgspec.Raw(b"null")
"""The JSON value null, undecoded."""

VALUE_WINDOW_BYTES = 16_384
MEMBERS_MOST = 100
"""Members of the object around an array."""

_value = msgspec.json.Decoder(msgspec.Raw)
_name = msgspec.json.Decoder(str)
_SPACE = re.compile(rb"[ \t\r\n]{0,1048576}+")
# The place is that behind the character which should not be there.
_BEHIND = re.compile(r"JSON is malformed: trailing characters \(byte (\d+)\)")

Elements = Generator[bytes, None, int]
"""Elements of an array; the place behind it is the generator's value."""


class TooLong(Exception):
    """A value is longer than what is looked at."""


def array_elements(body: bytes, most_bytes: int) -> Generator[bytes, None, None]:
    """The elements of a body that is an array. Raises msgspec.DecodeError, RecursionError; TooLong at its turn."""
    end = yield from _elements(body, _space(body, 0), most_bytes)
    _finish(body, end)


def member_elements(body: bytes, member: str, most_bytes: int) -> Generator[bytes, None, None]:
    """The same of the array that is a member of an object, which has it once.

    Raises LookupError where it has not, or is no object.
    """
    at, has_member = _past(body, _space(body, 0), b"{"), False
    for _ in range(MEMBERS_MOST):
        end = value_end(body, at, most_bytes)
        name, at = _name.decode(body[at:end]), _past(body, end, b":")
        if name == member:
            if has_member or body[at : at + 1] != b"[":
                raise LookupError(member)
            has_member, at = True, (yield from _elements(body, at, most_bytes))
        else:
            at = value_end(body, at, most_bytes)
        at = _space(body, at)
        if body[at : at + 1] == b"}":
            _finish(body, at + 1)
            break
        at = _past(body, at, b",")
    if not has_member:
        raise LookupError(member)


def value_end(body: bytes, at: int, most_bytes: int) -> int:
    """The place behind the value that begins at `at`, and behind the blanks that follow it."""
    view, window = memoryview(body), VALUE_WINDOW_BYTES
    while True:
        window = min(window, most_bytes)
        last = at + window >= len(body)
        try:
            _value.decode(view[at : at + window])
            if last:
                return len(body)
        except msgspec.DecodeError as error:
            if behind := _BEHIND.fullmatch(str(error)):
                return at + int(behind[1]) - 1
            if last:
                raise
        # What is cut short may look like anything: only the whole of it can be wrong.
        if window == most_bytes:
            raise TooLong
        window *= 8


def _elements(body: bytes, at: int, most_bytes: int) -> Elements:
    at = _past(body, at, b"[")
    if body[at : at + 1] == b"]":
        return at + 1
    while True:
        end = value_end(body, at, most_bytes)
        yield body[at:end]
        at = _space(body, end)
        if body[at : at + 1] == b"]":
            return at + 1
        at = _past(body, at, b",")


def _space(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _past(body: bytes, at: int, mark: bytes) -> int:
    """The place of what comes after a mark, which has to be next."""
    at = _space(body, at)
    if body[at : at + 1] != mark:
        raise msgspec.DecodeError(f"JSON is malformed: expected '{mark.decode()}' (byte {at})")
    return _space(body, at + 1)


def _finish(body: bytes, at: int) -> None:
    if _space(body, at) != len(body):
        raise msgspec.DecodeError(f"JSON is malformed: trailing characters (byte {at})")
