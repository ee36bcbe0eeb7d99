-- One job and its newest events, as they are at one moment.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] int    events at most
-- ARGV[3] bytes  of events at most
-- Replies: {'ok', {field, value, ...}, seq of the first event in the reply, {event, ...}, events kept} | {'no_job'}
-- Events: none
-- Cost: 3 commands, and one for each 4 to 16 events
-- include: space_prefix
-- include: newest_events
local id, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local key = space_of(KEYS[1]) .. 'job:' .. id

local fields = redis.call('HGETALL', key)
if #fields == 0 then return { 'no_job' } end
local last = tonumber(redis.call('HGET', key, 'eventSeq'))
local kept = redis.call('LLEN', key .. ':events')
local events = newest_events(key, kept, 1, most, most_bytes)
return { 'ok', fields, last - #events + 1, events, kept }
