-- Puts quotes that REST brought where every strategy finds them, unless a newer one stands there.
--
-- KEYS[1]  {namespace}:rest   hash: field = symbol, value = the quote as JSON
-- ARGV[1]  fields             how many symbols the hash may have
-- ARGV[2]  per quote four: symbol; venue time, ns; us since it was confirmed; its JSON up to and with `"r":`
--
-- Newer is what has the later venue time; of equal ones, what was confirmed later, by this server's clock. A double
-- holds no nanoseconds since the epoch, so venue times are compared as text. One that lies further ahead of its
-- confirmation than an entry id may is no time to go by: it never replaces one that is, and among its like the later
-- confirmation counts. Replies {now in us, stored, refused}: refused are those for which there was no room.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, most = KEYS[1], tonumber(ARGV[1])
local stored, refused = 0, 0
local MAX_AHEAD = 5000000

local function us(ns)
  return tonumber(string.sub(ns, 1, -4)) or 0
end

for i = 2, #ARGV, 4 do
  local symbol, venue, age, prefix = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local delay = now - age - us(venue)
  local there = redis.call('HGET', key, symbol)
  local held = there and string.match(there, '"t"%s*:%s*(%d+)')
  local is_newer = true
  if held then
    local confirmed = tonumber(string.match(there, '"r"%s*:%s*(%-?%d+)') or '')
    local held_delay = confirmed or -math.huge
    local is_ahead = delay < -MAX_AHEAD
    -- Also when nobody knows when it was confirmed, a value of the distant future is somebody's mistake.
    local held_is_ahead = (confirmed ~= nil and confirmed < -MAX_AHEAD) or us(held) >= now + 60000000
    if is_ahead ~= held_is_ahead then
      is_newer = held_is_ahead
    elseif is_ahead then
      is_newer = us(venue) + delay > us(held) + held_delay
    elseif held == venue then
      is_newer = delay > held_delay
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
