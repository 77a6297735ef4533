-- Takes or confirms the writer's position, once per connection, before any batch is sent on it.
--
-- KEYS[1]  {namespace}:writer   hash: epoch, batch, instance, began = a mark that only a new epoch leaves
-- ARGV[1]  epoch      0 to begin a new epoch, otherwise the epoch that this writer holds
-- ARGV[2]  batch      the last batch that was answered as applied
-- ARGV[3]  instance   who we are, for eyes
--
-- Replies {status, epoch, batch}:
--   {'held', epoch, batch}     ours; batch = what the server says was applied last before this claim
--   {'fenced', epoch, batch}   a newer writer has taken over; nothing was done

local position = redis.call('HMGET', KEYS[1], 'epoch', 'batch')
local held_epoch, applied = tonumber(position[1] or 0), tonumber(position[2] or 0)
local epoch, answered = tonumber(ARGV[1]), tonumber(ARGV[2])

if epoch == 0 then
  epoch = held_epoch + 1
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'batch', 0, 'instance', ARGV[3], 'began', 1)
  return {'held', epoch, 0}
end
if held_epoch > epoch then
  return {'fenced', held_epoch, applied}
end
if held_epoch < epoch then
  -- The server lost our claim (emptied, or restored from before it): what it applied last is unknown.
  applied = 0
end
if held_epoch < epoch or applied < answered then
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'batch', answered, 'instance', ARGV[3])
end
return {'held', epoch, applied}
