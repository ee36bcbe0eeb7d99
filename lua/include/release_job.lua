-- include: statuses
-- include: lease_fence
-- include: job
-- include: job_counts
-- include: emit_event
-- include: gathered
-- include: lease
-- include: make_pending
-- include: spelled
-- release_job(...): a worker gives the job back. job_release.lua says what it takes and answers.
local function release_job(space, now, id, token, reason, wait)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if token ~= '' and (job.status == 'pending' or job.status == 'scheduled')
    and redis.call('HGET', job.key, 'released') == token then
    return { 'ok', job.status, job.attempt, redis.call('HGET', job.key, 'scheduledFor') }
  end
  if not is_leased(job.status) then return { 'state', job.status } end

  drop_lease(space, id)
  local data, released = '{"reason":' .. reason .. '}', job.token
  if tonumber(wait) == 0 then
    make_pending(space, id, job, 'released', data, now, 'deliveries', 0, 'released', released)
    return { 'ok', 'pending', job.attempt, false }
  end
  local due = string.format('%d', now + tonumber(wait))
  move(space, id, job, 'scheduled')
  put_entry(space, 'scheduled', id, due)
  emit(space, id, job, 'released', data, next_feed(space), now, job_counts(space))
  save_job(space, job, 'status', 'scheduled', 'scheduledFor', due, 'deliveries', 0, 'released', released, 'updatedAt',
    spelled(now))
  redis.call('HDEL', job.key, 'deliveredAt', 'startedAt')
  return { 'ok', 'scheduled', job.attempt, due }
end
