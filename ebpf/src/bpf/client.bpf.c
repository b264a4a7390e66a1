// SPDX-License-Identifier: MIT
/*
 * The load generator's side: UDP to one of two ports, at one of its addresses or any, goes to the
 * AF_XDP socket of its queue, all else to the kernel.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "parse.h"
#include "sockets.h"

struct capture {
	/* In network byte order, 0 where unused. */
	__be16 ports[2];
	/* 1: whatever the destination address. */
	__u32 any_address;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture);
} captures SEC(".maps");

SEC("xdp")
int gemel_client(struct xdp_md *ctx)
{
	struct packet packet;
	enum counter found = parse(ctx, &packet);
	__u32 zero = 0;
	struct capture *capture = bpf_map_lookup_elem(&captures, &zero);
	__be16 port;

	if (found != REDIRECTED)
		return count(found, XDP_PASS);
	port = packet.udp->dest;
	if (!capture || !port || (port != capture->ports[0] && port != capture->ports[1]))
		return count(PASSED_NOT_OURS, XDP_PASS);
	if (!capture->any_address && !is_own_address(&packet.ipv6->daddr))
		return count(PASSED_NOT_OURS, XDP_PASS);
	return redirect(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
