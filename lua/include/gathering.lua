-- include: gathered
-- The work of a script that gathers.
local ENTRIES_MOST = 1000

local function write_entries(command, space, lists, most)
  local broken = nil
  for name, list in pairs(lists) do
    for first = 1, list.size, most do
      local reply = redis.pcall(command, space .. name, unpack(list, first, math.min(list.size, first + most - 1)))
      if type(reply) == 'table' and reply.err then broken = reply end
    end
  end
  return broken
end

-- write_gathered(): all of it, now; what comes after is gathered anew. A set that takes no entries, for it is none, keeps
-- nothing else from being written: the seq, of which events have gone out, must never be used again.
local function write_gathered()
  local space, before, last = gathered.space, gathered.before, gathered.last
  if gathered.seq ~= before.seq then redis.call('HSET', space .. 'space', 'seq', gathered.seq) end
  if gathered.bytes ~= 0 then redis.call('HINCRBY', space .. 'space', 'bytes', gathered.bytes) end
  before.seq, gathered.bytes, gathered.last = gathered.seq, 0, {}
  local dropped, put = gathered.dropped, gathered.put
  gathered.dropped, gathered.put = {}, {}
  local not_dropped = write_entries('ZREM', space, dropped, ENTRIES_MOST)
  local not_put = write_entries('ZADD', space, put, ENTRIES_MOST * 2)
  for _, write in ipairs(last) do write() end
  if not_put or not_dropped then error(not_put or not_dropped, 0) end
end

-- pass_maxmemory(space): a write that frees, though nothing: what the script writes after it passes at maxmemory.
local function pass_maxmemory(space) redis.call('DEL', space .. 'moving') end

-- gathering(space, work): what the work answers, when all that it gathered is written. If it dies midway, what was gathered
-- is written all the same once a first event is out, for its seq has been used.
local function gathering(space, work)
  local seq = tonumber(redis.call('HGET', space .. 'space', 'seq') or 0)
  gathered = { space = space, put = {}, dropped = {}, last = {}, seq = seq, bytes = 0, before = { seq = seq } }
  local fine, answer = pcall(work)
  if fine or gathered.seq ~= seq then write_gathered() end
  gathered = nil
  if not fine then error(answer, 0) end
  return answer
end
