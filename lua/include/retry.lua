-- include: space_bytes
-- include: gathered
-- include: make_pending
-- include: callback_outbox
-- include: spelled
-- retry(...): a dead or killed job -> pending, with one more retry than it has used.
local function retry(space, id, job, now)
  drop_entry(space, 'ended', id)
  put_entry(space, 'log_work', id, spelled(now))
  hold_bytes(job, -redis.call('HSTRLEN', job.key, 'result'))
  disarm(space, id, job.key)
  redis.call('PERSIST', job.key)
  redis.call('PERSIST', job.key .. ':events')
  make_pending(space, id, job, 'requeued', 'null', now, 'maxRetries', job.attempt + 1, 'deliveries', 0)
  redis.call('HDEL', job.key, 'result', 'completedAt')
end
