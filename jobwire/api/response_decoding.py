"""Answers as the structs of `response_structs`; one that keeps no promise of the API becomes an `OutcomeUnknown`."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ..errors import OutcomeUnknown
from .http_client import Answer

_Answered = TypeVar("_Answered")


def decoded(answer: Answer, shape: type[_Answered]) -> _Answered:
    """The body of a successful answer. Raises `OutcomeUnknown` when it is not of this shape."""
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OutcomeUnknown("The server's answer was not what its API promises.") from error
