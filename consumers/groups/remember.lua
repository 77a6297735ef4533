-- Writes down what a group has handled, unless somebody else has written meanwhile.
--
-- KEYS[1]  {namespace}:groups:<group>:<symbol>   sorted set with one member, the record
-- ARGV[1]  expected   the record as it was read, empty for none
-- ARGV[2]  record     what shall stand there
-- ARGV[3]  seconds    after which it is forgotten, if nobody writes it again
--
-- Replies nothing when it is written, and the record that stands there when it is another than was expected.

local held = redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
if held ~= ARGV[1] then
  return held
end
if held ~= ARGV[2] then
  if held ~= '' then
    redis.call('ZREM', KEYS[1], held)
  end
  redis.call('ZADD', KEYS[1], 0, ARGV[2])
end
redis.call('PEXPIREAT', KEYS[1], string.format('%d', (tonumber(redis.call('TIME')[1]) + tonumber(ARGV[3])) * 1000))
return false
