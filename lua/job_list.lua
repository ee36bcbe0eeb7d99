-- Which jobs a page of a space's list has, newest created first, as they stand at one moment.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] int    only jobs with a lower creation counter; 0 for all
-- ARGV[2] int    how many of the newest of them to pass over
-- ARGV[3] int    jobs at most
-- ARGV[4..]      statuses to choose from; none means all
-- Replies: {'ok', jobs of these statuses in all, {id, creation counter, bytes of its large fields, ...}}
-- Events: none
-- Cost: 3 commands for each status and 3 for each job; to pass jobs over, up to 53 more for each status
-- include: space_prefix
local space = space_of(KEYS[1])
local below, skipped, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local indexes, total, top = {}, 0, 0
for i = 4, #ARGV do indexes[#indexes + 1] = space .. 'jobs:' .. ARGV[i] end
if #indexes == 0 then indexes[1] = space .. 'jobs' end
for _, index in ipairs(indexes) do
  total = total + redis.call('ZCARD', index)
  local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  if newest[1] then top = math.max(top, tonumber(newest[2])) end
end
if below == 0 then below = top + 1 end

-- Counters are unique: there is one above which, and with which, as many jobs lie as are passed over.
if skipped > total then return { 'ok', total, {} } end
local function count_from(counter)
  local n = 0
  local from, to = string.format('%d', counter), string.format('(%d', below)
  for _, index in ipairs(indexes) do n = n + redis.call('ZCOUNT', index, from, to) end
  return n
end
-- Halves the counters until `skipped` jobs lie behind: ranks of several indexes cannot be added, counts can.
if skipped > 0 then
  local enough, few = 0, below
  while few - enough > 1 do
    local middle = math.floor((enough + few) / 2)
    if count_from(middle) >= skipped then enough = middle else few = middle end
  end
  below = enough
end

local found = {}
for _, index in ipairs(indexes) do
  local newest = redis.call('ZREVRANGEBYSCORE', index, string.format('(%d', below), '-inf', 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #newest, 2 do found[#found + 1] = { id = newest[i], created = tonumber(newest[i + 1]) } end
end
table.sort(found, function(a, b) return a.created > b.created end)
local reply = {}
for i = 1, math.min(most, #found) do
  local key = space .. 'job:' .. found[i].id
  local bytes = 0
  for _, field in ipairs({ 'payload', 'result', 'checkpoint' }) do bytes = bytes + redis.call('HSTRLEN', key, field) end
  reply[#reply + 1] = found[i].id
  reply[#reply + 1] = found[i].created
  reply[#reply + 1] = bytes
end
return { 'ok', total, reply }
