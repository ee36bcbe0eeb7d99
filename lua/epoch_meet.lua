-- Notice that a primary of a cluster answers that nobody has met in this role: it was started anew or promoted, and may
-- have lost what was answered. Called on every new connection, before anything else goes over it.
-- KEYS[1] hash   jw:epoch: run:<node id>, the primary's run; began:<epoch>, when and in which slots an epoch began
-- ARGV[1] string the primary's node id
-- ARGV[2] string its run id and replication id
-- ARGV[3] 0|1    whether a start of this server loses nothing
-- ARGV[4] string its slots, <first>-<last>,...; "" if none of them can have lost anything
-- ARGV[5] int    the time on its clock, ms
-- ARGV[6..] string epochs that the caller knows: of each its number and what its field holds
-- Replies: {'ok', field, value, ...}: the epochs
-- Events: none
-- Cost: 4 commands, one more for each epoch that is brought; works at maxmemory
-- include: clock
local epoch_key = KEYS[1]
local run_field, run, keeps, slots, at = 'run:' .. ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4], ARGV[5]
local KEPT = 1000
local now = now_ms()

redis.call('HDEL', epoch_key, 'none') -- as the first write of a script it is let through at maxmemory, and so are others
for i = 6, #ARGV, 2 do redis.call('HSETNX', epoch_key, 'began:' .. ARGV[i], ARGV[i + 1]) end

local numbers, began, before = {}, {}, nil
local flat = redis.call('HGETALL', epoch_key)
for i = 1, #flat, 2 do
  local number = string.match(flat[i], '^began:(%d+)$')
  if number then
    numbers[#numbers + 1] = number
    began[number] = flat[i + 1]
  elseif flat[i] == run_field then
    before = flat[i + 1]
  end
end
table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)

if before ~= run then
  redis.call('HSET', epoch_key, run_field, run)
  if slots ~= '' and not (before and keeps) then
    local number = string.format('%d', math.max(now, tonumber(numbers[#numbers] or 0) + 1))
    numbers[#numbers + 1] = number
    began[number] = at .. ' ' .. slots
    redis.call('HSET', epoch_key, 'began:' .. number, began[number])
  end
end
while #numbers > KEPT do redis.call('HDEL', epoch_key, 'began:' .. table.remove(numbers, 1)) end

local reply = { 'ok' }
for _, number in ipairs(numbers) do
  reply[#reply + 1] = 'began:' .. number
  reply[#reply + 1] = began[number]
end
return reply
