-- What the next attempt shall know, of a delivered or running job. Renews the lease.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the checkpoint, an object
-- Replies: {'ok', status, lease end} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: checkpoint
-- Cost: about 15 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: space_bytes
-- include: emit_event
-- include: lease
local space = space_of(KEYS[1])
local id, token, checkpoint = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if not is_leased(job.status) then return { 'state', job.status } end

local lease_end = renew(space, id, job, now)
hold_bytes(space, job, #checkpoint - redis.call('HSTRLEN', job.key, 'checkpoint'))
redis.call('HSET', job.key, 'checkpoint', checkpoint, 'updatedAt', now)
emit(space, id, job, 'checkpoint', checkpoint, next_feed(space), now, 'null')
redis.call('HSET', job.key, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
return { 'ok', job.status, lease_end }
