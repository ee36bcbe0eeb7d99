-- When there is something to do next in a space, for the sweeper.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] ms     how long an ended job is kept
-- ARGV[2] ms     how long an ended job's log rests before it is sealed
-- Replies: {'ok', moment in ms or false}
-- Events: none
-- Cost: 4 commands
local space_key = KEYS[1]
local space = string.sub(space_key, 1, -6)

local earliest = nil
for index, later_ms in pairs({ deadlines = 0, scheduled = 0, ended = tonumber(ARGV[1]), log_work = tonumber(ARGV[2]) }) do
  local head = redis.call('ZRANGE', space .. index, 0, 0, 'WITHSCORES')
  if head[2] and (not earliest or head[2] + later_ms < earliest) then earliest = head[2] + later_ms end
end
return { 'ok', earliest or false }
