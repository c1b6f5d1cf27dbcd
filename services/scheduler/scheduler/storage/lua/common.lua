-- Stands before every script of this folder. KEYS[1] is the prefix of the lane's keys with its hash
-- tag, "easel:{lane}:"; every key is built from it, so all of them lie in one slot of a cluster.
--
--   clock         hash    v: virtual time over tiers; t:<tier>: virtual time inside a tier;
--                         f:<tier>: finish tag of a tier; turn: counter of entries into a set
--   tiers         zset    tiers with a user who may start a job, by start tag
--   weights       hash    weight by tier
--   tu:<tier>     zset    "<turn>:<user>" of all users who may start a job, by start tag
--   tm:<tier>:<m> zset    the same users, those with a waiting job of model m
--   tj:<tier>     zset    waiting jobs of the tier, by place
--   u:<user>      hash    ver, pri, wt, lim; f: finish tag; s, turn: while in the tier's set
--   um:<user>     set     models of the user's waiting jobs
--   w:<user>/<m>  zset    the user's waiting jobs of model m, by place (a user id has no slash)
--   uw:<user>     zset    all waiting jobs of the user, by place
--   r:<user>      set     running jobs of the user: a set, since counters drift
--   j:<job>       hash    user, model, cost, place, n: attempts so far; a: attempt that runs
--   jobs          zset    all jobs, by place
--   delayed       zset    jobs that wait for a pause to end before their next try, by its end (ms);
--                         until then they are in no line
--   startby       zset    jobs never started, by the time (ms) at which they fail
--   a:<attempt>   hash    job, user, worker, n, at (ms); restored: its lease was made up after a loss
--   leases        zset    attempts that run, by deadline (ms, this server's clock)
--   h:<worker>    set     attempts of a worker
--   wk:<worker>   hash    session, slots, body (what the worker said of itself); drain: it was
--                         told to
--   workers       zset    connected workers, by deadline (ms)
--   drains        set     workers that were told to drain and have not said so yet
--   catalogue     string  changes whenever some worker's models may have
--   gone:<job>    string  the job has ended: a late admission of it is ignored
--   p:<job>       string  last progress
--   pace          hash    mean_ms, per_cost, slots
--   epoch         string  whether all this may be believed: see epoch_open.lua
--   survey        hash    how far the comparison with the database has come
--
-- Channels: wake (a model's key), control ("stop <worker> <attempt>", "drain <worker>", "opened"),
-- job:<job>.
-- Arithmetic and order of operations are those of domain/policy.py.

local P = KEYS[1]
local call = redis.call
local RETURN_CREDIT = 0.9
local IDLE_USER_S = 86400
local GONE_S = 60

local function num(value)
  return string.format('%.17g', value)
end

local function now_ms()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function clock(field)
  return tonumber(call('HGET', P .. 'clock', field) or '0')
end

local function set_clock(field, value)
  call('HSET', P .. 'clock', field, num(value))
end

local function member(user)
  return string.format('%016.0f', user.turn) .. ':' .. user.id
end

local function models_of(user)
  return call('SMEMBERS', P .. 'um:' .. user.id)
end

local function load_user(id)
  local found = call('HMGET', P .. 'u:' .. id, 'ver', 'pri', 'wt', 'lim', 'f', 's', 'turn')
  if not found[1] then
    return nil
  end
  return {
    id = id,
    ver = tonumber(found[1]),
    pri = found[2],
    wt = tonumber(found[3]),
    lim = tonumber(found[4]),
    f = tonumber(found[5]),
    s = found[6] and tonumber(found[6]) or nil,
    turn = tonumber(found[7] or '0'),
  }
end

-- The user leaves the tier's set; so does the tier when it was the last.
local function leave(user)
  if not user.s then
    return
  end
  local name = member(user)
  call('ZREM', P .. 'tu:' .. user.pri, name)
  for _, model in ipairs(models_of(user)) do
    call('ZREM', P .. 'tm:' .. user.pri .. ':' .. model, name)
  end
  call('HDEL', P .. 'u:' .. user.id, 's')
  user.s = nil
  if call('EXISTS', P .. 'tu:' .. user.pri) == 0 then
    call('ZREM', P .. 'tiers', user.pri)
  end
end

local function enter(user)
  if call('EXISTS', P .. 'tu:' .. user.pri) == 0 then
    local first = call('ZRANGE', P .. 'uw:' .. user.id, 0, 0)[1]
    local cost = tonumber(call('HGET', P .. 'j:' .. first, 'cost'))
    local credit = RETURN_CREDIT * cost / user.wt
    local start = math.max(clock('f:' .. user.pri), clock('v') - credit)
    call('ZADD', P .. 'tiers', num(start), user.pri)
  end
  user.turn = call('HINCRBY', P .. 'clock', 'turn', 1)
  user.s = math.max(user.f, clock('t:' .. user.pri))
  call('HSET', P .. 'u:' .. user.id, 's', num(user.s), 'turn', num(user.turn))
  local name = member(user)
  call('ZADD', P .. 'tu:' .. user.pri, num(user.s), name)
  for _, model in ipairs(models_of(user)) do
    call('ZADD', P .. 'tm:' .. user.pri .. ':' .. model, num(user.s), name)
  end
end

local function may_run(user)
  return call('SCARD', P .. 'r:' .. user.id) < user.lim
end

local function refresh(user)
  local waits = call('EXISTS', P .. 'uw:' .. user.id) == 1
  if waits and may_run(user) then
    if not user.s then
      enter(user)
    end
  else
    leave(user)
    if not waits and call('EXISTS', P .. 'r:' .. user.id) == 0 then
      call('EXPIRE', P .. 'u:' .. user.id, IDLE_USER_S)
    end
  end
end

-- Numbers of the user's plan; an older version never replaces a newer one.
local function entitle(id, ver, pri, wt, lim)
  local user = load_user(id)
  if not user then
    user = { id = id, ver = tonumber(ver), pri = pri, f = 0, turn = 0 }
  elseif tonumber(ver) < user.ver then
    return user
  elseif pri ~= user.pri then
    leave(user)
    local waiting = call('ZRANGE', P .. 'uw:' .. id, 0, -1, 'WITHSCORES')
    for i = 1, #waiting, 2 do
      call('ZREM', P .. 'tj:' .. user.pri, waiting[i])
      call('ZADD', P .. 'tj:' .. pri, waiting[i + 1], waiting[i])
    end
    user.pri = pri
    user.f = 0
  end
  user.ver = tonumber(ver)
  user.wt = tonumber(wt)
  user.lim = tonumber(lim)
  call('HSET', P .. 'u:' .. id, 'ver', ver, 'pri', pri, 'wt', wt, 'lim', lim, 'f', num(user.f))
  call('PERSIST', P .. 'u:' .. id)
  call('HSET', P .. 'weights', pri, wt)
  return user
end

-- Into the line, at the job's place.
local function put(user, job, model, place)
  call('ZADD', P .. 'w:' .. user.id .. '/' .. model, place, job)
  call('ZADD', P .. 'uw:' .. user.id, place, job)
  call('ZADD', P .. 'tj:' .. user.pri, place, job)
  call('SADD', P .. 'um:' .. user.id, model)
  call('PERSIST', P .. 'u:' .. user.id)
  if user.s then
    call('ZADD', P .. 'tm:' .. user.pri .. ':' .. model, num(user.s), member(user))
  end
end

-- Out of the line.
local function take(user, job, model)
  local line = P .. 'w:' .. user.id .. '/' .. model
  call('ZREM', line, job)
  call('ZREM', P .. 'uw:' .. user.id, job)
  call('ZREM', P .. 'tj:' .. user.pri, job)
  call('ZREM', P .. 'startby', job)
  call('ZREM', P .. 'delayed', job)
  if call('EXISTS', line) == 0 then
    call('SREM', P .. 'um:' .. user.id, model)
    if user.s then
      call('ZREM', P .. 'tm:' .. user.pri .. ':' .. model, member(user))
    end
  end
end

local function wake(user)
  if user.s then
    for _, model in ipairs(models_of(user)) do
      call('PUBLISH', P .. 'wake', model)
    end
  end
end

local function tell(job)
  call('PUBLISH', P .. 'job:' .. job, '')
end

local function lend(attempt, job, user, worker, n, at, deadline)
  call('HSET', P .. 'a:' .. attempt, 'job', job, 'user', user.id, 'worker', worker, 'n', n, 'at', at)
  call('ZADD', P .. 'leases', deadline, attempt)
  call('SADD', P .. 'h:' .. worker, attempt)
  call('SADD', P .. 'r:' .. user.id, job)
  call('HSET', P .. 'j:' .. job, 'a', attempt, 'n', n)
end

-- Ends a lease; `stop` tells its worker so.
local function take_back(attempt, stop)
  local worker = call('HGET', P .. 'a:' .. attempt, 'worker')
  call('ZREM', P .. 'leases', attempt)
  call('DEL', P .. 'a:' .. attempt)
  if worker then
    call('SREM', P .. 'h:' .. worker, attempt)
    if stop then
      call('PUBLISH', P .. 'control', 'stop ' .. worker .. ' ' .. attempt)
    end
  end
end

local function new_job(job, user, model, cost, place, n)
  call('HSET', P .. 'j:' .. job, 'user', user.id, 'model', model, 'cost', cost, 'place', place, 'n', n)
  call('ZADD', P .. 'jobs', place, job)
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
  call('ZREM', P .. 'workers', worker)
  call('DEL', P .. 'wk:' .. worker)
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
