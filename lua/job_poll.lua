-- Hand the oldest pending jobs to a worker, each with a lease of its own.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] ms     deadline on Redis's clock: a call that runs later takes nothing, for its caller has gone
-- ARGV[2] bytes  of payloads and checkpoints at most, but one job
-- ARGV[3] 0|1    whether they are acked in the same step: -> running
-- ARGV[4] int    how many jobs at most, n
-- ARGV[5..n+4]   n fresh lease tokens
-- ARGV[n+5..]    names to choose from; none means any
-- Replies: {'ok', job, ...} each as deliver makes it | {'late'} | {'no_space'}
-- Events: delivered; started for a job that is acked
-- Cost: 7 commands a job, about 20 in all, and one for each name; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: gathering
-- include: gathered
-- include: job
-- include: pending_queue
-- include: deliver
local space_key = KEYS[1]
local deadline, most_bytes, begun, n = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local space = space_of(space_key)
local now = now_ms()

-- What stands in a queue and is not pending stands in the way of all behind it.
local function take_out(id, job)
  if job then return dequeue(space, id, job) end
  drop_entry(space, 'pending', id)
  for i = n + 5, #ARGV do drop_entry(space, 'pending:' .. ARGV[i], id) end
end

local function oldest_pending()
  if #ARGV == n + 4 then return redis.call('ZRANGE', space .. 'pending', 0, n - 1) end
  local oldest, counter_of = {}, {}
  for i = n + 5, #ARGV do
    local found = redis.call('ZRANGE', space .. 'pending:' .. ARGV[i], 0, n - 1, 'WITHSCORES')
    for k = 1, #found, 2 do
      oldest[#oldest + 1] = found[k]
      counter_of[found[k]] = tonumber(found[k + 1])
    end
  end
  table.sort(oldest, function(a, b) return counter_of[a] < counter_of[b] end)
  return oldest
end

pass_maxmemory(space)
return gathering(space, function()
  if now > deadline then return { 'late' } end
  if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end

  local reply, bytes = { 'ok' }, 0
  for _, id in ipairs(oldest_pending()) do
    if #reply > n then break end
    local job, payload, created_at, checkpoint, trace = read_job(space, id, 'payload', 'createdAt', 'checkpoint',
      'traceparent')
    if job and job.status == 'pending' then
      bytes = bytes + #payload + #(checkpoint or '')
      if bytes > most_bytes and #reply > 1 then break end
      reply[#reply + 1] = deliver(space, id, job, ARGV[#reply + 4], now, begun, payload, created_at, checkpoint, trace)
    else
      take_out(id, job)
    end
  end
  return reply
end)
