-- include: retry_delay
-- include: job
-- include: job_counts
-- include: emit_event
-- include: gathered
-- include: lease
-- include: make_pending
-- include: finish
-- include: spelled
-- fail_attempt(...): another attempt if one is left and `may_retry`, else dead. `reason` is '' or a JSON member.
-- `wait_ms` is in the place of the job's own delay, if it is given.
-- Returns when the callback of a dead job is due, or false.
local function fail_attempt(space, id, job, problem, reason, may_retry, chance, now, keep_ms, wait_ms)
  if not may_retry or job.attempt >= job.max_retries then
    local data = '{"error":' .. problem .. reason .. '}'
    return finish(space, id, job, 'dead', data, '{"error":' .. problem .. '}', now, keep_ms)
  end
  drop_lease(space, id)
  wait_ms = wait_ms or delay_ms(job, chance)
  job.attempt = job.attempt + 1
  local data = '{"error":' .. problem .. ',"attemptNumber":' .. job.attempt .. reason .. '}'
  if wait_ms == 0 then
    make_pending(space, id, job, 'retried', data, now, 'attemptNumber', job.attempt, 'deliveries', 0)
    return false
  end
  move(space, id, job, 'scheduled')
  put_entry(space, 'scheduled', id, spelled(now + wait_ms))
  emit(space, id, job, 'retried', data, next_feed(space), now, job_counts(space))
  save_job(space, job, 'status', 'scheduled', 'scheduledFor', spelled(now + wait_ms), 'attemptNumber', job.attempt,
    'deliveries', 0, 'updatedAt', spelled(now))
  redis.call('HDEL', job.key, 'deliveredAt', 'startedAt')
  return false
end
