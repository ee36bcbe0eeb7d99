-- A script of many jobs gathers what it changes of their space as a whole, and writes it once: seq and bytes of the space,
-- the entries of its sorted sets, the ends that are counted. A script of one job gathers nothing: all is written at once.
local gathered = nil

-- next_feed(space): the space's next seq, which also orders creation and queues.
local function next_feed(space)
  if not gathered then return redis.call('HINCRBY', space .. 'space', 'seq', 1) end
  gathered.seq = gathered.seq + 1
  return gathered.seq
end

-- space_seq(space): its newest seq, as text.
local function space_seq(space)
  if not gathered then return redis.call('HGET', space .. 'space', 'seq') end
  return string.format('%d', gathered.seq)
end

-- add_bytes(space, more): so many bytes more are held by the jobs of the space.
local function add_bytes(space, more)
  if gathered then
    gathered.bytes = gathered.bytes + more
  elseif more ~= 0 then
    redis.call('HINCRBY', space .. 'space', 'bytes', more)
  end
end

-- held_bytes(space): how many bytes are held by its jobs.
local function held_bytes(space)
  local held = tonumber(redis.call('HGET', space .. 'space', 'bytes') or 0)
  return gathered and held + gathered.bytes or held
end

-- A list of values, and how many there are.
local function list_in(lists, name)
  local list = lists[name]
  if not list then
    list = { size = 0 }
    lists[name] = list
  end
  return list
end

-- put_entry(space, name, id, score): the id is in the sorted set, with this score. drop_entry(...): it is not. A script
-- that gathers does one of the two with an id in a set, and once; then it calls write_gathered before it does more.
local function put_entry(space, name, id, score)
  if not gathered then
    redis.call('ZADD', space .. name, score, id)
    return
  end
  local list = list_in(gathered.put, name)
  local size = list.size
  list[size + 1], list[size + 2], list.size = score, id, size + 2
end

local function drop_entry(space, name, id)
  if not gathered then
    redis.call('ZREM', space .. name, id)
    return
  end
  local list = list_in(gathered.dropped, name)
  list.size = list.size + 1
  list[list.size] = id
end

-- write_last(write): called when what is gathered is written.
local function write_last(write) gathered.last[#gathered.last + 1] = write end
