-- An operator lets a job run again that is dead or killed: -> pending, with one more retry than it has used.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- Replies: {'ok', 'pending'} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: requeued
-- Cost: about 25 commands
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: callback
-- include: finish
-- include: attempt
local space_key = KEYS[1]
local id, token = ARGV[1], ARGV[2]
local space = string.sub(space_key, 1, -6)
local now = now_ms()

local job = read_job(space .. 'job:' .. id)
local refusal = fence(job, token)
if refusal then return refusal end
if job.status ~= 'dead' and job.status ~= 'killed' then return { 'state', job.status } end

redis.call('ZREM', space .. 'ended', id)
redis.call('ZADD', space .. 'log_work', now, id)
disarm(space, id, job.key)
redis.call('PERSIST', job.key)
redis.call('PERSIST', job.key .. ':events')
requeue(space, id, job, 'requeued', 'null', now, { 'maxRetries', job.attempt + 1, 'deliveries', 0 })
redis.call('HDEL', job.key, 'result', 'completedAt')
return { 'ok', 'pending' }
