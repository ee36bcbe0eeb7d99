-- The outbox of callbacks: a zset of ended jobs by the moment of their next try. A try in the air is the job's field
-- callbackTry, `token until round number`: whoever finds it after `until` knows that nobody noted how it went.

-- arm(...): the callback of an ended job is due now, its schedule begins anew; the moment, or false without a callbackUrl.
local function arm(space, id, job, now)
  if not job.calls_back then return false end
  redis.call('ZADD', space .. 'callbacks', now, id)
  redis.call('HSET', job.key, 'callbackTries', 0)
  redis.call('HINCRBY', job.key, 'callbackRound', 1)
  return now
end

-- disarm(...): no further try; one that is in the air is still noted, and decides nothing.
local function disarm(space, id, key)
  if redis.call('ZREM', space .. 'callbacks', id) == 1 then redis.call('HINCRBY', key, 'callbackRound', 1) end
end

-- try_of(key): {token, until, round, number} of the try in the air, or nil.
local function try_of(key)
  local token, till, round, number = string.match(redis.call('HGET', key, 'callbackTry') or '', '^(%S+) (%S+) (%S+) (%S+)$')
  if not token then return nil end
  return { token = token, till = tonumber(till), round = tonumber(round), number = tonumber(number) }
end
