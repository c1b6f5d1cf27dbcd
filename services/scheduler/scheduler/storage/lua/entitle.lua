-- Numbers of a user's plan hold from now on, also for the waiting jobs. Idempotent.
-- ARGV: user, ver, pri, wt, lim
local user = entitle(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
refresh(user)
wake(user)
return 1
