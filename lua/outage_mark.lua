-- Mark that a sweeper works, and Redis with it; notice when one of them had been away, or Redis was started anew.
-- KEYS[1] hash   jw:outage: at, by and run of the newest mark; began and ended, the moments of the latest outage; of a
--                cluster host, the moment of the mark on the sweeper's clock, and ahead, see below
-- ARGV[1] string the sweeper
-- ARGV[2] ms     without a mark of its own for longer than this, the sweeper was away, or Redis was
-- ARGV[3] ms     the same after a mark of another sweeper: so long may it take to follow one that was killed
-- ARGV[4] ms     moment on the clock of the sweeper's host; '' where one run has the clock of the one before
-- ARGV[5] int    1 if the mark of before may be of another server, which goes on: slots have moved; else 0
-- Replies: {'ok', now in ms, the server's run or '', moment at which the latest outage began, moment at which it ended,
--          ms by which the clock is ahead of that of the run before, 0 if it is not}
-- Events: none
-- Cost: 5 commands; works at maxmemory
-- include: clock
-- include: server_run
-- include: outage_grace
local outage_key = KEYS[1]
local sweeper, away_ms, follow_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local host, moved = tonumber(ARGV[4]), ARGV[5] == '1'
local now, run = now_ms(), run_id()

local field = redis.call('HMGET', outage_key, 'at', 'by', 'run', 'began', 'ended', 'host', 'ahead')
local ahead = tonumber(field[7] or 0)
-- A clock that was ahead of this one may have written what is still to come: no outage lasts beyond this moment.
local began, ended = math.min(tonumber(field[4] or 0), now), math.min(tonumber(field[5] or 0), now)
local at = tonumber(field[1] or 0)
local most_ms = field[2] == sweeper and away_ms or follow_ms
local away = now - at > most_ms or field[3] ~= run
if away and moved then
  -- Of this server nothing is known, and sweepers were there.
  began, ended, ahead = 0, 0, 0
  away = false
elseif host and field[6] and field[3] ~= run then
  -- Of two moments of both clocks: how much more time went by on this one.
  ahead = math.max(0, math.min(GRACE_MS, now - at - (host - tonumber(field[6]))))
end
if away then
  if at >= ended + GRACE_MS then began = math.min(at, now) end
  ended = now
end
redis.call('HDEL', outage_key, 'at')
redis.call('HSET', outage_key, 'at', now, 'by', sweeper, 'run', run, 'began', began, 'ended', ended)
if host then redis.call('HSET', outage_key, 'host', host, 'ahead', ahead) end
return { 'ok', now, run, began, ended, ahead }
