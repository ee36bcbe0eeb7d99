-- Notice that another server answers than before, or the same one started anew: it may have lost what was answered.
-- Called on every new connection before anything else, so that nothing is written in between.
-- KEYS[1] hash   jw:epoch: run, and began, the moments at which epochs began, newest last
-- ARGV[1] string the server's run id
-- ARGV[2] 0|1    whether a restart of this server loses nothing
-- Replies: {'ok', moments in ms, separated by blanks}
-- Events: none
-- Cost: 3 commands; works at maxmemory
-- include: clock
local epoch_key = KEYS[1]
local run, keeps = ARGV[1], ARGV[2] == '1'
local KEPT = 100
local now = now_ms()

local field = redis.call('HMGET', epoch_key, 'run', 'began')
if field[1] == run then return { 'ok', field[2] } end
local began = {}
for moment in string.gmatch(field[2] or '', '%d+') do began[#began + 1] = moment end
if #began == 0 or not keeps then
  began[#began + 1] = string.format('%d', math.max(now, tonumber(began[#began] or 0) + 1))
end
while #began > KEPT do table.remove(began, 1) end

local text = table.concat(began, ' ')
redis.call('DEL', epoch_key)
redis.call('HSET', epoch_key, 'run', run, 'began', text)
return { 'ok', text }
