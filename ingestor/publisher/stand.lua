-- Tells what stands at places of streams and behind them, at one moment.
--
-- KEYS     the streams, one for each place
-- ARGV     for each place: its id, and the one after it
--
-- Replies for each place the last entry up to it, and the first from the one after it on: each a list of one entry, or
-- empty where there is none, no stream, or a key of another type.

local function look(...)
  local entries = redis.pcall(...)
  if entries.err and string.find(entries.err, 'WRONGTYPE', 1, true) then
    return {}
  end
  return entries
end

local sights = {}
for i = 1, #KEYS do
  local before = look('XREVRANGE', KEYS[i], ARGV[2 * i - 1], '-', 'COUNT', 1)
  local behind = look('XRANGE', KEYS[i], ARGV[2 * i], '+', 'COUNT', 1)
  if before.err or behind.err then
    -- A stream that may not be looked at is not one in which nothing stands.
    return {err = before.err or behind.err}
  end
  sights[2 * i - 1], sights[2 * i] = before, behind
end
return sights
