-- A custom event of a job that has not ended. Renews the lease, if there is one.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the event's data
-- ARGV[4] bytes  that jobs and events of the space may take, 0 for no bound
-- Replies: {'ok', status, lease end or false} | {'no_job'} | {'lease_lost', status} | {'state', status} |
--          {'space_full', bytes}
-- Events: event
-- Cost: about 12 commands
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: emit_event
-- include: lease
local space_key = KEYS[1]
local id, token, data, most_bytes = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local space = space_of(space_key)
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if has_ended(job.status) then return { 'state', job.status } end
if most_bytes > 0 and tonumber(redis.call('HGET', space_key, 'bytes') or 0) + #data > most_bytes then
  return { 'space_full', most_bytes }
end

emit(space, id, job, 'event', data, next_feed(space), now, 'null')
redis.call('HSET', job.key, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
local leased = is_leased(job.status)
return { 'ok', job.status, leased and renew(space, id, job, now) }
