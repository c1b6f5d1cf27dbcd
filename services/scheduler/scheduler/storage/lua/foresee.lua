-- Where a job would stand that is not submitted yet; as live.lua, and writes nothing.
-- ARGV: user, ver, pri, wt, cost
-- Returns {pace, tiers, place}: place is priority, weight, start of the tier once the job is in it,
-- own_before, rank, users.
local id, ver, pri, wt, cost = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local known = load_user(id)
local user = { id = id, pri = pri, wt = wt, f = 0, entry = 0 }
if known and known.ver > ver then
  user = known
elseif known and known.pri == pri then
  user.f, user.s, user.entry, user.lim = known.f, known.s, known.entry, known.lim
end
-- as `enter` would have it for the first of a tier
local start = call('ZSCORE', P .. 'tiers', user.pri)
if not start then
  local credit = (not user.lim or may_run(user)) and RETURN_CREDIT * cost / user.wt or 0
  start = num(math.max(clock('f:' .. user.pri), clock('v') - credit))
end
local rank, users = rank_of(user)
local own_before = call('ZCARD', P .. 'uw:' .. id)
return { pace_now(), tiers_now(), { user.pri, num(user.wt), start, own_before, rank, users } }
