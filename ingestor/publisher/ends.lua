-- Tells where streams end, for a writer whose server has forgotten something.
--
-- KEYS     the streams
--
-- Replies one last id per stream, in order: empty where there is no stream, or a key of another type.

local ends = {}
for i = 1, #KEYS do
  local info = redis.pcall('XINFO', 'STREAM', KEYS[i])
  if info.err and not (string.find(info.err, 'no such key', 1, true) or string.find(info.err, 'WRONGTYPE', 1, true)) then
    -- A stream that may not be looked at is not one that is gone.
    return {err = info.err}
  end
  ends[i] = ''
  for j = 1, #info, 2 do
    if info[j] == 'last-generated-id' then
      ends[i] = info[j + 1]
    end
  end
end
return ends
