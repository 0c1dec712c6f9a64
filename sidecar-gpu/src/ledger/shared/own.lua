-- Says for each record whether this sidecar is the one to sum it.
--
-- A record that was claimed before it was booked is in one ledger only. One that was booked alone
-- (Redis could not be asked) may be in a second: the first sidecar to come here has it.
--
-- KEYS: per record: o (hash of the record's hour: id -> sidecar, of records booked alone),
--       m (marker of the id: 'd:SIDECAR' once that sidecar has settled it)
-- ARGV: sidecar, per record: id, alone (1/0), ttl of o in ms
-- Returns per record 1 (ours) or 0.
local me = ARGV[1]
local answer = {}
for i = 1, #KEYS / 2 do
  local o, m = KEYS[2 * i - 1], KEYS[2 * i]
  local id, alone, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local owner = redis.call('HGET', o, id)
  local ours = 1
  if owner then
    if owner ~= me then ours = 0 end
  elseif alone == '1' then
    local marker = redis.call('GET', m)
    if marker and string.sub(marker, 1, 2) == 'd:' and marker ~= 'd:' .. me then
      ours = 0
    else
      redis.call('HSET', o, id, me)
      -- A shorter life never replaces a longer one.
      if redis.call('PTTL', o) < tonumber(ttl) then redis.call('PEXPIRE', o, ttl) end
    end
  end
  answer[i] = ours
end
return answer
