-- Seats: which attempts may be set aside for a job of a higher priority, and who has room. Workers
-- with the same models are of one class: what one of them may run, each may. domain/parking.py says why.

local function seat_name(parked_ms, at, attempt)
  return string.format('%015.0f:%015.0f:', parked_ms, 1e15 - 1 - at) .. attempt
end

-- Out of the list of those that may be set aside.
local function unlist(attempt)
  local found = call('HMGET', P .. 'a:' .. attempt, 'class', 'seat')
  if found[1] then
    call('HDEL', P .. 'a:' .. attempt, 'class', 'seat')
    call('ZREM', P .. 'seats:' .. found[1], found[2])
    if call('EXISTS', P .. 'seats:' .. found[1]) == 0 then
      call('SREM', P .. 'seated', found[1])
    end
  end
end

-- Into that list, where the attempt and its worker allow it.
local function list(attempt, worker)
  local host = call('HMGET', P .. 'wk:' .. worker, 'class', 'parks', 'slots')
  if not host[2] or call('ZCARD', P .. 'parked:' .. worker) >= tonumber(host[3]) then
    return
  end
  local found = call('HMGET', P .. 'a:' .. attempt, 'state', 'parks', 'parked_ms', 'at', 'pri', 'seat')
  if found[1] or found[6] or tonumber(found[2] or '0') >= tonumber(host[2]) then
    return
  end
  local name = seat_name(tonumber(found[3] or '0'), tonumber(found[4]), attempt)
  call('HSET', P .. 'a:' .. attempt, 'class', host[1], 'seat', name)
  call('ZADD', P .. 'seats:' .. host[1], found[5], name)
  call('SADD', P .. 'seated', host[1])
end

-- All attempts of a worker anew, after something about it has changed.
local function list_all(worker)
  local attempts = call('SMEMBERS', P .. 'h:' .. worker)
  for _, attempt in ipairs(attempts) do
    unlist(attempt)
    list(attempt, worker)
  end
end

local function count_parked(worker)
  return call('ZCOUNT', P .. 'parked:' .. worker, '(0', '+inf')
end

-- Nothing is set aside of the attempt any more.
local function unpark(attempt, worker)
  call('ZREM', P .. 'parked:' .. worker, attempt)
  call('ZREM', P .. 'resumes', attempt)
  call('ZREM', P .. 'asked', attempt)
end

-- The worker has asked for work and got less than it has room for, or it is not so any more.
local function set_idle(worker, idle)
  local found = call('HMGET', P .. 'wk:' .. worker, 'class', 'idle')
  if not found[1] or (found[2] ~= false) == idle then
    return
  end
  local idlers = P .. 'idle:' .. found[1]
  if idle then
    call('HSET', P .. 'wk:' .. worker, 'idle', '1')
    call('SADD', idlers, worker)
    call('SADD', P .. 'idlers', found[1])
  else
    call('HDEL', P .. 'wk:' .. worker, 'idle')
    call('SREM', idlers, worker)
    if call('EXISTS', idlers) == 0 then
      call('SREM', P .. 'idlers', found[1])
    end
  end
end

local function leave_class(worker)
  local class = call('HGET', P .. 'wk:' .. worker, 'class')
  if not class then
    return
  end
  set_idle(worker, false)
  call('HDEL', P .. 'wk:' .. worker, 'class')
  call('SREM', P .. 'members:' .. class, worker)
  if call('EXISTS', P .. 'members:' .. class) == 0 then
    call('DEL', P .. 'class:' .. class)
  end
end

-- Models from ARGV[first] on are what the worker can draw with.
local function enter_class(worker, first)
  local models = {}
  for i = first, #ARGV do
    models[#models + 1] = ARGV[i]
  end
  table.sort(models)
  local class = redis.sha1hex(table.concat(models, '\n'))
  if call('HGET', P .. 'wk:' .. worker, 'class') == class then
    return
  end
  leave_class(worker)
  call('HSET', P .. 'wk:' .. worker, 'class', class)
  call('SADD', P .. 'members:' .. class, worker)
  for _, model in ipairs(models) do
    call('SADD', P .. 'class:' .. class, model)
  end
end
