-- The fair queue: users in tiers, jobs in line, charges. Arithmetic and order of operations are those
-- of domain/policy.py and domain/cost.py, which say why; a test compares every answer.

local RETURN_CREDIT = 0.9
local MAX_OVERRUN = 4
local PACE_SMOOTHING = 0.1
local IDLE_USER_S = 86400

local function clock(field)
  return tonumber(call('HGET', P .. 'clock', field) or '0')
end

local function set_clock(field, value)
  call('HSET', P .. 'clock', field, num(value))
end

local function member(user)
  return string.format('%016.0f', user.entry) .. ':' .. user.id
end

local function models_of(user)
  return call('SMEMBERS', P .. 'um:' .. user.id)
end

-- Users are read once a script; whatever changes one changes its table too.
local users = {}

local function load_user(id)
  if users[id] then
    return users[id]
  end
  local found = call('HMGET', P .. 'u:' .. id, 'ver', 'pri', 'wt', 'lim', 'f', 's', 'entry', 'passed')
  if not found[1] then
    return nil
  end
  users[id] = {
    id = id,
    ver = tonumber(found[1]),
    pri = found[2],
    wt = tonumber(found[3]),
    lim = tonumber(found[4]),
    f = tonumber(found[5]),
    s = found[6] and tonumber(found[6]) or nil,
    entry = tonumber(found[7] or '0'),
    passed = tonumber(found[8] or '0'),
  }
  return users[id]
end

-- Puts the user where its start tag belongs, in all sets of its tier.
local function rank(user)
  local name, tag = member(user), num(user.s)
  call('ZADD', P .. 'tu:' .. user.pri, tag, name)
  for _, model in ipairs(models_of(user)) do
    call('ZADD', P .. 'tm:' .. user.pri .. ':' .. model, tag, name)
  end
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
  user.entry = call('HINCRBY', P .. 'clock', 'entry', 1)
  user.passed = 0
  user.s = math.max(user.f, clock('t:' .. user.pri))
  call('HSET', P .. 'u:' .. user.id, 's', num(user.s), 'entry', num(user.entry), 'passed', '0')
  rank(user)
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

-- Numbers of the user's plan; an older version never replaces a newer one. To be followed by refresh.
local function entitle(id, ver, pri, wt, lim)
  local user = load_user(id)
  if not user then
    user = { id = id, f = 0, entry = 0, passed = 0 }
    users[id] = user
  elseif tonumber(ver) < user.ver then
    return user
  elseif pri ~= user.pri then
    leave(user)
    local waiting = call('ZRANGE', P .. 'uw:' .. id, 0, -1, 'WITHSCORES')
    for i = 1, #waiting, 2 do
      call('ZREM', P .. 'tj:' .. user.pri, waiting[i])
      call('ZADD', P .. 'tj:' .. pri, waiting[i + 1], waiting[i])
    end
    user.f = 0
  end
  if user.pri == pri and user.wt == tonumber(wt) and user.lim == tonumber(lim) and user.ver == tonumber(ver) then
    return user
  end
  call('HSET', P .. 'weights', pri, wt)
  user.ver, user.pri, user.wt, user.lim = tonumber(ver), pri, tonumber(wt), tonumber(lim)
  call('HSET', P .. 'u:' .. id, 'ver', ver, 'pri', pri, 'wt', wt, 'lim', lim, 'f', num(user.f))
  return user
end

-- To be followed by put, lend or delay.
local function new_job(job, user, model, cost, place, order, n)
  call('PERSIST', P .. 'u:' .. user.id)
  call('HSET', P .. 'j:' .. job, 'user', user.id, 'model', model, 'cost', cost, 'order', order, 'n', n)
  call('ZADD', P .. 'jobs', place, job)
end

-- Into the line.
local function put(user, job, model, order)
  call('ZADD', P .. 'w:' .. user.id .. '/' .. model, order, job)
  call('ZADD', P .. 'uw:' .. user.id, order, job)
  call('ZADD', P .. 'tj:' .. user.pri, order, job)
  local new_model = call('SADD', P .. 'um:' .. user.id, model) == 1
  if user.s and new_model then
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

-- Once for each model, however many jobs a script moves: who claims on it passes the wake-up on.
local woken = {}

local function wake(user)
  if user.s and not QUIET then
    for _, model in ipairs(models_of(user)) do
      if not woken[model] then
        woken[model] = true
        call('PUBLISH', P .. 'wake', model)
      end
    end
  end
end

-- The part of a job's steps that its attempt has done, as far as is known.
local function done_of(job)
  local shown = call('GET', P .. 'p:' .. job)
  if not shown then
    return 0
  end
  local progress = cjson.decode(shown)
  return progress.steps > 0 and math.min(1, progress.step / progress.steps) or 0
end

-- What a success cost; took_ms is 0 where nobody knows.
local function cost_by_time(cost, took_ms)
  local per_cost = call('HGET', P .. 'pace', 'per_cost')
  if took_ms == 0 or not per_cost then
    return cost
  end
  return math.min(took_ms / tonumber(per_cost), cost * MAX_OVERRUN)
end

local function average(field, value)
  local old = call('HGET', P .. 'pace', field)
  if old then
    value = tonumber(old) * (1 - PACE_SMOOTHING) + value * PACE_SMOOTHING
  end
  call('HSET', P .. 'pace', field, num(value))
end

local function charge(job, user, cost)
  call('HSET', P .. 'j:' .. job, 'charged', cost, 'tier', user.pri, 'wt', num(user.wt))
end

local function moved(tag, change, virtual)
  return math.max(tag + change, math.min(tag, virtual))
end

-- The job's latest attempt cost `actual`: charges that instead of what it was charged.
local function settle(user, job, actual)
  local found = call('HMGET', P .. 'j:' .. job, 'charged', 'tier', 'wt')
  local change, tier = actual - tonumber(found[1]), found[2]
  if change == 0 then
    return
  end
  call('HSET', P .. 'j:' .. job, 'charged', num(actual))
  local by, virtual = change / tonumber(found[3]), clock('v')
  set_clock('f:' .. tier, moved(clock('f:' .. tier), by, virtual))
  local start = call('ZSCORE', P .. 'tiers', tier)
  if start then
    call('ZADD', P .. 'tiers', num(moved(tonumber(start), by, virtual)), tier)
  end
  if user.pri ~= tier then
    return
  end
  virtual = clock('t:' .. tier)
  user.f = moved(user.f, change, virtual)
  call('HSET', P .. 'u:' .. user.id, 'f', num(user.f))
  if user.s then
    user.s = moved(user.s, change, virtual)
    call('HSET', P .. 'u:' .. user.id, 's', num(user.s))
    rank(user)
  end
end

-- By tag, then by name: the order of a sorted set.
local function lower(a, b)
  if a.tag ~= b.tag then
    return a.tag < b.tag
  end
  return a.name < b.name
end

-- Tiers by start tag, the higher priority first among equals.
local function by_tag(a, b)
  if a.start ~= b.start then
    return a.start < b.start
  end
  return a.rank > b.rank
end

local function sorted_tiers()
  local tiers = {}
  local found = call('ZRANGE', P .. 'tiers', 0, -1, 'WITHSCORES')
  for i = 1, #found, 2 do
    tiers[#tiers + 1] = { pri = found[i], rank = tonumber(found[i]), start = tonumber(found[i + 1]) }
  end
  table.sort(tiers, by_tag)
  return tiers
end

local function user_of(head)
  return load_user(string.sub(head.name, 18))
end
