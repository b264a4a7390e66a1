// SPDX-License-Identifier: MIT
/*
 * The server's side: DHCPv6 for us goes to the AF_XDP socket of its queue, all else to the kernel.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flood.h"
#include "parse.h"
#include "sockets.h"

/* RFC 8415 section 7.2. */
#define SERVER_PORT 547

/* All_DHCP_Relay_Agents_and_Servers, ff02::1:2, and All_DHCP_Servers, ff05::1:3 (RFC 8415
 * section 7.1).
 */
static __always_inline int is_dhcp_multicast(const struct in6_addr *address)
{
	const __be32 *words = address->s6_addr32;

	if (words[1] | words[2])
		return 0;
	return (words[0] == bpf_htonl(0xff020000) && words[3] == bpf_htonl(0x00010002)) ||
	       (words[0] == bpf_htonl(0xff050000) && words[3] == bpf_htonl(0x00010003));
}

SEC("xdp")
int gemel_server(struct xdp_md *ctx)
{
	struct packet packet;
	enum counter found = parse(ctx, &packet);

	if (found != REDIRECTED)
		return count(found, XDP_PASS);
	if (packet.udp->dest != bpf_htons(SERVER_PORT))
		return count(PASSED_NOT_OURS, XDP_PASS);
	if (!is_dhcp_multicast(&packet.ipv6->daddr) && !is_own_address(&packet.ipv6->daddr))
		return count(PASSED_NOT_OURS, XDP_PASS);
	if (exceeds_flood_limit(&packet))
		return count(DROPPED_FLOOD, XDP_DROP);
	return redirect(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
