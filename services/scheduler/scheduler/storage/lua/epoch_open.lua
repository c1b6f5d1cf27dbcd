-- Stands before every script that serves. The epoch key names the very Redis process that was
-- filled from the database; after a flush, a restart (with or without an old dump), a failover or
-- a restore it is missing or names another, and nothing is served until it is rebuilt.
-- Its value: "open <run id>", or while one replica fills it "building <run id> <token>".
do
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  if redis.call('GET', KEYS[1] .. 'epoch') ~= 'open ' .. run_id then
    return redis.error_reply('CLOSED the queue is being rebuilt')
  end
end
local QUIET = false
