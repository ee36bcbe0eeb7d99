-- include: statuses
-- include: lease_fence
-- include: deliver
-- include: gathered
-- include: gathering
-- include: failed_attempt
-- include: retry_delay
-- fail_job(...): an attempt failed. job_fail.lua says what it takes and answers.
local function fail_job(space, now, id, token, problem, may_retry, chance, keep_ms, wait, fresh)
  local wait_ms = tonumber(wait)
  local job, refusal = fenced_job(space, id, token)
  local leased = job and is_leased(job.status)
  if leased and fresh ~= '' and token ~= '' then
    local failed, claimed = string.match(redis.call('HGET', job.key, 'claimedRetry') or '', '^(%S+) (%S+)$')
    if failed == token and claimed == job.token then
      local lease_end = tonumber(redis.call('ZSCORE', space .. 'deadlines', id))
      return { 'ok', job.status, 1, job.attempt, false, false, claimed, lease_end }
    end
  end
  if refusal then return refusal end
  if not leased then return { 'state', job.status } end
  if fresh ~= '' and (wait_ms or most_delay_ms(job)) > 0 then return { 'delayed' } end

  local failed = job.token
  local callback_due = fail_attempt(space, id, job, problem, '', may_retry == '1', tonumber(chance), now, keep_ms, wait_ms)
  if fresh ~= '' and job.status == 'pending' then
    if gathered then write_gathered() end
    job.deliveries = 0
    local delivered = deliver(space, id, job, fresh, now, false)
    redis.call('HSET', job.key, 'claimedRetry', failed .. ' ' .. fresh)
    return { 'ok', job.status, 1, job.attempt, false, callback_due, fresh, delivered[11] }
  end
  local due = job.status == 'scheduled' and redis.call('HGET', job.key, 'scheduledFor')
  return { 'ok', job.status, job.status == 'dead' and 0 or 1, job.attempt, due, callback_due, '', false }
end
