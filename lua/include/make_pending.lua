-- include: job_counts
-- include: emit_event
-- include: pending_queue
-- make_pending(...): back to pending, at the back of the queue; `kind` of event with `data`. The HSET of `fields` is the
-- caller's part of the change, an array of field, value, ...
local function make_pending(space, id, job, kind, data, now, fields)
  local feed = next_feed(space)
  move(space, id, job, 'pending')
  enqueue(space, id, job, feed)
  emit(space, id, job, kind, data, feed, now, job_counts(space))
  redis.call('HSET', job.key, 'status', 'pending', 'updatedAt', now, 'eventSeq', job.event_seq,
    'eventBytes', job.event_bytes, unpack(fields))
  redis.call('HDEL', job.key, 'deliveredAt', 'startedAt')
end
