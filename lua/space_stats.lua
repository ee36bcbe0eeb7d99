-- How a space stands, for the operator's numbers.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- Replies: {'ok', jobs by status (an array in the order of their life), since when the oldest pending job waits in ms or
--          false, callbacks that are still to be sent}
-- Events: none
-- Cost: 10 commands
-- include: space_prefix
-- include: statuses
local space = space_of(KEYS[1])

local counts = {}
for i, status in ipairs(STATUSES) do
  counts[i] = redis.call('ZCARD', space .. 'jobs:' .. status)
end
local oldest = redis.call('ZRANGE', space .. 'pending', 0, 0)[1]
local since = oldest and redis.call('HGET', space .. 'job:' .. oldest, 'updatedAt')
return { 'ok', counts, since and tonumber(since) or false, redis.call('ZCARD', space .. 'callbacks') }
