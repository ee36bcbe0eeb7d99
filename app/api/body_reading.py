"""The body of a request: its bytes, up to a limit, and what their JSON says.

Owns: that never more of a body is held than its limit, that what is held is counted, and the errors of JSON that is
none, is nested too deep, or is not what was asked for.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Receive

from app.model.errors import Refusal, invalid, too_large
from app.model.limits import NESTING_MOST
from app.model.nesting import nested_deeper

ERROR_TEXT_CHARS = 300
"""How much is said of what was not of its type."""

UNCOUNTED_BYTES = 4096
"""Bodies that come whole and are no larger are not counted: their connection's own objects are."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def receive_body(receive: Receive, declared: bytes, limit_bytes: int, hold: Callable[[int], None]) -> bytes:
    """The body as it was sent; `declared` is its Content-Length, `hold` is told how much of it is held now.

    Refusal `too_large`, before anything is read if the length was declared. Raises ClientGone, and what `hold` raises.
    """
    if declared.isdigit() and int(declared) > limit_bytes:
        raise body_too_large(limit_bytes)
    whole, more = bytearray(), True  # not a list: a byte that comes alone would take fifty in it
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        size = len(whole) + len(piece)
        if size > limit_bytes:
            raise body_too_large(limit_bytes)
        more = message.get("more_body", False)
        if more or size > UNCOUNTED_BYTES:
            hold(size)
        if not more and not whole:
            return piece
        whole += piece
    return bytes(whole)


def body_too_large(limit_bytes: int) -> Refusal:
    """More than is read of a body."""
    return too_large(f"The body is larger than {limit_bytes} bytes.", "bodyBytes", limit_bytes)


def check_json(body: bytes, what: str = "The body") -> None:
    """Refusal `invalid_json` unless `body` is one JSON value, nested at most 64 deep."""
    decode_body(_RAW, body, nesting=False)
    check_nesting(body, what)


def check_nesting(text: bytes, what: str, most: int = NESTING_MOST, **more: Any) -> None:
    """Refusal `invalid_json` if a valid JSON text is nested deeper than `most`."""
    if nested_deeper(text, most):
        raise Refusal("invalid_json", f"{what} is nested deeper than {NESTING_MOST}.", **more)


_RAW = msgspec.json.Decoder(msgspec.Raw)
_INDEX = "$["


def decode_body(decoder: "msgspec.json.Decoder[Any]", body: bytes, *, nesting: bool = True) -> Any:
    """What the body says, as the decoder's type. Refusals: invalid_json, invalid_request (with `index` in an array).

    What no type of ours looks at is not nested deeper than 64 either, unless the caller sees to it (not `nesting`).
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        place = text.rpartition(" - at `")[2]
        more = {"index": int(place[2 : place.index("]")])} if place.startswith(_INDEX) and place[2].isdigit() else {}
        if len(text) > ERROR_TEXT_CHARS:  # it says what was sent
            text = f"{text[:ERROR_TEXT_CHARS]}..." + (f" - at `{place}" if place else "")
        raise invalid(f"{text.replace(' - at `$', ' - at `body')}.", **more) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("invalid_json", f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Refusal("invalid_json", f"The body is nested deeper than {NESTING_MOST}.") from None
    if nesting:
        check_nesting(body, "The body", NESTING_MOST + 1)
    return value
