-- A worker begins: delivered -> running. Repeated with the job's lease token it is answered again and changes nothing.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- Replies: {'ok', status, lease end} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: started
-- Cost: about 20 commands
-- include: space_prefix
-- include: clock
-- include: lease_fence
-- include: job_counts
-- include: emit_event
-- include: lease
local space = space_of(KEYS[1])
local id, token = ARGV[1], ARGV[2]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if job.status == 'running' and token ~= '' then
  return { 'ok', 'running', tonumber(redis.call('ZSCORE', space .. 'deadlines', id)) }
end
if job.status ~= 'delivered' then return { 'state', job.status } end

local lease_end = renew(space, id, job, now)
move(space, id, job, 'running')
emit(space, id, job, 'started', 'null', next_feed(space), now, job_counts(space))
redis.call('HSET', job.key, 'status', 'running', 'startedAt', now, 'updatedAt', now, 'deliveries', 0,
  'eventSeq', job.event_seq, 'eventBytes', job.event_bytes)
return { 'ok', 'running', lease_end }
