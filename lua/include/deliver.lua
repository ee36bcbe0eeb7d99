-- include: job
-- include: job_counts
-- include: emit_event
-- include: gathered
-- include: lease
-- include: pending_queue
-- include: spelled
-- deliver(...): pending -> delivered, and what a worker gets: {id, token, name, payload, timeoutSeconds, maxRetries,
-- attemptNumber, createdAt, checkpoint, traceparent, lease end}. With `begun` it is acked in the same step: pending ->
-- running, with the event `started` alone. The last four are the fields of the job that only its worker gets.
local function deliver(space, id, job, token, now, begun, payload, created_at, checkpoint, trace)
  dequeue(space, id, job)
  local lease_end = grant(space, id, job, token, now)
  local at = spelled(now)
  if begun then
    move(space, id, job, 'running')
    emit(space, id, job, 'started', 'null', next_feed(space), now, job_counts(space))
    save_job(space, job, 'status', 'running', 'deliveredAt', at, 'startedAt', at, 'updatedAt', at, 'leaseToken', token,
      'deliveries', 0)
  else
    move(space, id, job, 'delivered')
    emit(space, id, job, 'delivered', 'null', next_feed(space), now, job_counts(space))
    save_job(space, job, 'status', 'delivered', 'deliveredAt', at, 'updatedAt', at, 'leaseToken', token,
      'deliveries', job.deliveries + 1)
  end
  return { id, token, job.name, payload, job.timeout_ms / 1000, job.max_retries, job.attempt, created_at, checkpoint, trace,
    lease_end }
end
