"""Log entries: from the bytes of a request to record batches ready for the stream. No I/O.

Owns: what an entry may look like, every limit on it, the mark of a cut message, and the text in which lines are stored.

Never: keeps a batch of which one entry is bad. The first entry over a limit is named, else the first bad one.

Always: yields between slices of about 60 KB, so that a batch of 32 MiB is many short turns and not one long one; what
is stored is what was sent, metadata byte by byte (only line breaks between its values become blanks, for NDJSON).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, cast

import msgspec
from msgspec import Meta, Raw, Struct

from app.logs.levels import SPELLINGS, Level
from app.model.errors import Refusal, TooLarge, invalid, too_large
from app.model.json_items import TooLong, array_elements, member_elements
from app.model.limits import KIB, NESTING_MOST
from app.model.nesting import nested_deeper
from app.model.steps import Steps
from app.model.times import are_canonical, canonical

ENTRIES_MOST = 10_000
ENTRY_BYTES = 4_194_304
"""The longest entry that is looked at, for no step is longer than to decode one."""

MESSAGE_BYTES = 64 * KIB
METADATA_BYTES = 16 * KIB
SOURCE_CHARS = 200
SLICE_BYTES = 60_000
SLICE_ITEMS = 1000
ARRAY_BYTES = 4 * SLICE_BYTES
"""A body of JSON of up to so many bytes is decoded at once, which takes about a millisecond at the worst."""

PART_BYTES = 64 * KIB


NO_METADATA = Raw()


MessageText = Annotated[str, Meta(max_length=MESSAGE_BYTES // 4)]
"""A message of at most 16 Ki characters needs no look at its bytes."""


class Line(Struct, omit_defaults=True, gc=False):
    """An entry as nearly all are sent, which becomes the line that is stored, in the order of docs/redis.md."""

    message: MessageText
    level: Level | None = Level.INFO
    source: Annotated[str, Meta(max_length=SOURCE_CHARS)] | None = None
    metadata: Raw = NO_METADATA
    timestamp: str | None = None
    """None once it is a line."""

    loggedAt: str | None = None
    """Its time, once it is a line: what is sent under this name is not looked at."""


class AnyEntry(Struct, gc=False):
    """An entry whose types are right, and whose limits are still to be checked."""

    message: str
    level: str | None = None
    timestamp: str | None = None
    source: str | None = None
    metadata: Raw = NO_METADATA


class Wrapped(Struct, gc=False):
    """An object around the array of entries."""

    logs: Raw


class WrappedLines(Struct, gc=False):
    """The same where all entries are usual."""

    logs: list[Line | MessageText]


class Part(NamedTuple):
    """One entry of the stream: how many lines it holds, and the JSON array of them."""

    lines: int
    text: bytes


class Batch(NamedTuple):
    """A whole batch: its parts in order, their lines and bytes in all, and how many messages were cut."""

    parts: Sequence[Part]
    lines: int
    bytes: int
    truncated: int


_entries = msgspec.json.Decoder(list[Line | MessageText])
_entry_lines = msgspec.json.Decoder(Line | MessageText)
_any_entry = msgspec.json.Decoder(AnyEntry | str)
_wrapped = msgspec.json.Decoder(Wrapped)
_wrapped_lines = msgspec.json.Decoder(WrappedLines)
_encode = msgspec.json.Encoder().encode

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BLANK_LINES = re.compile(rb"\n[ \t\r\n]*\n")


def decode_batch_steps(body: bytes, *, ndjson: bool) -> Steps[Batch]:
    """The batch in a body of NDJSON or JSON, a slice in a step.

    The body is valid UTF-8, which was checked before: the decoder does not look at what it skips or keeps raw.

    Raises Refusal: `too_large` or `invalid_entry` with the `index` of the entry, `invalid_json`, `invalid_request`.
    """
    if not ndjson and len(body) <= ARRAY_BYTES:
        batch = yield from usual_array_steps(body)
        if batch is not None:
            return batch
    intake = Intake()
    if ndjson:
        for number, piece in enumerate(line_pieces(body)):
            if number:
                yield
            yield from intake.add_lines_steps(piece)
    else:
        for number, items in enumerate(item_pieces(body)):
            if number:
                yield
            intake.add_items(items)
    return intake.finish()


def usual_array_steps(body: bytes) -> Steps[Batch | None]:
    """The batch in a short body of JSON; None unless all of its entries are usual, and fine."""
    try:
        entries = entries_of(body)
        if len(entries) > ENTRIES_MOST:
            return None
        intake, most = Intake(), max(1, len(entries) * SLICE_BYTES // len(body))
        for start in range(0, len(entries), most):
            yield
            intake.add(lines_of(entries[start : start + most]))
        return intake.finish()
    except (*MALFORMED, Refusal):
        return None


def entries_of(body: bytes) -> list[Line | str]:
    """The entries of a JSON array, or of the object around it, if all are usual. Raises what MALFORMED names."""
    return _wrapped_lines.decode(body).logs if is_wrapped(body) else _entries.decode(body)


def is_wrapped(body: bytes) -> bool:
    """Whether a body is an object, if it is JSON."""
    return body.lstrip()[:1] == b"{"


def line_pieces(body: bytes) -> Iterator[bytes]:
    """NDJSON cut at line ends into about SLICE_BYTES; a longer line is a piece of its own."""
    start = 0
    while start < len(body):
        reach = start + SLICE_BYTES
        end = len(body)
        if reach < end:
            end = body.rfind(b"\n", start, reach) + 1 or body.find(b"\n", reach) + 1 or end
        yield body[start:end]
        start = end


def item_pieces(body: bytes) -> Iterator[list[Raw]]:
    """The items of a JSON array of entries, or of the object around it, in groups of about SLICE_BYTES."""
    group: list[Raw] = []
    size = 0
    for item in items_of(body) if len(body) <= ENTRY_BYTES else large_items_of(body):
        item_bytes = len(memoryview(item))
        if group and item_bytes > SLICE_BYTES:
            yield group
            group, size = [], 0
        group.append(item)
        size += item_bytes
        if size > SLICE_BYTES or len(group) == SLICE_ITEMS:
            yield group
            group, size = [], 0
    yield group


def large_items_of(body: bytes) -> Iterator[Raw]:
    """As `items_of`, one by one; with `too_large` for an item or another member that is too long to be looked at."""
    items = 0
    try:
        array = member_elements(body, "logs", ENTRY_BYTES) if is_wrapped(body) else array_elements(body, ENTRY_BYTES)
        for item in array:
            yield Raw(item)
            items += 1
    except TooLong:
        raise entry_too_long(items) from None
    except LookupError:
        raise no_log_array() from None
    except RecursionError:
        raise Refusal("invalid_json", "The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("invalid_json", f"The body is not JSON: {error}.") from None


def items_of(body: bytes) -> Sequence[Raw]:
    """The items of the array, undecoded. Refusal `invalid_json`, `invalid_request`, `too_large`."""
    array = array_decoder(len(body) > SLICE_BYTES)
    try:
        array_items = array.decode(_wrapped.decode(body).logs if is_wrapped(body) else body)
    except msgspec.ValidationError as error:
        if "at most length" in str(error):
            raise too_many_entries() from None
        raise no_log_array() from None
    except RecursionError:
        raise Refusal("invalid_json", "The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("invalid_json", f"The body is not JSON: {error}.") from None
    return (
        array_items
        if isinstance(array_items, list)
        else [item for item in msgspec.structs.astuple(array_items) if item]
    )


@cache
def array_decoder(bounded: bool) -> msgspec.json.Decoder[Any]:
    """A decoder of an array.

    A list grows with what it is given: millions of items in a body that is to be refused for them. A struct of
    ENTRIES_MOST places, laid out as an array, does not, but takes a tenth of a millisecond: so for large bodies only,
    and once for each, however often an object names its `logs`.
    """
    kind: Any = list[Raw]
    if bounded:
        places = [(f"item{i}", Raw, NO_METADATA) for i in range(ENTRIES_MOST)]
        kind = msgspec.defstruct("Places", places, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind)


class Intake:
    """A batch on its way in: its parts so far, and the first entry over a limit or otherwise bad."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.lines = 0
        self.truncated = 0
        self._over: Refusal | None = None
        self._bad: Refusal | None = None

    def add_lines_steps(self, piece: bytes) -> Steps[None]:
        """A piece of NDJSON; blank lines do not count."""
        piece = piece.strip(b" \t\r\n")
        if len(piece) > 2 * SLICE_BYTES:
            self._keep(self._one_by_one(self._count(1), [piece]))
            return
        if not piece:
            return
        lines = lines_in(_entry_lines.decode_lines, piece)
        if len(lines) == piece.count(b"\n") + 1:
            self.add(lines)
        elif (denser := _BLANK_LINES.sub(b"\n", piece)) != piece:
            yield from self.add_lines_steps(denser)
        else:
            texts = piece.split(b"\n")
            first = self._count(len(texts))
            for start in range(0, len(texts), SLICE_ITEMS):
                yield
                self._keep(self._one_by_one(first + start, texts[start : start + SLICE_ITEMS]))

    def add(self, lines: Sequence[Line]) -> None:
        """Lines that are fine."""
        self._count(len(lines))
        self._keep(lines)

    def add_items(self, items: list[Raw]) -> None:
        """Items of a JSON array."""
        first = self._count(len(items))
        lines = lines_in(_entries.decode, b"[" + b",".join(items) + b"]") if len(items) > 1 else ()
        self._keep(lines or self._one_by_one(first, items))

    def finish(self) -> Batch:
        """The whole batch. Raises the fault that was found: one over a limit goes before any other."""
        fault = self._over or self._bad
        if fault is not None:
            raise fault
        return Batch(self.parts, self.lines, sum(len(part.text) for part in self.parts), self.truncated)

    def _count(self, entries: int) -> int:
        first, self.lines = self.lines, self.lines + entries
        if self.lines > ENTRIES_MOST:
            raise too_many_entries()
        return first

    def _one_by_one(self, first: int, texts: Sequence[bytes | Raw]) -> list[Line]:
        """The lines of a piece that has something unusual; notes which entry is at fault."""
        lines = []
        for index, text in enumerate(texts, first):
            if len(memoryview(text)) > ENTRY_BYTES:
                self._note(entry_too_long(index))
                continue
            try:
                line, cut = unusual_line(text)
                self.truncated += cut
                lines.append(line)
            except Refusal as fault:
                self._note(type(fault)(fault.code, f"Entry {index}: {fault.text}", index=index, **fault.more))
        return lines

    def _note(self, fault: Refusal) -> None:
        if isinstance(fault, TooLarge):
            self._over = self._over or fault
        else:
            self._bad = self._bad or fault

    def _keep(self, lines: Sequence[Line]) -> None:
        if lines and not (self._over or self._bad):
            self.parts.extend(encode_parts(lines))


def encode_parts(lines: Sequence[Line]) -> Iterator[Part]:
    """Parts of at most PART_BYTES that hold these lines; a longer line has one of its own."""
    text = _encode(lines)
    if len(text) <= PART_BYTES or len(lines) == 1:
        yield Part(len(lines), text)
        return
    half = len(lines) // 2
    yield from encode_parts(lines[:half])
    yield from encode_parts(lines[half:])


def lines_in(decode: Callable[[bytes], list[Line | str]], text: bytes) -> Sequence[Line]:
    """The lines of a text of usual entries; none when one of them is not usual, or not fine."""
    try:
        return lines_of(decode(text))
    except (*MALFORMED, Refusal):
        return ()


def lines_of(entries: Sequence[Line | str]) -> Sequence[Line]:
    """The lines of usual entries, made in place, column by column. Refusal when a time or metadata are not fine."""
    if list(map(type, entries)).count(Line) < len(entries):
        entries = [Line(entry) if isinstance(entry, str) else entry for entry in entries]
    lines = cast("Sequence[Line]", entries)
    if None in [line.level for line in lines]:
        for line in lines:
            line.level = line.level or Level.INFO
    sent = [line.metadata for line in lines]
    if (metadata := metadata_column(sent)) is not sent:
        for line, raw in zip(lines, metadata, strict=True):
            line.metadata = raw
    times = [line.timestamp for line in lines]
    if times.count(None) < len(lines) or [line.loggedAt for line in lines].count(None) < len(lines):
        for line, time in zip(lines, times_column(times), strict=True):
            line.loggedAt, line.timestamp = time, None
    return lines


def metadata_column(sent: list[Raw]) -> list[Raw]:
    """The metadata to store, of many lines. Refusal `too_large` or `invalid_entry`."""
    there = [raw for raw in sent if raw]
    if not there or are_fine(there):
        return sent
    return [metadata_of(raw) if raw else NO_METADATA for raw in sent]


def are_fine(metadata: Sequence[Raw]) -> bool:
    """Whether these metadata, one at least, may be stored as they are, so far as a look at all in one piece tells."""
    whole = b"\n".join(metadata)
    texts = whole.split(b"\n")
    if len(texts) > len(metadata) or b"\r" in whole or {text[:1] for text in texts} != {b"{"}:
        return False
    longest = max(map(len, texts))
    if longest > METADATA_BYTES:
        return False
    # Each level takes two bytes.
    return longest <= 2 * NESTING_MOST or not any(nested_deeper(text, NESTING_MOST) for text in texts)


def times_column(sent: list[str | None]) -> list[str | None]:
    """The times to store, of many lines. Refusal `invalid_entry`."""
    times = [text for text in sent if text is not None]
    if not times or are_canonical(times):
        return sent
    return [None if text is None else logged_at(text) for text in sent]


def unusual_line(text: bytes | Raw) -> tuple[Line, bool]:
    """The line of any entry, and whether its message was cut. Refusal `invalid_entry` or `too_large` without index."""
    try:
        entry = _any_entry.decode(text)
    except msgspec.ValidationError as error:
        raise bad_entry(str(error)) from None
    except RecursionError:
        raise bad_entry("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_entry("not JSON") from None
    if isinstance(entry, str):
        message = shorten_message(entry)
        return Line(message), message is not entry
    level = SPELLINGS.get((entry.level or "info").lower())
    if level is None:
        raise bad_entry(f"level is one of {', '.join(each.value for each in Level)}")
    if entry.source is not None and len(entry.source) > SOURCE_CHARS:
        raise too_large(f"source has more than {SOURCE_CHARS} characters", "sourceChars", SOURCE_CHARS)
    message = shorten_message(entry.message)
    metadata = metadata_of(entry.metadata) if entry.metadata else NO_METADATA
    time = None if entry.timestamp is None else logged_at(entry.timestamp)
    return Line(message, level, entry.source, metadata, loggedAt=time), message is not entry.message


def no_log_array() -> Refusal:
    return invalid("Logs are a JSON array of entries, or an object with one as `logs`.")


def entry_too_long(index: int) -> Refusal:
    return too_large(f"Entry {index}: longer than {ENTRY_BYTES} bytes", "entryBytes", ENTRY_BYTES, index=index)


def bad_entry(why: str) -> Refusal:
    return Refusal("invalid_entry", why)


def too_many_entries() -> Refusal:
    return too_large(f"A batch has at most {ENTRIES_MOST} entries.", "entries", ENTRIES_MOST, index=ENTRIES_MOST)


def shorten_message(message: str) -> str:
    """The message itself, or its beginning and a mark that says so, in at most MESSAGE_BYTES of UTF-8."""
    if len(message) <= MESSAGE_BYTES // 4:
        return message
    text = message.encode()
    if len(text) <= MESSAGE_BYTES:
        return message
    mark = f"… [cut: {len(text)} bytes]"
    return text[: MESSAGE_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def metadata_of(raw: Raw) -> Raw:
    """The metadata to store: the bytes that were sent, on one line. Refusal `too_large` or `invalid_entry`."""
    text = bytes(raw)
    if text == b"null":
        return NO_METADATA
    if text[:1] != b"{":
        raise bad_entry("metadata is a JSON object")
    if len(text) > METADATA_BYTES:
        raise too_large(f"metadata is larger than {METADATA_BYTES} bytes", "metadataBytes", METADATA_BYTES)
    if nested_deeper(text, NESTING_MOST):
        raise bad_entry(f"metadata is nested deeper than {NESTING_MOST}")
    if b"\n" in text or b"\r" in text:
        return Raw(text.replace(b"\n", b" ").replace(b"\r", b" "))
    return raw


def logged_at(text: str) -> str:
    """An entry's own time, in the form in which all times are answered. Refusal `invalid_entry`."""
    try:
        return canonical(text)
    except ValueError as error:
        raise bad_entry(f"timestamp: {error}") from None
