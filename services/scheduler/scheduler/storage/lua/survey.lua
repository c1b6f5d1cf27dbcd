-- How far the comparison with the database has come: reads it, or writes it.
-- ARGV: nothing, or fields and values
if #ARGV > 0 then
  call('HSET', P .. 'survey', unpack(ARGV))
end
return call('HMGET', P .. 'survey', 'floor', 'next_floor', 'next_floor_at_ms', 'cursor')
