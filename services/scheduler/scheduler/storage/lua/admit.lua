-- Puts jobs in line, or back under a lease that they had before a loss. Idempotent.
-- ARGV: lease_ms, then for each job: job, user, model, cost, place, order, n, start_by_ms,
--       ver, pri, wt, lim, attempt ('' when waiting), worker, at_ms, not_before_ms
-- Returns the number of jobs that were not known.
local FIELDS = 16
local lease_ms = tonumber(ARGV[1])
local added = 0
for i = 2, #ARGV, FIELDS do
  local job, model, cost, order, n = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 5], ARGV[i + 6]
  local attempt = ARGV[i + 12]
  local user = entitle(ARGV[i + 1], ARGV[i + 8], ARGV[i + 9], ARGV[i + 10], ARGV[i + 11])
  local known = call('EXISTS', P .. 'j:' .. job, P .. 'gone:' .. job) > 0
  if not known then
    added = added + 1
    new_job(job, user, model, cost, ARGV[i + 4], order, n)
    if attempt ~= '' then
      lend(attempt, job, user, ARGV[i + 13], n, ARGV[i + 14], now_ms() + lease_ms)
      charge(job, user, '0')
      call('HSET', P .. 'a:' .. attempt, 'restored', '1')
    elseif tonumber(ARGV[i + 15]) > now_ms() then
      delay(job, ARGV[i + 15])
    else
      put(user, job, model, order)
      if n == '0' then
        call('ZADD', P .. 'startby', ARGV[i + 7], job)
      end
    end
  end
  refresh(user)
  if not known then
    wake(user)
    tell(job)
  end
end
preempt()
return added
