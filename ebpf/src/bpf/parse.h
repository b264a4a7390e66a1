/* SPDX-License-Identifier: MIT */
/*
 * From the first byte of a frame to its UDP header: Ethernet, up to two VLAN tags, IPv6, UDP.
 * Nothing behind the UDP header is looked at, and whatever is odd is left to the kernel.
 */
#ifndef GEMEL_PARSE_H
#define GEMEL_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"

#define VLAN_TAGS_MAX 2

/* Next header values (IANA protocol numbers) that stand for an extension header. */
#define NEXTHDR_HOP_BY_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTHENTICATION 51
#define NEXTHDR_DESTINATION 60
#define NEXTHDR_MOBILITY 135
#define NEXTHDR_HIP 139
#define NEXTHDR_SHIM6 140

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

struct packet {
	struct ethhdr *eth;
	struct ipv6hdr *ipv6;
	struct udphdr *udp;
	/* VLAN ids, outer first, 0 where there is no tag. */
	__u16 vlan_ids[VLAN_TAGS_MAX];
};

static __always_inline int is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline int is_extension_header(__u8 next_header)
{
	switch (next_header) {
	case NEXTHDR_HOP_BY_HOP:
	case NEXTHDR_ROUTING:
	case NEXTHDR_FRAGMENT:
	case NEXTHDR_AUTHENTICATION:
	case NEXTHDR_DESTINATION:
	case NEXTHDR_MOBILITY:
	case NEXTHDR_HIP:
	case NEXTHDR_SHIM6:
		return 1;
	default:
		return 0;
	}
}

/*
 * Finds the headers of a UDP packet over IPv6. Returns REDIRECTED when it has them all, else the
 * reason for leaving the packet to the kernel.
 */
static __always_inline enum counter parse(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 protocol;

	if (next > end)
		return PASSED_MALFORMED;
	packet->eth = eth;
	protocol = eth->h_proto;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag *tag = next;

		packet->vlan_ids[i] = 0;
		if (!is_vlan(protocol))
			continue;
		if ((void *)(tag + 1) > end)
			return PASSED_MALFORMED;
		packet->vlan_ids[i] = bpf_ntohs(tag->tci) & 0x0fff;
		protocol = tag->protocol;
		next = tag + 1;
	}
	if (protocol != bpf_htons(ETH_P_IPV6))
		return PASSED_NOT_IPV6;

	packet->ipv6 = next;
	if ((void *)(packet->ipv6 + 1) > end || packet->ipv6->version != 6)
		return PASSED_MALFORMED;
	if (is_extension_header(packet->ipv6->nexthdr))
		return PASSED_EXT_HEADER;
	if (packet->ipv6->nexthdr != IPPROTO_UDP)
		return PASSED_NOT_OURS;

	packet->udp = (void *)(packet->ipv6 + 1);
	if ((void *)(packet->udp + 1) > end)
		return PASSED_MALFORMED;
	return REDIRECTED;
}

#endif
