-- Take units of work from a key's allowance, which all processes share: a sliding window of one second, counted as the
-- part of the last whole second that it still covers plus this second's count.
-- https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
-- KEYS[1] hash   the key's two counts, jw:rate:<sha256>
-- ARGV[1] int    units per second
-- ARGV[2] int    how many the caller would like
-- ARGV[3] int    how many it needs: fewer than that are no use to it, and none are taken
-- ARGV[4] int    how many it will need when it comes again
-- Replies: {'ok', granted, ms until as many are free as it will need then, 0 with a grant}
-- Events: none
-- Cost: 3 commands; works at maxmemory
-- include: clock
local rate_key = KEYS[1]
local rate, wanted, needed, again = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()

-- Before the HSET, which needs memory: a script whose first write needs none runs at maxmemory, too.
redis.call('PEXPIRE', rate_key, 3000)
local window = math.floor(now / 1000)
local share = 1 - now % 1000 / 1000
local field = redis.call('HMGET', rate_key, 'window', 'count', 'before')
local at, count, before = tonumber(field[1] or 0), tonumber(field[2] or 0), tonumber(field[3] or 0)
if at == window - 1 then
  before, count = count, 0
elseif at ~= window then
  before, count = 0, 0
end

-- If nobody takes any before: what is not free by the end of this second is during the next one.
local function wait_ms()
  local into, room = now % 1000, rate - again
  if count <= room then return math.ceil(1000 * (1 - (room - count) / before)) - into end
  return 1000 - into + math.ceil(1000 * (1 - room / count))
end

local free = math.floor(rate - count - before * share)
if free < needed then return { 'ok', 0, math.max(1, wait_ms()) } end
local granted = math.min(wanted, free)
redis.call('HSET', rate_key, 'window', window, 'count', count + granted, 'before', before)
-- The first PEXPIRE found no key.
if field[1] == false then redis.call('PEXPIRE', rate_key, 3000) end
return { 'ok', granted, 0 }
