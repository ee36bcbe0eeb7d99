-- include: statuses
-- include: lease_fence
-- include: lease
-- keepalive_job(...): the lease anew. job_keepalive.lua says what it takes and answers.
local function keepalive_job(space, now, id, token)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if not is_leased(job.status) then return { 'state', job.status } end

  return { 'ok', job.status, renew(space, id, job, now) }
end
