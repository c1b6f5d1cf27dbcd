-- Where users and tiers stand in line: for the eyes of users, see domain/estimate.py.

-- mean_ms, per_cost, slots; 0 where nothing was measured.
local function pace_now()
  local pace = call('HMGET', P .. 'pace', 'mean_ms', 'per_cost', 'slots')
  for i = 1, 3 do
    pace[i] = pace[i] or '0'
  end
  return pace
end

-- Where the tier stands, or would if a user of it came back from the limit now.
local function start_of(tier)
  local start = call('ZSCORE', P .. 'tiers', tier)
  return start or num(math.max(clock('f:' .. tier), clock('v')))
end

-- How many users come first, and how many there are, the user included: at the limit as if it came
-- back from there now.
local function rank_of(user)
  local ready = P .. 'tu:' .. user.pri
  if user.s then
    return call('ZRANK', ready, member(user)), call('ZCARD', ready)
  end
  local tag = math.max(user.f, clock('t:' .. user.pri))
  return call('ZCOUNT', ready, '-inf', num(tag)), call('ZCARD', ready) + 1
end

-- Priority, weight, waiting, start ('' where none waits) of each tier.
local function tiers_now()
  local tiers = {}
  local weights = call('HGETALL', P .. 'weights')
  for i = 1, #weights, 2 do
    tiers[#tiers + 1] = weights[i]
    tiers[#tiers + 1] = weights[i + 1]
    local waiting = call('ZCARD', P .. 'tj:' .. weights[i])
    tiers[#tiers + 1] = waiting
    tiers[#tiers + 1] = waiting > 0 and start_of(weights[i]) or ''
  end
  return tiers
end
