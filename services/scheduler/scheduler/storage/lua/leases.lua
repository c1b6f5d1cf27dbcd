-- Leases: attempts lent to workers, and the workers.

local GONE_S = 60

-- Lends a job out; the user is charged apart.
local function lend(attempt, job, user, worker, n, at, deadline)
  call(
    'HSET', P .. 'a:' .. attempt, 'job', job, 'user', user.id, 'worker', worker, 'n', n, 'at', at,
    'pri', user.pri
  )
  call('ZADD', P .. 'leases', deadline, attempt)
  call('SADD', P .. 'h:' .. worker, attempt)
  call('SADD', P .. 'r:' .. user.id, job)
  call('HSET', P .. 'j:' .. job, 'a', attempt, 'n', n)
  list(attempt, worker)
end

-- Ends a lease; `stop` tells its worker so.
local function take_back(attempt, stop)
  local found = call('HMGET', P .. 'a:' .. attempt, 'worker', 'class', 'state')
  local worker = found[1]
  if found[2] then
    unlist(attempt)
  end
  call('ZREM', P .. 'leases', attempt)
  call('DEL', P .. 'a:' .. attempt)
  if worker then
    call('SREM', P .. 'h:' .. worker, attempt)
    if found[3] then
      unpark(attempt, worker)
      list_all(worker)
    end
    if stop then
      call('PUBLISH', P .. 'control', 'stop ' .. worker .. ' ' .. attempt)
    end
  end
end

-- Appends attempt, job, user, worker, n, at and restored ('1' or '').
local function add_claim(list, attempt)
  local found = call('HMGET', P .. 'a:' .. attempt, 'job', 'user', 'worker', 'n', 'at', 'restored')
  if found[1] then
    list[#list + 1] = attempt
    for i = 1, 5 do
      list[#list + 1] = found[i]
    end
    list[#list + 1] = found[6] or ''
  end
end

local function count_slots()
  local slots = 0
  for _, worker in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
    slots = slots + tonumber(call('HGET', P .. 'wk:' .. worker, 'slots') or '0')
  end
  call('HSET', P .. 'pace', 'slots', slots)
end

local function dismiss(worker)
  leave_class(worker)
  call('ZREM', P .. 'workers', worker)
  call('DEL', P .. 'wk:' .. worker)
  list_all(worker)
  call('SREM', P .. 'drains', worker)
  call('INCR', P .. 'catalogue')
  count_slots()
end

-- nil when the worker's stream is the one that asks, else 'unknown' or 'replaced'.
local function stranger(worker, session)
  local found = call('HGET', P .. 'wk:' .. worker, 'session')
  if not found then
    return 'unknown'
  end
  if found ~= session then
    return 'replaced'
  end
  return nil
end
