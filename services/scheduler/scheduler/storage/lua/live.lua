-- Where jobs stand.
-- ARGV: jobs
-- Returns {now, pace, tiers, jobs}: pace is mean_ms, per_cost, slots; tiers are priority, weight,
-- waiting, start ('' where none waits); jobs are lists: {} when unknown, {'r', n, at, cost, progress,
-- parked ('1' or '')} or
-- {'w', n, tier, cost, own_before, own_waiting, rank, users, not_before ('' for none)}.
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
return { num(now_ms()), pace_now(), tiers_now(), jobs }
