-- Sends requests that were signed beforehand, each once (or round and round), and counts wrong answers.
--   wrk -s requests.lua URL -- HEADS BODY|- repeat|once THREADS STATUS [CHECKED-BODY ETAG]
-- HEADS holds request heads one behind the other; all are sent with the same BODY.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } moment; int gettimeofday(moment *, void *);")
local moment = ffi.new("moment")
local threads = {}

local function now() -- microseconds
   ffi.C.gettimeofday(moment, nil)
   return tonumber(moment.s) * 1e6 + tonumber(moment.us)
end

function setup(thread)
   thread:set("number", #threads)
   table.insert(threads, thread)
end

local function read(path)
   local file = assert(io.open(path, "rb"))
   local all = file:read("*a")
   file:close()
   return all
end

function init(args)
   local all, of = read(args[1]), tonumber(args[4])
   body = args[2] ~= "-" and read(args[2]) or ""
   again = args[3] == "repeat"
   status = tonumber(args[5])
   heads, at, wrong, first_wrong, began, ended = {}, 1, 0, "", 0, 0
   local start, index = 1, 0
   while true do
      local _, stop = string.find(all, "\r\n\r\n", start, true)
      if not stop then break end
      if index % of == number then heads[#heads + 1] = string.sub(all, start, stop) end
      index, start = index + 1, stop + 1
   end
   if args[6] then -- look at every answer: dear, so not in timed rounds
      local expected, etag = read(args[6]), args[7]
      response = function(code, headers, got)
         if code ~= status or got ~= expected or headers["ETag"] ~= etag then
            wrong = wrong + 1
            first_wrong = code .. " " .. tostring(headers["ETag"]) .. " " .. #got .. " bytes " .. string.sub(got, 1, 300)
         end
      end
   elseif status ~= 200 then -- wrk itself counts what is above 399
      response = function(code)
         if code ~= status then wrong = wrong + 1 end
      end
   end
end

function request()
   if not asked and number == 0 then -- wrk looks at one request before it begins, and does not send it
      asked = true
      return heads[1] .. body
   end
   if began == 0 then began = now() end
   local head = heads[at]
   at = at + 1
   if at > #heads then
      at = again and 1 or #heads
      if not again and ended == 0 then -- wrk sleeps on to the end of its time: this is when the work was done
         ended = now()
         wrk.thread:stop()
      end
   end
   if body == "" then return head end
   return head .. body
end

function done(summary, latency, requests)
   local wrong, text, duration = 0, "", summary.duration
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
      if thread:get("ended") > 0 then duration = thread:get("ended") - thread:get("began") end
      local first = thread:get("first_wrong")
      if first and first ~= "" then text = first end
   end
   local e = summary.errors
   io.write(string.format("RESULT %d %d %d %d %d %d %d %d\n", summary.requests, duration, summary.bytes,
      e.status + wrong, e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99), latency.max))
   if text ~= "" then io.write("WRONG " .. text .. "\n") end
end
