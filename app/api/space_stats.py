"""How a space fares: how its jobs ended lately, name by name."""

from app.api.call import Call
from app.api.response_schemas import EndsShown, NameShown, StatsShown, when
from app.api.responses import Answer, json_answer
from app.jobs.space_stats import OTHERS, Ends, EndsReader, NameStats


class StatsHandlers:
    """The handler of a space's numbers."""

    def __init__(self, ends: EndsReader) -> None:
        self._ends = ends

    async def of_space(self, call: Call) -> Answer:
        """GET /spaces/:spaceId/stats"""
        names = await self._ends.read_space(call.space)
        oldest_ms = min((one.oldest_ms for one in names if one.oldest_ms is not None), default=None)
        return json_answer(StatsShown([_name(one) for one in names], when(oldest_ms)))


def _name(one: NameStats) -> NameShown:
    name = None if one.name == OTHERS else one.name
    return NameShown(name, _ends(one.hour), _ends(one.day), one.pending, when(one.oldest_ms))


def _ends(ends: Ends) -> EndsShown:
    return EndsShown(
        ends.outcomes["completed"],
        ends.outcomes["dead"],
        ends.outcomes["killed"],
        ends.quantile_ms(0.5),
        ends.quantile_ms(0.95),
    )
