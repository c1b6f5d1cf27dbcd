-- Lets jobs be claimed whose pause is over.
-- ARGV: limit
-- Returns how many there were.
local count = release(now_ms(), ARGV[1])
preempt()
return count
