-- The latest progress of a delivered or running job: a state, not an event. Renews the lease.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the progress
-- Replies: {'ok', status, lease end} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: none; a message of type progress on both channels, with the seqs of the events before it
-- Cost: 8 commands, up to 4 more for a long progress; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: space_bytes
-- include: event_message
-- include: lease
local space_key = KEYS[1]
local id, token, progress = ARGV[1], ARGV[2], ARGV[3]
local space = space_of(space_key)
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if not is_leased(job.status) then return { 'state', job.status } end

local lease_end = renew(space, id, job, now)
redis.call('HSET', job.key, 'progress', progress, 'progressAt', now, 'updatedAt', now)
if job.bytes and #progress > PROGRESS_FREE_BYTES then
  local over = #progress - PROGRESS_FREE_BYTES
  local held = tonumber(redis.call('HGET', job.key, 'progressBytes') or 0)
  if over > held then
    hold_bytes(space, job, over - held)
    redis.call('HSET', job.key, 'progressBytes', over)
  end
end
local text = message(id, job, 'progress', progress, redis.call('HGET', space_key, 'seq'), now, 'null')
redis.call('PUBLISH', space .. 'live:' .. id, text)
redis.call('PUBLISH', space .. 'live', text)
return { 'ok', job.status, lease_end }
