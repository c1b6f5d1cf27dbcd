-- Puts jobs in line, or back under a lease that they had before a loss. Idempotent.
-- ARGV: lease_ms, then for each job: job, user, model, cost, place, n, start_by_ms,
--       ver, pri, wt, lim, attempt ('' when waiting), worker, at_ms, not_before_ms
-- Returns the number of jobs that were not known.
local FIELDS = 15
local lease_ms = tonumber(ARGV[1])
local added = 0
for i = 2, #ARGV, FIELDS do
  local job, model = ARGV[i], ARGV[i + 2]
  local attempt = ARGV[i + 11]
  local user = entitle(ARGV[i + 1], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], ARGV[i + 10])
  local known = call('EXISTS', P .. 'j:' .. job, P .. 'gone:' .. job) > 0
  if not known then
    added = added + 1
    new_job(job, user, model, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
    if attempt ~= '' then
      lend(attempt, job, user, ARGV[i + 12], ARGV[i + 5], ARGV[i + 13], now_ms() + lease_ms)
      call('HSET', P .. 'a:' .. attempt, 'restored', '1')
    elseif tonumber(ARGV[i + 14]) > now_ms() then
      delay(job, ARGV[i + 14])
    else
      put(user, job, model, ARGV[i + 4])
      if ARGV[i + 5] == '0' then
        call('ZADD', P .. 'startby', ARGV[i + 6], job)
      end
    end
  end
  refresh(user)
  if not known then
    wake(user)
    tell(job)
  end
end
return added
