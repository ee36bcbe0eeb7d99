-- include: statuses
-- include: lease_fence
-- include: job
-- include: space_bytes
-- include: event_message
-- include: gathered
-- include: lease
-- include: spelled
-- progress_job(...): the latest progress. job_progress.lua says what it takes and answers.
local function progress_job(space, now, id, token, progress)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if not is_leased(job.status) then return { 'state', job.status } end

  local lease_end = renew(space, id, job, now)
  redis.call('HSET', job.key, 'progress', progress, 'progressAt', spelled(now), 'updatedAt', spelled(now))
  if job.bytes and #progress > PROGRESS_FREE_BYTES then
    local over = #progress - PROGRESS_FREE_BYTES
    local held = tonumber(redis.call('HGET', job.key, 'progressBytes') or 0)
    if over > held then
      hold_bytes(job, over - held)
      save_job(space, job, 'progressBytes', over)
    end
  end
  local text = message(id, job, 'progress', progress, space_seq(space), spelled(now), 'null')
  redis.call('PUBLISH', space .. 'live:' .. id, text)
  redis.call('PUBLISH', space .. 'live', text)
  return { 'ok', job.status, lease_end }
end
