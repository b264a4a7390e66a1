/* SPDX-License-Identifier: MIT */
/*
 * A token bucket for each source, off unless configured.
 *
 * What a source is depends on the way that the packet came. A client on the link writes from a
 * link-local address, of which a host can make as many as it likes; its MAC address and VLAN tags
 * are what a switch holds it to, so they are the key. A routed packet (from a relay, or a client
 * that unicasts) carries the MAC address of the last router, common to all; there the key is the
 * IPv6 address. The two have limits of their own, since a relay speaks for thousands of clients.
 *
 * The bucket is kept as one number, the time at which it will be full again (the "theoretical
 * arrival time" of the generic cell rate algorithm, ITU-T I.371). Each packet moves it one
 * interval ahead, and a packet that finds it further ahead than the burst allows is one too many.
 * Two CPUs that update it at once may let one packet more through; that costs less than a lock.
 */
#ifndef GEMEL_FLOOD_H
#define GEMEL_FLOOD_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"

#define SOURCES_MAX 65536

enum source_kind {
	DIRECT,
	ROUTED,
	SOURCE_KINDS,
};

struct flood_limit {
	/* Nanoseconds between packets at the permitted rate; 0 is no limit. */
	__u64 interval;
	/* How far ahead the bucket may be before the next packet: (burst - 1) * interval. */
	__u64 tolerance;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOURCE_KINDS);
	__type(key, __u32);
	__type(value, struct flood_limit);
} flood_limits SEC(".maps");

/* 16 bytes: an IPv6 address, or what identifies a client on the link in the shape of one. */
union source {
	struct in6_addr address;
	struct {
		/* fe80 as in the addresses that it stands for, so that no routed address is equal. */
		__u8 prefix[2];
		__u8 mac[ETH_ALEN];
		__u16 vlan_ids[VLAN_TAGS_MAX];
		__u32 zero;
	} link;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SOURCES_MAX);
	__type(key, union source);
	__type(value, __u64);
} flood_sources SEC(".maps");

/* fe80::/10, and the unspecified address, which is nobody's. */
static __always_inline int is_on_link(const struct in6_addr *address)
{
	const __be32 *words = address->s6_addr32;

	if ((words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000))
		return 1;
	return !(words[0] | words[1] | words[2] | words[3]);
}

static __always_inline int exceeds_flood_limit(const struct packet *packet)
{
	const struct in6_addr *address = &packet->ipv6->saddr;
	__u32 kind = is_on_link(address) ? DIRECT : ROUTED;
	struct flood_limit *limit = bpf_map_lookup_elem(&flood_limits, &kind);
	union source source = {};
	__u64 now, full_at, *stored;

	if (!limit || !limit->interval)
		return 0;
	if (kind == DIRECT) {
		source.link.prefix[0] = 0xfe;
		source.link.prefix[1] = 0x80;
		__builtin_memcpy(source.link.mac, packet->eth->h_source, ETH_ALEN);
		source.link.vlan_ids[0] = packet->vlan_ids[0];
		source.link.vlan_ids[1] = packet->vlan_ids[1];
	} else {
		source.address = *address;
	}

	now = bpf_ktime_get_ns();
	stored = bpf_map_lookup_elem(&flood_sources, &source);
	full_at = stored ? *(volatile __u64 *)stored : now;
	if (full_at < now)
		full_at = now;
	/* The limit may have been lowered since: what is owed is never more than the burst. */
	if (full_at - now > limit->tolerance) {
		if (full_at - now > limit->tolerance + limit->interval && stored)
			*(volatile __u64 *)stored = now + limit->tolerance + limit->interval;
		return 1;
	}
	full_at += limit->interval;
	if (stored)
		*(volatile __u64 *)stored = full_at;
	else
		bpf_map_update_elem(&flood_sources, &source, &full_at, BPF_ANY);
	return 0;
}

#endif
