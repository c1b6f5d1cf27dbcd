-- Where jobs stand.
-- ARGV: jobs
-- Returns {now, pace, tiers, jobs}: pace is mean_ms, per_cost, slots; tiers are priority, weight,
-- waiting, start ('' where none waits); jobs are lists: {} when unknown, {'r', n, at, cost, progress,
-- parked ('1' or '')} or
-- {'w', n, tier, cost, own_before, own_waiting, rank, users, not_before ('' for none)}.
local pace = call('HMGET', P .. 'pace', 'mean_ms', 'per_cost', 'slots')
for i = 1, 3 do
  pace[i] = pace[i] or '0'
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

local tiers = {}
local weights = call('HGETALL', P .. 'weights')
for i = 1, #weights, 2 do
  tiers[#tiers + 1] = weights[i]
  tiers[#tiers + 1] = weights[i + 1]
  local waiting = call('ZCARD', P .. 'tj:' .. weights[i])
  tiers[#tiers + 1] = waiting
  tiers[#tiers + 1] = waiting > 0 and start_of(weights[i]) or ''
end
local jobs = {}
for i, job in ipairs(ARGV) do
  local found = call('HMGET', P .. 'j:' .. job, 'user', 'a', 'n', 'cost', 'order')
  if not found[1] then
    jobs[i] = {}
  elseif found[2] then
    local attempt = call('HMGET', P .. 'a:' .. found[2], 'at', 'state')
    local parked = attempt[2] == 'parked' and '1' or ''
    local progress = call('GET', P .. 'p:' .. job) or ''
    jobs[i] = { 'r', found[3], attempt[1] or num(now_ms()), found[4], progress, parked }
  else
    local user = load_user(found[1])
    local not_before = call('ZSCORE', P .. 'delayed', job)
    local rank, users = rank_of(user)
    jobs[i] = {
      'w', found[3], user.pri, found[4],
      call('ZCOUNT', P .. 'uw:' .. user.id, '-inf', '(' .. found[5]), call('ZCARD', P .. 'uw:' .. user.id),
      rank, users, not_before or '',
    }
  end
end
return { num(now_ms()), pace, tiers, jobs }
