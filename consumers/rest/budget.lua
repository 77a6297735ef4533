-- The calls that an account has made to Alpaca's REST service lately, counted for all strategies at once.
--
-- KEYS[1]  {namespace}:rest:calls:{account}   sorted set: one member per call, score = unix us at which it had
--          ended, or will have at the latest; and the member `stop`, score = unix us before which nobody calls
-- ARGV[1]  what       'take', 'settle' or 'stop'
-- ARGV[2]  window     us
-- ARGV[3]  call       its name, drawn anew for each; unused for 'stop'
-- ARGV[4]  how long   us: the longest that the call lasts ('take'), or the stop ('stop')
-- ARGV[5]  limit      calls per window ('take')
--
-- Replies the us until the call may be allowed at the earliest; 0: it is, and counts from now. Asking again with the
-- same name takes no second place. Only the server's clock counts.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, what, window, call = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]

local function keep()
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', key, string.format('%d', math.ceil((tonumber(last[2]) + window) / 1000)))
  end
end

if what == 'settle' then
  redis.call('ZADD', key, 'XX', string.format('%d', now), call)
  return 0
end

local stop = tonumber(redis.call('ZSCORE', key, 'stop') or 0)
if what == 'stop' then
  local till = now + tonumber(ARGV[4])
  if till > stop then
    redis.call('ZADD', key, string.format('%d', till), 'stop')
    keep()
  end
  return 0
end

if redis.call('ZSCORE', key, call) then
  return 0
end
if stop > now then
  return stop - now
end
redis.call('ZREM', key, 'stop')
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%d', now - window))
local used, limit = redis.call('ZCARD', key), tonumber(ARGV[5])
if used < limit then
  redis.call('ZADD', key, string.format('%d', now + tonumber(ARGV[4])), call)
  keep()
  return 0
end
local first = redis.call('ZRANGE', key, used - limit, used - limit, 'WITHSCORES')
return math.max(1, math.min(tonumber(first[2]), now) + window - now)
