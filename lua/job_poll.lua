-- Hand the oldest pending jobs to a worker, each with a lease of its own.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] ms     deadline on Redis's clock: a call that runs later takes nothing, for its caller has gone
-- ARGV[2] bytes  of payloads and checkpoints at most, but one job
-- ARGV[3] int    how many jobs at most, n
-- ARGV[4..n+3]   n fresh lease tokens
-- ARGV[n+4..]    names to choose from; none means any
-- Replies: {'ok', job, ...} each as deliver makes it | {'late'} | {'no_space'}
-- Events: delivered
-- Cost: about 22 commands a job, and one for each name
-- include: space_prefix
-- include: clock
-- include: job
-- include: deliver
local space_key = KEYS[1]
local deadline, most_bytes, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local space = space_of(space_key)
local now = now_ms()

if now > deadline then return { 'late' } end
if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end

local oldest = {}
if #ARGV == n + 3 then
  for i, id in ipairs(redis.call('ZRANGE', space .. 'pending', 0, n - 1)) do oldest[i] = { id = id, at = i } end
else
  for i = n + 4, #ARGV do
    local found = redis.call('ZRANGE', space .. 'pending:' .. ARGV[i], 0, n - 1, 'WITHSCORES')
    for k = 1, #found, 2 do oldest[#oldest + 1] = { id = found[k], at = tonumber(found[k + 1]) } end
  end
  table.sort(oldest, function(a, b) return a.at < b.at end)
end

local reply, bytes = { 'ok' }, 0
for i = 1, #oldest do
  if #reply > n then break end
  local id = oldest[i].id
  local job = read_job(space, id)
  if job and job.status == 'pending' then
    bytes = bytes + redis.call('HSTRLEN', job.key, 'payload') + redis.call('HSTRLEN', job.key, 'checkpoint')
    if bytes > most_bytes and #reply > 1 then break end
    reply[#reply + 1] = deliver(space, id, job, ARGV[#reply + 3], now)
  end
end
return reply
