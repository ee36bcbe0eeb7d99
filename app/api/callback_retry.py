"""For those who are called back: another try of a callback."""

from app.api.call import Call
from app.api.response_schemas import Ended
from app.api.responses import Answer, json_answer
from app.jobs.job_store import JobStore


class CallbackHandlers:
    """The handler of another try."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def retry(self, call: Call) -> Answer:
        """POST /jobs/:jobId/callback/retry"""
        await call.skip_body()
        return json_answer(Ended(await self._store.retry_callback(call.space, call.job)))
