-- Who asks Alpaca for its assets: one at a time, and nobody while there is a list or a refusal to wait out.
--
-- KEYS[1]  {namespace}:assets:{account}   hash: symbol -> value; asked = when, once it is whole
-- ARGV[1]  instance   who asks, for eyes
-- ARGV[2]  seconds    how long that may take
--
-- Replies 0 to the one who is to ask; otherwise the seconds for which the key still stands, at least 1.

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'asking', ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return 0
end
local left = redis.call('TTL', KEYS[1])
if left < 0 then
  -- No writer of ours leaves it without an end: a copy that was put back by hand, or half a write.
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return math.max(left, 1)
