-- Takes a lease, or prolongs the one that the holder has.
--
-- KEYS: lease; ARGV: holder, life in ms, 1 where it has a stale answer
-- Returns {'taken', token} | {'busy'} | {'open'}
--
-- A value is HOLDER:TOKEN[:FAILURES], 'open', or 'rest:FAILURES:UNTIL'. Times and tokens are this
-- server's microseconds: tokens rise with each lease as long as its clock does, a restart without its
-- data included, and are exact in a double. FAILURES counts refreshes in a row that failed.
local there = redis.call('GET', KEYS[1])
if there == 'open' then return { 'open' } end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local failed = ''
if there then
  local holder, token = string.match(there, '^(%x+):(%d+)')
  if holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return { 'taken', token }
  end
  if holder then return { 'busy' } end
  local failures, rests = string.match(there, '^rest:(%d+):(%d+)$')
  if failures then
    if ARGV[3] == '1' and now < tonumber(rests) then return { 'busy' } end
    failed = ':' .. failures
  end
end
local token = string.format('%.0f', now)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token .. failed, 'PX', ARGV[2])
return { 'taken', token }
