-- include: job_counts
-- include: emit_event
-- include: lease
-- include: pending_queue
-- deliver(...): pending -> delivered, and what a worker gets: {id, token, name, payload, timeoutSeconds, maxRetries,
-- attemptNumber, createdAt, checkpoint, traceparent}.
local function deliver(space, id, job, token, now)
  dequeue(space, id, job)
  grant(space, id, token, job.timeout_ms, now)
  move(space, id, job, 'delivered')
  emit(space, id, job, 'delivered', 'null', next_feed(space), now, job_counts(space))
  redis.call('HSET', job.key, 'status', job.status, 'deliveredAt', now, 'updatedAt', now, 'leaseToken', token,
    'deliveries', job.deliveries + 1, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
  local field = redis.call('HMGET', job.key, 'payload', 'createdAt', 'checkpoint', 'traceparent')
  return { id, token, job.name, field[1], job.timeout_ms / 1000, tonumber(job.max_retries), job.attempt, field[2], field[3],
    field[4] }
end
