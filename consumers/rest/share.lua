-- Puts quotes that REST brought where every strategy finds them, unless a newer one stands there.
--
-- KEYS[1]  {namespace}:rest   hash: field = symbol, value = the quote as JSON
-- ARGV[1]  fields             how many symbols the hash may have
-- ARGV[2]  per quote four: symbol; venue time, ns; us since it was confirmed; its JSON up to and with `"r":`
--
-- Newer is what has the later venue time; of equal ones, what was confirmed later, by this server's clock. A double
-- holds no nanoseconds since the epoch, so venue times are compared as text. Replies {now in us, stored, refused}:
-- refused are those for which there was no room.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, most = KEYS[1], tonumber(ARGV[1])
local stored, refused = 0, 0

local function us(ns)
  return tonumber(string.sub(ns, 1, -4)) or 0
end

for i = 2, #ARGV, 4 do
  local symbol, venue, age, prefix = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local delay = now - age - us(venue)
  local there = redis.call('HGET', key, symbol)
  local held = there and string.match(there, '"t"%s*:%s*(%d+)')
  local is_newer = true
  -- A value of the distant future is somebody's mistake; it would stand for ever.
  if held and us(held) < now + 60000000 then
    if held == venue then
      is_newer = delay > (tonumber(string.match(there, '"r"%s*:%s*(%-?%d+)') or '') or -math.huge)
    elseif #held ~= #venue then
      is_newer = #venue > #held
    else
      is_newer = venue > held
    end
  end
  if is_newer then
    if there or redis.call('HLEN', key) < most then
      redis.call('HSET', key, symbol, prefix .. string.format('%d', delay) .. '}')
      stored = stored + 1
    else
      refused = refused + 1
    end
  end
end
return {now, stored, refused}
