-- retry_delay(job): the setting's numbers: base, factor, most of an exponential delay; nil, nil, seconds of a fixed one.
local function retry_delay(job)
  local setting = redis.call('HGET', job.key, 'retryDelay') or '0'
  local base, factor, most = string.match(setting, '^(%S+) (%S+) (%S+)$')
  return tonumber(base), tonumber(factor), tonumber(most or setting)
end

-- most_delay_ms(job): how long the next attempt waits at the longest.
local function most_delay_ms(job)
  local base, _, most = retry_delay(job)
  return base == 0 and 0 or most * 1000
end

-- delay_ms(...): how long the next attempt waits. retryDelay is 'seconds', or 'base factor max' for an exponential
-- delay with full jitter: a share `chance` (0..1) of min(max, base * factor ^ attempt).
-- https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
local function delay_ms(job, chance)
  local base, factor, most = retry_delay(job)
  if not base then return math.floor(most * 1000) end
  local cap = math.min(most, base * factor ^ job.attempt)
  return math.floor(cap * 1000 * chance)
end
