-- An attempt failed: delivered or running -> pending or scheduled while a retry is left, else dead.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the error, a string or null
-- ARGV[4] 0|1    whether a retry may follow
-- ARGV[5] float  a random share, 0 to 1, for the jitter of the retry delay
-- ARGV[6] ms     how long the job's keys live on, should nobody sweep
-- Replies: {'ok', status, willRetry 0|1, attemptNumber, scheduledFor or false, moment of the callback or false} |
--          {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: retried | dead
-- Cost: about 25 commands; works at maxmemory
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: callback
-- include: finish
-- include: attempt
local space_key = KEYS[1]
local id, token, problem, may_retry = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local chance, keep_ms = tonumber(ARGV[5]), ARGV[6]
local space = string.sub(space_key, 1, -6)
local now = now_ms()

local job = read_job(space .. 'job:' .. id)
local refusal = fence(job, token)
if refusal then return refusal end
if job.status ~= 'delivered' and job.status ~= 'running' then return { 'state', job.status } end

local callback_due = fail_attempt(space, id, job, problem, '', may_retry, chance, now, keep_ms)
local due = job.status == 'scheduled' and redis.call('HGET', job.key, 'scheduledFor')
return { 'ok', job.status, job.status == 'dead' and 0 or 1, job.attempt, due, callback_due }
