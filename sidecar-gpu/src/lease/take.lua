-- Takes a lease, or prolongs the one that the holder has.
--
-- KEYS: lease; ARGV: holder, life in ms
-- Returns {'taken', token} | {'busy'} | {'open'}
--
-- A value is HOLDER:TOKEN, or 'open'. Tokens are this server's microseconds: they rise with each
-- lease as long as its clock does, a restart without its data included, and are exact in a double.
local there = redis.call('GET', KEYS[1])
if there == 'open' then return { 'open' } end
if there then
  local holder, token = string.match(there, '^(%x+):(%d+)$')
  if holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return { 'taken', token }
  end
  if holder then return { 'busy' } end
end
local now = redis.call('TIME')
local token = string.format('%.0f', now[1] * 1000000 + now[2])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
return { 'taken', token }
