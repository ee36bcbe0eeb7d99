-- include: gathered
-- The work of a script that gathers.
local ENTRIES_MOST = 1000

local function write_entries(command, space, lists, most)
  for name, list in pairs(lists) do
    for first = 1, list.size, most do
      redis.call(command, space .. name, unpack(list, first, math.min(list.size, first + most - 1)))
    end
  end
end

-- write_gathered(): all of it, now; what comes after is gathered anew.
local function write_gathered()
  local space, before = gathered.space, gathered.before
  write_entries('ZREM', space, gathered.dropped, ENTRIES_MOST)
  write_entries('ZADD', space, gathered.put, ENTRIES_MOST * 2)
  gathered.dropped, gathered.put = {}, {}
  if gathered.seq ~= before.seq then redis.call('HSET', space .. 'space', 'seq', gathered.seq) end
  if gathered.bytes ~= 0 then redis.call('HINCRBY', space .. 'space', 'bytes', gathered.bytes) end
  before.seq, gathered.bytes = gathered.seq, 0
  for _, write in ipairs(gathered.last) do write() end
  gathered.last = {}
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
