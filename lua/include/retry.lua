-- include: space_bytes
-- include: make_pending
-- include: callback_outbox
-- retry(...): a dead or killed job -> pending, with one more retry than it has used.
local function retry(space, id, job, now)
  redis.call('ZREM', space .. 'ended', id)
  redis.call('ZADD', space .. 'log_work', now, id)
  hold_bytes(space, job, -redis.call('HSTRLEN', job.key, 'result'))
  disarm(space, id, job.key)
  redis.call('PERSIST', job.key)
  redis.call('PERSIST', job.key .. ':events')
  make_pending(space, id, job, 'requeued', 'null', now, { 'maxRetries', job.attempt + 1, 'deliveries', 0 })
  redis.call('HDEL', job.key, 'result', 'completedAt')
end
