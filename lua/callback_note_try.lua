-- A try is over: its event, and when the next one is due, if there is one. Repeated, it changes nothing.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the try's token
-- ARGV[3] word   callback_sent or callback_failed
-- ARGV[4] JSON   the event's data without its closing brace; it gets retryAttempt, and callback_failed willRetry besides
-- ARGV[5] ms     from now to the next try, or '' for none
-- Replies: {'ok', moment of the next try or false} | {'stale'} when this try was noted already, or the job is gone
-- Events: callback_sent | callback_failed
-- Cost: 14 commands
-- include: space_prefix
-- include: clock
-- include: job
-- include: emit_event
-- include: callback_outbox
-- include: gathered
local space = space_of(KEYS[1])
local id, token, kind, data, delay_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = now_ms()

local job = read_job(space, id)
local try = job and try_of(job.key)
if not try or try.token ~= token then return { 'stale' } end

redis.call('HDEL', job.key, 'callbackTry')
data = data .. ',"retryAttempt":' .. try.number
local due = false
if try.round == tonumber(redis.call('HGET', job.key, 'callbackRound')) then
  if delay_ms then
    due = now + delay_ms
    redis.call('HSET', job.key, 'callbackTries', try.number + 1)
    redis.call('ZADD', space .. 'callbacks', due, id)
  else
    redis.call('ZREM', space .. 'callbacks', id)
  end
  if kind == 'callback_failed' then data = data .. ',"willRetry":' .. tostring(due ~= false) end
else
  -- The job ended anew meanwhile, or was told to: that callback has waited for this try to be over.
  if redis.call('ZADD', space .. 'callbacks', 'XX', 'LT', 'CH', now, id) == 1 then due = now end
  if kind == 'callback_failed' then data = data .. ',"willRetry":false' end
end
emit(space, id, job, kind, data .. '}', next_feed(space), now, 'null')
save_job(space, job)
return { 'ok', due }
