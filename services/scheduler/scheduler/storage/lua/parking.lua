-- Setting attempts aside for jobs of a higher priority, and going on with them. The rules are those of
-- domain/parking.py; a test compares every answer.

local REMIND_MS = 2000

-- The tag by which a parked attempt goes on: its tier's, or the one the tier would come back with.
local function turn_of(attempt)
  local found = call('HMGET', P .. 'a:' .. attempt, 'user', 'job')
  local user = load_user(found[1])
  local start = call('ZSCORE', P .. 'tiers', user.pri)
  if start then
    start = tonumber(start)
  else
    local cost = tonumber(call('HGET', P .. 'j:' .. found[2], 'cost'))
    start = math.max(clock('f:' .. user.pri), clock('v') - RETURN_CREDIT * cost / user.wt)
  end
  return { start = start, rank = tonumber(user.pri) }
end

-- The job that a worker with these models is given next, its model, and its tier.
local function next_up(models)
  for _, tier in ipairs(sorted_tiers()) do
    local due, job, model
    for _, one in ipairs(models) do
      local found = call('ZRANGE', P .. 'tm:' .. tier.pri .. ':' .. one, 0, 0, 'WITHSCORES')
      local head = found[1] and { name = found[1], tag = tonumber(found[2]) }
      if head and (not due or lower(head, due)) then
        due = head
      end
    end
    if due then
      local user = user_of(due)
      for _, one in ipairs(models) do
        local found = call('ZRANGE', P .. 'w:' .. user.id .. '/' .. one, 0, 0, 'WITHSCORES')
        local head = found[1] and { name = found[1], tag = tonumber(found[2]) }
        if head and (not job or lower(head, job)) then
          job, model = head, one
        end
      end
      return job.name, model, tier
    end
  end
end

local function is_anyone_idle(model)
  for _, class in ipairs(call('SMEMBERS', P .. 'idlers')) do
    if call('SISMEMBER', P .. 'class:' .. class, model) == 1 then
      return true
    end
  end
  return false
end

-- An attempt was named for this job and has not gone on since.
local function has_victim(job)
  local victim = call('HGET', P .. 'j:' .. job, 'victim')
  local state = victim and call('HGET', P .. 'a:' .. victim, 'state')
  return state == 'parking' or state == 'parked'
end

local function park(attempt, job, now)
  local worker = call('HGET', P .. 'a:' .. attempt, 'worker')
  unlist(attempt)
  call('HSET', P .. 'a:' .. attempt, 'state', 'parking')
  call('HSET', P .. 'j:' .. job, 'victim', attempt)
  call('ZADD', P .. 'parked:' .. worker, 0, attempt)
  call('ZADD', P .. 'asked', now, attempt)
  if call('ZCARD', P .. 'parked:' .. worker) >= tonumber(call('HGET', P .. 'wk:' .. worker, 'slots')) then
    list_all(worker)
  end
  call('PUBLISH', P .. 'control', 'park ' .. worker .. ' ' .. attempt)
end

-- Names an attempt to be set aside in each class of workers where a job of a higher priority is next,
-- comes before it by its tier's tag, and finds no room.
local function preempt()
  local best = {}
  for _, class in ipairs(call('SMEMBERS', P .. 'seated')) do
    local found = call('ZRANGE', P .. 'seats:' .. class, 0, 0, 'WITHSCORES')
    best[#best + 1] = { class = class, name = found[1], tag = tonumber(found[2]) }
  end
  table.sort(best, lower)
  for _, seat in ipairs(best) do
    local job, model, tier = next_up(call('SMEMBERS', P .. 'class:' .. seat.class))
    local attempt = string.sub(seat.name, 33)
    if job and tier.rank > seat.tag and by_tag(tier, turn_of(attempt))
      and not has_victim(job) and not is_anyone_idle(model) then
      park(attempt, job, now_ms())
    end
  end
end

local function add_parked_time(attempt, now)
  local parked_at = call('HGET', P .. 'a:' .. attempt, 'parked_at')
  if parked_at then
    call('HINCRBY', P .. 'a:' .. attempt, 'parked_ms', math.max(0, now - tonumber(parked_at)))
    call('HDEL', P .. 'a:' .. attempt, 'parked_at')
  end
end

local function resume(attempt, now)
  local worker = call('HGET', P .. 'a:' .. attempt, 'worker')
  unpark(attempt, worker)
  add_parked_time(attempt, now)
  call('HSET', P .. 'a:' .. attempt, 'state', 'resuming')
  call('ZADD', P .. 'asked', now, attempt)
  list_all(worker)
  call('PUBLISH', P .. 'control', 'resume ' .. worker .. ' ' .. attempt)
  tell(call('HGET', P .. 'a:' .. attempt, 'job'))
end

-- The worker has a free slot: goes on with an attempt that it has set aside if its turn comes no later
-- than that of the job that is next. True when the slot is taken.
local function resume_next(worker, models, now)
  local turn, chosen
  for _, attempt in ipairs(call('ZRANGEBYSCORE', P .. 'parked:' .. worker, '(0', '+inf')) do
    local found = turn_of(attempt)
    if not turn or by_tag(found, turn) then
      turn, chosen = found, attempt
    end
  end
  if not chosen then
    return false
  end
  local job, _, tier = next_up(models)
  if job and by_tag(tier, turn) then
    return false
  end
  resume(chosen, now)
  return true
end

-- The worker says that it has set an attempt aside.
local function set_parked(attempt, worker, now)
  local state = call('HGET', P .. 'a:' .. attempt, 'state')
  if state == 'parked' or state == 'resuming' then
    return
  end
  unlist(attempt)
  call('ZREM', P .. 'asked', attempt)
  call('HSET', P .. 'a:' .. attempt, 'state', 'parked', 'parked_at', now)
  call('HINCRBY', P .. 'a:' .. attempt, 'parks', 1)
  call('ZADD', P .. 'parked:' .. worker, now, attempt)
  local park_ms = call('HGET', P .. 'wk:' .. worker, 'park_ms') or '0'
  call('ZADD', P .. 'resumes', now + tonumber(park_ms), attempt)
  list_all(worker)
  tell(call('HGET', P .. 'a:' .. attempt, 'job'))
end

-- The worker says that it works on an attempt. One that it was told to set aside may still be on its
-- way there.
local function set_running(attempt, worker, now)
  local state = call('HGET', P .. 'a:' .. attempt, 'state')
  if state ~= 'parked' and state ~= 'resuming' then
    return
  end
  unpark(attempt, worker)
  add_parked_time(attempt, now)
  call('HDEL', P .. 'a:' .. attempt, 'state')
  list_all(worker)
  tell(call('HGET', P .. 'a:' .. attempt, 'job'))
end

-- Goes on with attempts that were set aside for long enough, room or not.
local function resume_overdue(now, limit)
  for _, attempt in ipairs(call('ZRANGEBYSCORE', P .. 'resumes', '-inf', now, 'LIMIT', 0, limit)) do
    resume(attempt, now)
  end
end

local function remind(now, limit)
  local late = call('ZRANGEBYSCORE', P .. 'asked', '-inf', now - REMIND_MS, 'LIMIT', 0, limit)
  for _, attempt in ipairs(late) do
    local found = call('HMGET', P .. 'a:' .. attempt, 'worker', 'state')
    local verb = found[2] == 'parking' and 'park ' or 'resume '
    call('ZADD', P .. 'asked', now, attempt)
    call('PUBLISH', P .. 'control', verb .. found[1] .. ' ' .. attempt)
  end
end
