-- Notice that a primary of a cluster answers that nobody has met in this role: it was started anew or promoted, and may
-- have lost what was answered. Called on every new connection, before anything else goes over it.
-- KEYS[1] hash   jw:epoch: began, the moments at which epochs began, newest last; run:<which>, when a primary was met
-- ARGV[1] string the primary's run id and replication id
-- ARGV[2] 0|1    whether a start of this server loses nothing
-- Replies: {'ok', moments in ms, separated by blanks}
-- Events: none
-- Cost: 4 commands; works at maxmemory
-- include: clock
local epoch_key = KEYS[1]
local run, keeps = 'run:' .. ARGV[1], ARGV[2] == '1'
local KEPT = 100
local now = now_ms()

local met, known = unpack(redis.call('HMGET', epoch_key, run, 'began'))
if met then return { 'ok', known } end
local began = {}
for moment in string.gmatch(known or '', '%d+') do began[#began + 1] = moment end
if #began == 0 or not keeps then
  began[#began + 1] = string.format('%d', math.max(now, tonumber(began[#began] or 0) + 1))
end
while #began > KEPT do table.remove(began, 1) end

local text = table.concat(began, ' ')
redis.call('HDEL', epoch_key, 'none') -- as the first write of a script it is let through at maxmemory, and so is the next
redis.call('HSET', epoch_key, run, now, 'began', text)
return { 'ok', text }
