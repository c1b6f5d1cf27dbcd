-- A worker's stream has ended and did not come back.
-- ARGV: worker, session
-- Returns the claims that the worker held; none when another stream of it is there.
local worker = ARGV[1]
local refused = stranger(worker, ARGV[2])
if refused == 'replaced' then
  return {}
end
if not refused then
  dismiss(worker)
end
local claims = {}
for _, attempt in ipairs(call('SMEMBERS', P .. 'h:' .. worker)) do
  add_claim(claims, attempt)
end
return claims
