"""What Redis's INFO tells: https://redis.io/docs/latest/commands/info/"""


def parse_info(text: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = text.decode().splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
