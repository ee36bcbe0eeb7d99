-- A page of a space's feed, after a seq, and where the space stands at this moment.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] seq    events after this one; -1 for the newest ones
-- ARGV[2] int    events at most
-- Replies: {'ok', instance, counts (a JSON object), seq of the oldest kept, seq of the newest, {event (JSON), ...}} |
--          {'no_space'}
-- Events: none
-- Cost: 10 commands
-- include: space_prefix
-- include: job_counts
local space_key = KEYS[1]
local after, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local space = space_of(space_key)

local field = redis.call('HMGET', space_key, 'instance', 'seq')
if not field[1] then return { 'no_space' } end
local newest = tonumber(field[2])
if after < 0 then after = math.max(0, newest - most) end
local oldest = redis.call('XRANGE', space .. 'feed', '-', '+', 'COUNT', 1)[1]
local first_kept = oldest and tonumber(string.match(oldest[1], '^%d+')) or newest + 1
local events = {}
for i, entry in ipairs(redis.call('XRANGE', space .. 'feed', string.format('(%d-0', after), '+', 'COUNT', most)) do
  events[i] = entry[2][2]
end
return { 'ok', field[1], job_counts(space), first_kept, newest, events }
