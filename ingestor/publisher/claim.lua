-- Takes or confirms the writer's position, once per connection, before any batch is sent on it.
--
-- KEYS[1]  {namespace}:writer   hash: epoch, token, batch, instance, began = a mark that only a new epoch leaves,
--                               bus = whose data this is
-- ARGV[1]  epoch      0 to begin a new epoch, otherwise the epoch that this writer holds
-- ARGV[2]  batch      the count goes on behind this one at the least: whatever came up to it cannot be sent again
-- ARGV[3]  instance   who we are, for eyes
-- ARGV[4]  token      who we are, for certain: drawn anew by every process
-- ARGV[5]  sent       the highest batch that this writer has ever sent; a count beyond it is not ours
-- ARGV[6]  answered   the highest batch that it knows to be applied: where a count that is not ours is set back to
-- ARGV[7]  bus        the id that the data gets where it has none, by which the spool's folder is known; or empty
--
-- Replies {status, epoch, batch}:
--   {'held', epoch, batch}     ours; batch = what the server said was applied last before this claim
--   {'fenced', epoch, batch}   another writer has taken over; nothing was done
-- It always writes, so that a server which refuses writes (a replica, one out of memory) refuses the claim.

-- What is no count, because somebody else has written it, counts as nothing.
local function count(text)
  local number = tonumber(text or 0)
  return number and number >= 0 and number < 2 ^ 53 and number or 0
end

local position = redis.call('HMGET', KEYS[1], 'epoch', 'batch', 'token', 'bus')
local held_epoch, applied = count(position[1]), count(position[2])
local epoch, least = tonumber(ARGV[1]), tonumber(ARGV[2])
local sent, answered = tonumber(ARGV[5]), tonumber(ARGV[6])

local function identify()
  if ARGV[7] ~= '' and (position[4] or '') == '' then
    redis.call('HSET', KEYS[1], 'bus', ARGV[7])
  end
end

if epoch == 0 then
  epoch = held_epoch + 1
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'batch', 0, 'instance', ARGV[3], 'token', ARGV[4], 'began', 1)
  identify()
  return {'held', epoch, 0}
end
if held_epoch > epoch or (held_epoch == epoch and position[3] ~= ARGV[4]) then
  return {'fenced', held_epoch, applied}
end
if held_epoch < epoch then
  -- The server lost our claim (emptied, or restored from before it): what it applied last is unknown.
  applied = 0
end
local believed = applied
if applied > sent then
  believed = answered
end
redis.call(
  'HSET', KEYS[1], 'epoch', epoch, 'batch', math.max(believed, least), 'instance', ARGV[3], 'token', ARGV[4]
)
identify()
return {'held', epoch, applied}
