-- include: statuses
-- include: lease_fence
-- include: job
-- include: space_bytes
-- include: emit_event
-- include: gathered
-- include: lease
-- include: spelled
-- checkpoint_job(...): what the next attempt shall know. job_checkpoint.lua says what it takes and answers.
local function checkpoint_job(space, now, id, token, checkpoint)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if not is_leased(job.status) then return { 'state', job.status } end

  local lease_end = renew(space, id, job, now)
  hold_bytes(job, #checkpoint - redis.call('HSTRLEN', job.key, 'checkpoint'))
  emit(space, id, job, 'checkpoint', checkpoint, next_feed(space), now, 'null')
  save_job(space, job, 'checkpoint', checkpoint, 'updatedAt', spelled(now))
  return { 'ok', job.status, lease_end }
end
