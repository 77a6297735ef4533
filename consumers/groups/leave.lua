-- Takes a worker's name off a group, or releases what is pending under it. In one step: whatever Redis gives to this
-- name behind it makes the name anew, and is pending under it.
--
-- KEYS[1]  {namespace}:stream:<symbol>
-- ARGV[1]  group
-- ARGV[2]  consumer
-- ARGV[3]  most      entries that are released
-- ARGV[4]  idle      milliseconds for which they are to count as idle
--
-- Replies with how many were released, 0 when the name was taken off, and nothing where there is no such group.

local found = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], ARGV[2])
if found.err then
  return false
end
if #found == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  return 0
end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
for _, entry in ipairs(found) do
  claim[#claim + 1] = entry[1]
end
for _, word in ipairs({'IDLE', ARGV[4], 'JUSTID'}) do
  claim[#claim + 1] = word
end
redis.call(unpack(claim))
return #found
