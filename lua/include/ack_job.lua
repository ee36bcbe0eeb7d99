-- include: lease_fence
-- include: job
-- include: job_counts
-- include: emit_event
-- include: gathered
-- include: lease
-- include: spelled
-- ack_job(...): delivered -> running. job_ack.lua says what it takes and answers.
local function ack_job(space, now, id, token)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if job.status == 'running' and token ~= '' then
    return { 'ok', 'running', tonumber(redis.call('ZSCORE', space .. 'deadlines', id)) }
  end
  if job.status ~= 'delivered' then return { 'state', job.status } end

  job.started = now
  local lease_end = renew(space, id, job, now)
  move(space, id, job, 'running')
  emit(space, id, job, 'started', 'null', next_feed(space), now, job_counts(space))
  save_job(space, job, 'status', 'running', 'startedAt', spelled(now), 'updatedAt', spelled(now), 'deliveries', 0)
  return { 'ok', 'running', lease_end }
end
