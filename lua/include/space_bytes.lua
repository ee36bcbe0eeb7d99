-- What a job takes of what its space may hold, whose `bytes` are the sum over its jobs: its events (eventBytes) and all
-- else (bytes). The latter is JOB_BYTES, which any job costs, and the lengths of its name, payload, callback's URL and
-- headers, result, newest checkpoint, and what its longest progress has over PROGRESS_FREE_BYTES. A job that is older
-- than this count has no `bytes` and is never counted. JOB_BYTES stands in app/model/limits.py, too.
local JOB_BYTES = 1024
local PROGRESS_FREE_BYTES = 256

-- hold_bytes(job, more): so many bytes more of what is no event; save_job writes them.
local function hold_bytes(job, more)
  if job.bytes then job.bytes = job.bytes + more end
end
