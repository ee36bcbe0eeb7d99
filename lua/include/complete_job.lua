-- include: statuses
-- include: lease_fence
-- include: finish
-- include: spelled
-- complete_job(...): delivered or running -> completed. job_complete.lua says what it takes and answers.
local function complete_job(space, now, id, token, result, keep_ms)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if job.status == 'completed' and redis.call('HGET', job.key, 'result') == result then
    return { 'ok', 'completed', false }
  end
  if not is_leased(job.status) then return { 'state', job.status } end

  if job.status == 'running' then
    return { 'ok', 'completed', finish(space, id, job, 'completed', result, result, now, keep_ms) }
  end
  -- Nobody acked it: it began now.
  return { 'ok', 'completed', finish(space, id, job, 'completed', result, result, now, keep_ms, 'startedAt', spelled(now)) }
end
