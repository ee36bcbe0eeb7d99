-- Logs that have been looked at: out of the space's list of those to look at, unless they were put in anew meanwhile.
-- KEYS[1] zset   jw:{S}:log_work
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1..]      per job two: its id, and the moment (ms) under which it was listed
-- Replies: {'ok'}
-- Events: none
-- Cost: 2 commands a job; works at maxmemory
local work_key = KEYS[1]

for i = 1, #ARGV, 2 do
  local id, moment = ARGV[i], ARGV[i + 1]
  if redis.call('ZSCORE', work_key, id) == moment then redis.call('ZREM', work_key, id) end
end
return { 'ok' }
