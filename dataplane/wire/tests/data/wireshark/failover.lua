-- Wireshark dissector for DHCPv6 failover (RFC 8156) on TCP port 647: framing, message header and
-- sent-time here; the options are handed to Wireshark's own dhcpv6 dissector, so they are judged
-- by code that this project did not write. Sub-options of option 116 are not descended into (Wireshark 4.0).
-- Use: tshark -X lua_script:failover.lua -r capture.pcap -T json
local p = Proto("dhcp6fo","DHCPv6 Failover (RFC 8156)")
local names={[24]="BNDUPD",[25]="BNDREPLY",[26]="POOLREQ",[27]="POOLRESP",[28]="UPDREQ",[29]="UPDREQALL",[30]="UPDDONE",[31]="CONNECT",[32]="CONNECTREPLY",[33]="DISCONNECT",[34]="STATE",[35]="CONTACT"}
local f_len=ProtoField.uint16("dhcp6fo.len","message-size")
local f_t=ProtoField.uint8("dhcp6fo.type","msg-type",base.DEC,names)
local f_x=ProtoField.uint24("dhcp6fo.xid","transaction-id",base.HEX)
local f_s=ProtoField.uint32("dhcp6fo.sent_time","sent-time")
p.fields={f_len,f_t,f_x,f_s}
local d6=Dissector.get("dhcpv6")
local function one(tvb,pinfo,tree)
  local t=tree:add(p,tvb())
  t:add(f_len,tvb(0,2)); t:add(f_t,tvb(2,1)); t:add(f_x,tvb(3,3)); t:add(f_s,tvb(6,4))
  local b=ByteArray.new()
  b:append(tvb(2,4):bytes()); if tvb:len()>10 then b:append(tvb(10):bytes()) end
  d6:call(b:tvb("options"),pinfo,t)
  pinfo.cols.protocol="DHCPv6-FO"; pinfo.cols.info=names[tvb(2,1):uint()] or "?"
  return tvb:len()
end
function p.dissector(tvb,pinfo,tree)
  dissect_tcp_pdus(tvb,tree,2,function(t,_,offset) return t(offset,2):uint()+2 end,one)
  return tvb:len()
end
DissectorTable.get("tcp.port"):add(647,p)
