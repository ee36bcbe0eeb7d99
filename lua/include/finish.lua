-- include: job
-- include: job_counts
-- include: space_bytes
-- include: emit_event
-- include: gathered
-- include: lease
-- include: pending_queue
-- include: callback_outbox
-- include: end_stats
-- include: spelled
-- finish(...): the end of a job, whichever it is: completed, dead or killed; `kind` of event, its data and the result are
-- JSON. Further fields and values are written with it. The keys get a TTL that stands behind the sweeper. The log rests for
-- a minute, for late lines still come, before it is looked at. Returns when the callback is due, false for a job without one.
local LOG_REST_MS = 60000

local function finish(space, id, job, status, data, result, now, keep_ms, ...)
  drop_lease(space, id)
  if job.status == 'pending' then dequeue(space, id, job) end
  if job.status == 'scheduled' then drop_entry(space, 'scheduled', id) end
  move(space, id, job, status)
  put_entry(space, 'log_work', id, spelled(now + LOG_REST_MS))
  put_entry(space, 'ended', id, spelled(now))
  emit(space, id, job, status, data, next_feed(space), now, job_counts(space))
  hold_bytes(job, #result)
  save_job(space, job, 'status', status, 'result', result, 'completedAt', spelled(now), 'updatedAt', spelled(now), ...)
  note_end(space, job, now)
  redis.call('PEXPIRE', job.key, keep_ms)
  redis.call('PEXPIRE', job.key .. ':events', keep_ms)
  return arm(space, id, job, now)
end
