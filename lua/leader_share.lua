-- Be the leader of one of several works that all candidates share, go on being it, or let another be it. The candidates
-- are counted in the order of their names; each work has a number, and is for the candidate with that number, counted
-- round. A leader whose turn it is no more, for a candidate has come or gone, lets go.
-- KEYS[1] hash   leader, until (ms), and each candidate: when it was last here, in ms
-- ARGV[1] string the candidate
-- ARGV[2] ms     for how long; 0 lets go, and is a candidate no more
-- ARGV[3] int    the number of the work
-- Replies: {'ok', 1 if the candidate leads, else 0}
-- Events: none
-- Cost: 6 commands; works at maxmemory once it is a candidate
-- include: clock
local leader_key = KEYS[1]
local candidate, hold_ms, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()

local flat, field = redis.call('HGETALL', leader_key), {}
for i = 1, #flat, 2 do field[flat[i]] = flat[i + 1] end
local until_ms = tonumber(field['until'] or 0)
local leader = until_ms > now and field.leader
field.leader, field['until'], field[candidate] = nil, nil, now

redis.call('HDEL', leader_key, candidate)
if leader == candidate then redis.call('HDEL', leader_key, 'leader', 'until') end
if hold_ms == 0 then return { 'ok', 0 } end

-- What lies further ahead than anybody grants was written by another clock, which was ahead of this one. It counts for
-- nothing: else, until this clock is there, who has gone would lead, or have a turn.
if leader and until_ms > now + hold_ms then leader = false end
local candidates = {}
for name, seen in pairs(field) do
  if math.abs(now - tonumber(seen)) <= hold_ms then
    candidates[#candidates + 1] = name
  else
    redis.call('HDEL', leader_key, name)
  end
end
table.sort(candidates)
redis.call('HSET', leader_key, candidate, now)
redis.call('PEXPIRE', leader_key, 2 * hold_ms)
if leader and leader ~= candidate or candidates[number % #candidates + 1] ~= candidate then return { 'ok', 0 } end
redis.call('HSET', leader_key, 'leader', candidate, 'until', now + hold_ms)
return { 'ok', 1 }
