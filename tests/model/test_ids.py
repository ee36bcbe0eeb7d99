"""Ids: what they are made of, and that nothing of a job's can be guessed from its neighbour's."""

from hypothesis import given
from hypothesis import strategies as st

from app.model.ids import ALPHABET, encode_ulid, is_ulid, new_job_ids, new_space_id, space_tag_of

MOMENTS = st.integers(0, 2**48 - 1)


def number(ulid: str) -> int:
    """The 128 bits of a ULID."""
    value = 0
    for char in ulid:
        value = value << 5 | ALPHABET.index(char)
    return value


@given(MOMENTS, st.binary(min_size=10, max_size=10))
def test_a_ulid_is_its_moment_and_ten_bytes(at_ms: int, entropy: bytes) -> None:
    made = encode_ulid(at_ms, entropy)
    assert is_ulid(made)
    assert number(made) == at_ms << 80 | int.from_bytes(entropy)


@given(MOMENTS, MOMENTS)
def test_a_job_id_has_its_moment_and_the_tag_of_its_space(space_ms: int, job_ms: int) -> None:
    space = new_space_id(space_ms)
    for made in new_job_ids(space, job_ms, 3):
        assert is_ulid(made)
        assert number(made) >> 80 == job_ms
        assert number(made) >> 56 & 0xFFFFFF == number(space) >> 56 & 0xFFFFFF
        assert space_tag_of(made) == space_tag_of(space)


def test_fifty_six_bits_of_each_job_id_of_a_batch_are_its_own() -> None:
    rests = [number(made) & 2**56 - 1 for made in new_job_ids(new_space_id(1), 1, 1000)]
    assert len(set(rests)) == 1000
    for bit in range(56):
        assert 350 < sum(rest >> bit & 1 for rest in rests) < 650
