-- Lends a worker the next jobs that it can draw, each under a fresh attempt. Idempotent by attempt.
-- ARGV: worker, session, lease_ms, count, number of loaded models, attempt ids (count of them),
--       model keys, the loaded ones first
-- Returns 'unknown' or 'replaced', or a list of claims.
local AFFINITY_LEAD = 2
local worker, session, lease_ms, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local refused = stranger(worker, session)
if refused then
  return refused
end
local now = now_ms()
local first_model = 6 + count
local last_loaded = first_model + tonumber(ARGV[5]) - 1

-- For each model the user of a tier who comes first: whose turn it is, and those of loaded models.
local function heads(pri)
  local due, loaded = nil, {}
  for i = first_model, #ARGV do
    local found = call('ZRANGE', P .. 'tm:' .. pri .. ':' .. ARGV[i], 0, 0, 'WITHSCORES')
    if found[1] then
      local head = { name = found[1], tag = tonumber(found[2]) }
      if not due or lower(head, due) then
        due = head
      end
      if i <= last_loaded then
        loaded[#loaded + 1] = head
      end
    end
  end
  return due, loaded
end

local function first_job(user)
  local first
  for i = first_model, #ARGV do
    local found = call('ZRANGE', P .. 'w:' .. user.id .. '/' .. ARGV[i], 0, 0, 'WITHSCORES')
    if found[1] then
      local job = { name = found[1], tag = tonumber(found[2]), model = ARGV[i], loaded = i <= last_loaded }
      if not first or lower(job, first) then
        first = job
      end
    end
  end
  local found = call('HMGET', P .. 'j:' .. first.name, 'cost', 'n')
  first.cost, first.n = tonumber(found[1]), tonumber(found[2])
  return first
end

-- The user to serve and its job: the one whose turn it is, or one with a loaded model within the lead.
local function choose(due, loaded)
  local job = first_job(due)
  if job.loaded or #loaded == 0 then
    return due, job
  end
  local lead = AFFINITY_LEAD * job.cost
  table.sort(loaded, lower)
  for _, head in ipairs(loaded) do
    if head.tag > due.s + lead then
      break
    end
    local other = user_of(head)
    local theirs = first_job(other)
    if theirs.loaded and due.passed + theirs.cost <= lead then
      due.passed = due.passed + theirs.cost
      call('HSET', P .. 'u:' .. due.id, 'passed', due.passed)
      return other, theirs
    end
  end
  return due, job
end

local function dispatch(tier, due, user, job)
  -- a tier that no asking worker could serve for a while does not collect credit meanwhile
  local virtual = clock('v')
  local tier_start = math.max(tier.start, virtual - RETURN_CREDIT * job.cost / user.wt)
  set_clock('v', math.max(virtual, tier_start))
  local tier_finish = tier_start + job.cost / user.wt
  set_clock('f:' .. user.pri, tier_finish)
  call('ZADD', P .. 'tiers', num(tier_finish), user.pri)

  -- the tier's time is that of the user whose turn it is, who loses nothing by waiting
  virtual = math.max(clock('t:' .. user.pri), due.s)
  set_clock('t:' .. user.pri, virtual)
  user.f = math.max(user.s, virtual) + job.cost
  user.s = user.f
  user.passed = 0
  call('HSET', P .. 'u:' .. user.id, 'f', num(user.f), 's', num(user.s), 'passed', '0')
  take(user, job.name, job.model)
  charge(job.name, user, job.cost)
  rank(user)
end

local function claim(attempt)
  for _, tier in ipairs(sorted_tiers()) do
    local head, loaded = heads(tier.pri)
    if head then
      local due = user_of(head)
      local user, job = choose(due, loaded)
      dispatch(tier, due, user, job)
      lend(attempt, job.name, user, worker, job.n + 1, now, now + lease_ms)
      refresh(user)
      tell(job.name)
      return true
    end
  end
  return false
end

release(now, count)
local models, room = {}, count
for i = first_model, #ARGV do
  models[#models + 1] = ARGV[i]
end
if call('EXISTS', P .. 'parked:' .. worker) == 1 then
  -- its stream may not have heard yet that it goes on with one
  local slots = tonumber(call('HGET', P .. 'wk:' .. worker, 'slots'))
  room = slots - call('SCARD', P .. 'h:' .. worker) + count_parked(worker)
end
local claims, idle = {}, false
for i = 6, first_model - 1 do
  if call('EXISTS', P .. 'a:' .. ARGV[i]) == 1 then
    add_claim(claims, ARGV[i])
  elseif room <= 0 then
    break
  elseif not resume_next(worker, models, now) then
    if not claim(ARGV[i]) then
      idle = true
      break
    end
    add_claim(claims, ARGV[i])
  end
  room = room - 1
end
set_idle(worker, idle)
if not idle then
  preempt()
end
return claims
