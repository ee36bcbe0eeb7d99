-- A try begins: what is to be sent. A try before it that nobody noted (its process died) becomes an event first.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] ms     end of the lease under which the callback was taken
-- ARGV[3] string a token for this try
-- ARGV[4] ms     how long the try is waited for
-- ARGV[5] int    tries at most
-- Replies: {'ok', number of the try from 0, name, status, attemptNumber, result, completedAt, url, headers or false,
--          secrets or false} | {'lost'} when it is not the caller's any more
-- Events: callback_failed for a try that nobody noted
-- Cost: 6 commands, 12 more after a crash
-- include: space_prefix
-- include: clock
-- include: job
-- include: emit_event
-- include: callback_outbox
-- include: gathered
local space_key = KEYS[1]
local id, lease_end, token, wait_ms, most = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local space = space_of(space_key)
local now = now_ms()

local job = read_job(space, id)
local score = redis.call('ZSCORE', space .. 'callbacks', id)
if not job or not score or tonumber(score) ~= lease_end then return { 'lost' } end

local field = redis.call('HMGET', job.key, 'callbackTries', 'callbackRound', 'attemptNumber', 'result', 'completedAt',
  'callbackUrl', 'callbackHeaders')
local number, round = tonumber(field[1]), tonumber(field[2])
local try = try_of(job.key)
local last = false
if try then
  if try.round == round then number = number + 1 end
  last = number >= most
  redis.call('HDEL', job.key, 'callbackTry')
  local data = '{"url":' .. cjson.encode(field[6]) .. ',"error":"The process that made this try ended before it could '
    .. 'note the outcome.","statusCode":null,"responseBody":null,"retryAttempt":' .. try.number .. ',"willRetry":'
    .. tostring(not last) .. '}'
  emit(space, id, job, 'callback_failed', data, next_feed(space), now, 'null')
  save_job(space, job, 'callbackTries', number)
end
if last then
  redis.call('ZREM', space .. 'callbacks', id)
  return { 'lost' }
end

local till = now + wait_ms
redis.call('ZADD', space .. 'callbacks', till, id)
redis.call('HSET', job.key, 'callbackTry', token .. ' ' .. till .. ' ' .. round .. ' ' .. number)
return { 'ok', number, job.name, job.status, field[3], field[4], field[5], field[6], field[7],
  redis.call('HGET', space_key, 'webhookSecrets') }
