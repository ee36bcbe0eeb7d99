-- include: statuses
-- include: lease_fence
-- include: job
-- include: emit_event
-- include: gathered
-- include: lease
-- event_job(...): a custom event. job_event.lua says what it takes and answers.
local function event_job(space, now, id, token, data, most)
  local most_bytes = tonumber(most)
  local job, refusal = fenced_job(space, id, token)
  if refusal then return refusal end
  if has_ended(job.status) then return { 'state', job.status } end
  if most_bytes > 0 and held_bytes(space) + #data > most_bytes then
    return { 'space_full', most_bytes }
  end

  emit(space, id, job, 'event', data, next_feed(space), now, 'null')
  save_job(space, job)
  local leased = is_leased(job.status)
  return { 'ok', job.status, leased and renew(space, id, job, now) }
end
