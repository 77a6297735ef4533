-- Appends one batch: every entry to its stream, the newest accepted one of each symbol to the cache.
--
-- KEYS[1]  {namespace}:writer   hash: epoch, token = who holds it, batch = the last batch applied
-- KEYS[2]  {namespace}:latest   hash: symbol -> newest quote
-- KEYS[3…] the streams, in the order of the rows
-- ARGV[1]  epoch      the writer's epoch
-- ARGV[2]  batch      this batch's number; it applies only after batch - 1
-- ARGV[3]  maxlen     approximate bound of each stream, 0 for none
-- ARGV[4]  token      the writer's own, so that two who claimed the same epoch are told apart
-- ARGV[5]  rows       msgpack: per stream {symbol, cache value or false, id, payload, id, payload, …}
--
-- Replies {status, …}:
--   {'applied', accepted, cache_errors, row, entry, why, last_id, …}  one quadruple per remarkable entry, from 1:
--       created    (entry 0) the stream was not there and has been begun
--       present    refused: the stream has this very entry
--       trimmed    refused: the stream had entries older than all that it holds now, and this may have been one
--       too_small  refused: the stream's last id is not below it, and it is not there
--       wrong_type, exhausted, or the server's own words: refused
--   {'seen', row, entry, why, last_id, …}
--       this batch was applied before, or the count was changed by somebody else; nothing was done. One quadruple, as above, per entry that is not in its
--       stream: its refusal may not have been heard. Batch 0 asks no more than whether the position stands
--   {'behind', last}    batch does not follow the last one applied; nothing was done
--   {'fenced', epoch}   a newer writer has taken over; nothing was done
-- An error reply means that nothing was done: memory, disk and replica checks all come before the first write of a
-- script; what is refused to this user, or at this time, is refused from the first entry on, and undoes the count.

-- What is no count, because somebody else has written it, counts as nothing.
local function count(text)
  local number = tonumber(text or 0)
  return number and number >= 0 and number < 2 ^ 53 and number or 0
end

local position = redis.call('HMGET', KEYS[1], 'epoch', 'batch', 'token')
local epoch, batch = tonumber(ARGV[1]), tonumber(ARGV[2])
local held_epoch, applied = count(position[1]), count(position[2])
if held_epoch > epoch or (held_epoch == epoch and position[3] ~= ARGV[4]) then
  return {'fenced', held_epoch}
end
if held_epoch < epoch then
  -- Emptied or older than our claim: only a new claim may say where the count stands.
  return {'behind', -1}
end
local function is_before(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms < b_ms or (a_ms == b_ms and tonumber(a_n) < tonumber(b_n))
end

-- Why an id was too small, and the last id of the stream; or nil, and why that cannot be told.
local function too_small(stream, id, payload)
  local entries = redis.pcall('XRANGE', stream, id, id)
  if entries.err then
    return nil, entries.err
  end
  local found = entries[1]
  if found and found[2][2] == payload then
    return 'present', ''
  end
  local reply, info = redis.pcall('XINFO', 'STREAM', stream), {}
  if reply.err then
    return nil, reply.err
  end
  for i = 1, #reply, 2 do
    info[reply[i]] = reply[i + 1]
  end
  local first = info['first-entry']
  local is_older = not first or is_before(id, first[1])
  -- Redis 6.2 does not say how many entries a stream has had.
  if not found and is_older and (info['entries-added'] or math.huge) > info['length'] then
    return 'trimmed', info['last-generated-id']
  end
  return 'too_small', info['last-generated-id']
end

-- What has become of the entries of a batch whose answer was not heard.
local function missing(rows)
  local reply = {'seen'}
  for r = 1, #rows do
    local stream = KEYS[r + 2]
    local trouble = redis.pcall('XINFO', 'STREAM', stream).err
    for i = 3, #rows[r] - 1, 2 do
      local n, why, last_id = #reply, 'too_small', ''
      if not trouble then
        why, last_id = too_small(stream, rows[r][i], rows[r][i + 1])
        if not why then
          return {err = last_id}
        end
      elseif string.find(trouble, 'WRONGTYPE', 1, true) then
        why = 'wrong_type'
      elseif not string.find(trouble, 'no such key', 1, true) then
        -- The stream was not seen, so nothing can be said of it.
        return {err = trouble}
      end
      if why ~= 'present' then
        reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = r, (i - 1) / 2, why, last_id
      end
    end
  end
  return reply
end

if batch <= applied then
  return missing(cmsgpack.unpack(ARGV[5]))
end
if batch ~= applied + 1 then
  return {'behind', applied}
end

-- The position moves first: when memory or disk forbids writes, this is the call that fails, with nothing done.
redis.call('HSET', KEYS[1], 'batch', ARGV[2])

local function reason(message)
  if string.find(message, 'equal or smaller', 1, true) then
    return 'too_small'
  elseif string.find(message, 'exhausted', 1, true) then
    return 'exhausted'
  elseif string.find(message, 'WRONGTYPE', 1, true) then
    return 'wrong_type'
  end
  return message
end

-- What tells of this user or of the whole server and not of a stream, as Redis 6.2, 7 and Valkey put it.
local OF_ALL = {
  'ACL failure', 'NOPERM', "can't run this command", "can't access at least one of the keys", 'no permissions to',
  'Unknown Redis command', 'unknown command', 'OOM ', 'MISCONF ', 'READONLY ', 'NOREPLICAS ', 'LOADING ', 'MASTERDOWN ',
}

local function is_of_all(message)
  for i = 1, #OF_ALL do
    if string.find(message, OF_ALL[i], 1, true) then
      return true
    end
  end
  return false
end

local pcall, byte = redis.pcall, string.byte
local rows, maxlen, bounded = cmsgpack.unpack(ARGV[5]), ARGV[3], ARGV[3] ~= '0'
local accepted, cache_errors, noted, cached = 0, 0, {}, {}

local function note(row, entry, why, last_id)
  local n = #noted
  noted[n + 1], noted[n + 2], noted[n + 3], noted[n + 4] = row, entry, why, last_id
end

local DISPLACED = {err = 'equal or smaller'}

for r = 1, #rows do
  local row, stream = rows[r], KEYS[r + 2]
  local last = #row - 1
  local newest_accepted, is_displaced = false, false
  for i = 3, last, 2 do
    local payload = row[i + 1]
    -- A quote is a JSON array, a gap marker a JSON object.
    local field = byte(payload) == 91 and 'q' or 'gap'
    local answer
    if is_displaced then
      -- Behind an entry that has to move, so that it does not come before it.
      answer = DISPLACED
    elseif i > 3 and (i < last or not bounded) then
      answer = pcall('XADD', stream, row[i], field, payload)
    elseif i > 3 then
      answer = pcall('XADD', stream, 'MAXLEN', '~', maxlen, row[i], field, payload)
    else
      -- The first entry of a row tells whether the stream is still there, at no cost.
      if bounded and i == last then
        answer = pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', maxlen, row[i], field, payload)
      else
        answer = pcall('XADD', stream, 'NOMKSTREAM', row[i], field, payload)
      end
      if answer == false then
        note(r, 0, 'created', '')
        answer = pcall('XADD', stream, row[i], field, payload)
      end
    end
    if type(answer) == 'table' then
      local why, last_id = reason(answer.err), ''
      local trouble = why
      if why == 'too_small' then
        why, last_id = too_small(stream, row[i], payload)
        if not why then
          -- It gets a new place; where nothing is stored yet, the batch waits until this can be told.
          why, last_id, trouble = 'too_small', '', last_id
        end
      end
      if accepted == 0 and is_of_all(trouble) then
        redis.call('HSET', KEYS[1], 'batch', position[2] or 0)
        return {err = trouble}
      end
      if why == 'too_small' then
        is_displaced = true
      end
      note(r, (i - 1) / 2, why, last_id)
    else
      accepted = accepted + 1
      newest_accepted = i == last
    end
  end
  if newest_accepted and row[2] then
    cached[#cached + 1] = row[1]
    cached[#cached + 1] = row[2]
  end
end

-- In pieces: Lua passes only some thousand arguments, and nothing may fail once entries are in.
for first = 1, #cached, 1000 do
  local last = math.min(first + 999, #cached)
  if type(pcall('HSET', KEYS[2], unpack(cached, first, last))) == 'table' then
    cache_errors = cache_errors + (last - first + 1) / 2
  end
end

local reply = {'applied', accepted, cache_errors}
for i = 1, #noted do
  reply[i + 3] = noted[i]
end
return reply
