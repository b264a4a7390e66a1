/* SPDX-License-Identifier: MIT */
/* Our addresses, and the AF_XDP sockets by RX queue. */
#ifndef GEMEL_SOCKETS_H
#define GEMEL_SOCKETS_H

#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"

#define QUEUES_MAX 256
#define OWN_ADDRESSES_MAX 1024

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* The key is the address, the value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OWN_ADDRESSES_MAX);
	__type(key, struct in6_addr);
	__type(value, __u8);
} own_addresses SEC(".maps");

static __always_inline int is_own_address(const struct in6_addr *address)
{
	/* A map key has to lie on the stack. */
	struct in6_addr key = *address;

	return bpf_map_lookup_elem(&own_addresses, &key) != NULL;
}

static __always_inline int redirect(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	/* The flag below would pass the packet too, but uncounted. */
	if (!bpf_map_lookup_elem(&sockets, &queue))
		return count(PASSED_NO_SOCKET, XDP_PASS);
	return count(REDIRECTED, bpf_redirect_map(&sockets, queue, XDP_PASS));
}

#endif
