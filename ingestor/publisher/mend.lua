-- Puts into the cache what the streams already have, where the cache is missing it or is behind.
--
-- KEYS[1]  {namespace}:writer   hash: epoch, token = who holds it
-- KEYS[2]  {namespace}:latest   hash: symbol -> newest quote
-- ARGV[1]  epoch      the writer's epoch
-- ARGV[2]  token      the writer's own
-- ARGV[3…] symbol, id, cache value, in turn
--
-- Replies how many fields it set. A newer value than the one offered stays: the append call may have been faster.

local position = redis.call('HMGET', KEYS[1], 'epoch', 'token')
if position[1] ~= ARGV[1] or position[2] ~= ARGV[2] then
  return 0
end

local mended = 0
for i = 3, #ARGV, 3 do
  local held = redis.call('HGET', KEYS[2], ARGV[i])
  local ms, n = string.match(held or '', '"id":"(%d+)%-(%d+)"')
  local new_ms, new_n = string.match(ARGV[i + 1], '^(%d+)%-(%d+)$')
  ms, n, new_ms, new_n = tonumber(ms or -1), tonumber(n or -1), tonumber(new_ms), tonumber(new_n)
  if new_ms > ms or (new_ms == ms and new_n > n) then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
    mended = mended + 1
  end
end
return mended
