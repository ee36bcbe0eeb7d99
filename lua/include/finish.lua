-- include: job_counts
-- include: space_bytes
-- include: emit_event
-- include: lease
-- include: pending_queue
-- include: callback_outbox
-- include: end_stats
-- finish(...): the end of a job, whichever it is: completed, dead or killed; `kind` of event, its data and the result are
-- JSON. The keys get a TTL that stands behind the sweeper. The log rests for a minute, for late lines still come, before
-- it is looked at. Returns when the callback is due, false for a job without one.
local LOG_REST_MS = 60000

local function finish(space, id, job, status, data, result, now, keep_ms)
  release(space, id)
  if job.status == 'pending' then dequeue(space, id, job) end
  if job.status == 'scheduled' then redis.call('ZREM', space .. 'scheduled', id) end
  move(space, id, job, status)
  redis.call('ZADD', space .. 'ended', now, id)
  redis.call('ZADD', space .. 'log_work', now + LOG_REST_MS, id)
  emit(space, id, job, status, data, next_feed(space), now, job_counts(space))
  hold_bytes(space, job, #result)
  redis.call('HSET', job.key, 'status', status, 'result', result, 'completedAt', now, 'updatedAt', now,
    'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
  note_end(space, job, now)
  redis.call('PEXPIRE', job.key, keep_ms)
  redis.call('PEXPIRE', job.key .. ':events', keep_ms)
  return arm(space, id, job.key, now)
end
