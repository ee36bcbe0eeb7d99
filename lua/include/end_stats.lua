-- include: gathered
-- note_end(...): counts an end, and how long the job ran, in two hashes of the space: of the hour, and of ten minutes. A
-- field is outcome, bucket and name, as `c12:resize`: c, d or k for completed, dead, killed; bucket n holds durations of
-- 1.25^n to 1.25^(n+1) ms, '-' those that never started. A hash that has ENDS_FIELDS fields counts what is new there without
-- its name. app/jobs/space_stats.py reads them.
local ENDS_FIELDS = 1000
local ENDS_SPANS = { { letter = 'h', ms = 3600000, kept_ms = 93600000 }, { letter = 'm', ms = 600000, kept_ms = 4800000 } }
local ENDS_OUTCOME = { completed = 'c', dead = 'd', killed = 'k' }
local ends_noted = {}

local function write_ends(space, now)
  for _, span in ipairs(ENDS_SPANS) do
    local key = space .. 'ends:' .. span.letter .. string.format('%d', math.floor(now / span.ms))
    for field, ends in pairs(ends_noted) do
      if redis.call('HINCRBY', key, field, ends) == ends then
        if redis.call('HLEN', key) > ENDS_FIELDS then
          redis.call('HDEL', key, field)
          redis.call('HINCRBY', key, string.match(field, '^[^:]*:'), ends)
        end
        redis.call('PEXPIRE', key, span.kept_ms)
      end
    end
  end
  ends_noted = {}
end

local function note_end(space, job, now)
  local bucket = '-'
  if job.started then bucket = math.floor(math.log(math.max(1, now - job.started)) / math.log(1.25)) end
  local field = ENDS_OUTCOME[job.status] .. bucket .. ':' .. job.name
  if gathered and next(ends_noted) == nil then write_last(function() write_ends(space, now) end) end
  ends_noted[field] = (ends_noted[field] or 0) + 1
  if not gathered then write_ends(space, now) end
end
