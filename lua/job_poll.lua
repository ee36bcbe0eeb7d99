-- Hand the oldest pending jobs to a worker, each with a lease of its own.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] ms     deadline on Redis's clock: a call that runs later takes nothing, for its caller has gone
-- ARGV[2] int    how many jobs at most, n
-- ARGV[3..n+2]   n fresh lease tokens
-- ARGV[n+3..]    names to choose from; none means any
-- Replies: {'ok', job, ...} each as deliver makes it | {'late'} | {'no_space'}
-- Events: delivered
-- Cost: about 20 commands a job, and one for each name
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: deliver
local space_key = KEYS[1]
local deadline, n = tonumber(ARGV[1]), tonumber(ARGV[2])
local space = string.sub(space_key, 1, -6)
local now = now_ms()

if now > deadline then return { 'late' } end
if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end

local oldest = {}
if #ARGV == n + 2 then
  for i, id in ipairs(redis.call('ZRANGE', space .. 'pending', 0, n - 1)) do oldest[i] = { id = id, at = i } end
else
  for i = n + 3, #ARGV do
    local found = redis.call('ZRANGE', space .. 'pending:' .. ARGV[i], 0, n - 1, 'WITHSCORES')
    for k = 1, #found, 2 do oldest[#oldest + 1] = { id = found[k], at = tonumber(found[k + 1]) } end
  end
  table.sort(oldest, function(a, b) return a.at < b.at end)
end

local reply = { 'ok' }
for i = 1, #oldest do
  if #reply > n then break end
  local id = oldest[i].id
  local job = read_job(space .. 'job:' .. id)
  if job and job.status == 'pending' then reply[#reply + 1] = deliver(space, id, job, ARGV[#reply + 2], now) end
end
return reply
