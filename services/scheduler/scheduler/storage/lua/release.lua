-- Lets jobs be claimed whose pause is over.
-- ARGV: limit
-- Returns how many there were.
return release(now_ms(), ARGV[1])
