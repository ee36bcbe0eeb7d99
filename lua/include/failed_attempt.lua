-- include: job_counts
-- include: emit
-- include: lease
-- include: make_pending
-- include: finish
-- What happens when an attempt did not succeed.

-- retry_delay(job): the setting's numbers: base, factor, most of an exponential delay; nil, nil, seconds of a fixed one.
local function retry_delay(job)
  local setting = redis.call('HGET', job.key, 'retryDelay') or '0'
  local base, factor, most = string.match(setting, '^(%S+) (%S+) (%S+)$')
  return tonumber(base), tonumber(factor), tonumber(most or setting)
end

-- most_delay_ms(job): how long the next attempt waits at the longest.
local function most_delay_ms(job)
  local base, _, most = retry_delay(job)
  return base == 0 and 0 or most * 1000
end

-- delay_ms(...): how long the next attempt waits. retryDelay is 'seconds', or 'base factor max' for an exponential
-- delay with full jitter: a share `chance` (0..1) of min(max, base * factor ^ attempt).
-- https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
local function delay_ms(job, chance)
  local base, factor, most = retry_delay(job)
  if not base then return math.floor(most * 1000) end
  local cap = math.min(most, base * factor ^ job.attempt)
  return math.floor(cap * 1000 * chance)
end

-- fail_attempt(...): another attempt if one is left and `may_retry`, else dead. `reason` is '' or a JSON member.
-- `wait_ms` is in the place of the job's own delay, if it is given.
-- Returns when the callback of a dead job is due, or false.
local function fail_attempt(space, id, job, problem, reason, may_retry, chance, now, keep_ms, wait_ms)
  if not may_retry or job.attempt >= job.max_retries then
    local data = '{"error":' .. problem .. reason .. '}'
    return finish(space, id, job, 'dead', data, '{"error":' .. problem .. '}', now, keep_ms)
  end
  release(space, id)
  wait_ms = wait_ms or delay_ms(job, chance)
  job.attempt = job.attempt + 1
  local data = '{"error":' .. problem .. ',"attemptNumber":' .. job.attempt .. reason .. '}'
  if wait_ms == 0 then
    make_pending(space, id, job, 'retried', data, now, { 'attemptNumber', job.attempt, 'deliveries', 0 })
    return false
  end
  move(space, id, job, 'scheduled')
  redis.call('ZADD', space .. 'scheduled', now + wait_ms, id)
  emit(space, id, job, 'retried', data, next_feed(space), now, job_counts(space))
  redis.call('HSET', job.key, 'status', 'scheduled', 'scheduledFor', now + wait_ms, 'attemptNumber', job.attempt,
    'deliveries', 0, 'updatedAt', now, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
  redis.call('HDEL', job.key, 'deliveredAt', 'startedAt')
  return false
end
