-- When there is something to do next in a space, for the sweeper.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] ms     how long an ended job is kept
-- Replies: {'ok', moment in ms of the next lease or schedule, of the next log or retention}, either false for never
-- Events: none
-- Cost: 4 commands
-- include: space_prefix
local space = space_of(KEYS[1])
local keep_ms = tonumber(ARGV[1])

local function head(index)
  local first = redis.call('ZRANGE', space .. index, 0, 0, 'WITHSCORES')
  return tonumber(first[2])
end

local function earlier(a, b)
  return a and b and math.min(a, b) or a or b or false
end

local over = head('ended')
return { 'ok', earlier(head('deadlines'), head('scheduled')), earlier(over and over + keep_ms, head('log_work')) }
