-- Where a job stands, and its newest events, as they are at one moment: what a stream begins with.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] int    events at most
-- ARGV[3] bytes  of events at most
-- Replies: {'ok', status, progress or false, its time in ms or false, seq of the newest event, events kept,
--          {event, ...}} | {'no_job'}
-- Events: none
-- Cost: 2 commands, and one for each 4 to 16 events
-- include: space_prefix
-- include: newest_events
local id, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local key = space_of(KEYS[1]) .. 'job:' .. id

local field = redis.call('HMGET', key, 'status', 'progress', 'progressAt', 'eventSeq')
if not field[1] then return { 'no_job' } end
local kept = redis.call('LLEN', key .. ':events')
local events = newest_events(key, kept, 0, most, most_bytes)
return { 'ok', field[1], field[2], field[3], tonumber(field[4]), kept, events }
