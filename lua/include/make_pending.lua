-- include: job
-- include: job_counts
-- include: emit_event
-- include: gathered
-- include: pending_queue
-- include: spelled
-- make_pending(...): back to pending, at the back of the queue; `kind` of event with `data`. Further fields and values are
-- the caller's part of the change.
local function make_pending(space, id, job, kind, data, now, ...)
  local feed = next_feed(space)
  move(space, id, job, 'pending')
  enqueue(space, id, job, feed)
  emit(space, id, job, kind, data, feed, now, job_counts(space))
  save_job(space, job, 'status', 'pending', 'updatedAt', spelled(now), ...)
  redis.call('HDEL', job.key, 'deliveredAt', 'startedAt')
end
