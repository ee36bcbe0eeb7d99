-- Everything of one ended job in its space. The log, in another slot, goes first: see app/store.py.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] id     the job
-- ARGV[2] 0|1    whether a job that has not ended goes too, as it does with its space
-- Replies: {'ok'} | {'no_job'} | {'state', status}
-- Events: none
-- Cost: about 16 commands; works at maxmemory
-- include: job
-- include: lease
-- include: queue
local space_key = KEYS[1]
local id, forced = ARGV[1], ARGV[2] == '1'
local space = string.sub(space_key, 1, -6)

local job = read_job(space .. 'job:' .. id)
local ended = job and (job.status == 'completed' or job.status == 'dead' or job.status == 'killed')
if job and not ended and not forced then return { 'state', job.status } end

release(space, id)
for _, index in ipairs({ 'jobs', 'scheduled', 'ended', 'log_work', 'pending' }) do
  redis.call('ZREM', space .. index, id)
end
for _, status in ipairs({ 'scheduled', 'pending', 'delivered', 'running', 'completed', 'dead', 'killed' }) do
  redis.call('ZREM', space .. 'jobs:' .. status, id)
end
if not job then return { 'no_job' } end
dequeue(space, id, job)
local idem = redis.call('HGET', job.key, 'idem')
if idem then redis.call('DEL', idem) end
redis.call('DEL', job.key, job.key .. ':events')
return { 'ok' }
