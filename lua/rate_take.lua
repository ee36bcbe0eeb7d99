-- Take requests from a key's allowance, which all processes share: a sliding window of one second, counted as the
-- part of the last whole second that it still covers plus this second's count.
-- https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
-- KEYS[1] hash   the key's two counts, jw:rate:<sha256>
-- ARGV[1] int    requests per second
-- ARGV[2] int    how many the caller would like
-- Replies: {'ok', granted, ms until one is free again}
-- Events: none
-- Cost: 3 commands; works at maxmemory
-- include: clock
local rate_key = KEYS[1]
local rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()

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
local granted = math.max(0, math.min(wanted, math.floor(rate - count - before * share)))
redis.call('HSET', rate_key, 'window', window, 'count', count + granted, 'before', before)
if field[1] == false then redis.call('PEXPIRE', rate_key, 3000) end
return { 'ok', granted, math.max(1, math.ceil(1000 / rate)) }
