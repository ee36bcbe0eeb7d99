-- run_id(): which run of the server this is; '' where it keeps that to itself.
local function run_id()
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and string.match(told, 'run_id:(%w+)') or ''
end
