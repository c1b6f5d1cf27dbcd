-- Lends a worker the next jobs that it can draw, each under a fresh attempt. Idempotent by attempt.
-- ARGV: worker, session, lease_ms, count, attempt ids (count of them), model keys
-- Returns 'unknown' or 'replaced', or a list of claims.
local worker, session, lease_ms, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local refused = stranger(worker, session)
if refused then
  return refused
end
local now = now_ms()
local first_model = 5 + count

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

-- The user of a tier with the lowest start tag among those with a job that the worker can draw.
local function next_user(pri)
  local best, score
  for i = first_model, #ARGV do
    local found = call('ZRANGE', P .. 'tm:' .. pri .. ':' .. ARGV[i], 0, 0, 'WITHSCORES')
    if found[1] then
      local tag = tonumber(found[2])
      if not best or tag < score or (tag == score and found[1] < best) then
        best, score = found[1], tag
      end
    end
  end
  return best and load_user(string.sub(best, 18))
end

local function first_job(user)
  local best, model, place
  for i = first_model, #ARGV do
    local found = call('ZRANGE', P .. 'w:' .. user.id .. '/' .. ARGV[i], 0, 0, 'WITHSCORES')
    if found[1] and (not best or tonumber(found[2]) < place) then
      best, model, place = found[1], ARGV[i], tonumber(found[2])
    end
  end
  return best, model
end

local function dispatch(tier, user, job, model)
  local cost = tonumber(call('HGET', P .. 'j:' .. job, 'cost'))
  -- a tier that no asking worker could serve for a while does not collect credit meanwhile
  local virtual = clock('v')
  local tier_start = math.max(tier.start, virtual - RETURN_CREDIT * cost / user.wt)
  set_clock('v', math.max(virtual, tier_start))
  local tier_finish = tier_start + cost / user.wt
  set_clock('f:' .. user.pri, tier_finish)
  call('ZADD', P .. 'tiers', num(tier_finish), user.pri)

  local start = math.max(user.s, clock('t:' .. user.pri))
  set_clock('t:' .. user.pri, start)
  user.f = start + cost
  user.s = user.f
  call('HSET', P .. 'u:' .. user.id, 'f', num(user.f), 's', num(user.s))
  take(user, job, model)
  local name = member(user)
  call('ZADD', P .. 'tu:' .. user.pri, num(user.s), name)
  for _, left in ipairs(models_of(user)) do
    call('ZADD', P .. 'tm:' .. user.pri .. ':' .. left, num(user.s), name)
  end
end

local function claim(attempt)
  for _, tier in ipairs(sorted_tiers()) do
    local user = next_user(tier.pri)
    if user then
      local job, model = first_job(user)
      dispatch(tier, user, job, model)
      local n = tonumber(call('HGET', P .. 'j:' .. job, 'n')) + 1
      lend(attempt, job, user, worker, n, now, now + lease_ms)
      refresh(user)
      tell(job)
      return true
    end
  end
  return false
end

release(now, count)
local claims = {}
for i = 5, first_model - 1 do
  if call('EXISTS', P .. 'a:' .. ARGV[i]) == 1 or claim(ARGV[i]) then
    add_claim(claims, ARGV[i])
  else
    break
  end
end
return claims
