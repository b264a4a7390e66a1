/* SPDX-License-Identifier: MIT */
/*
 * One counter for each end that a packet can come to, per CPU.
 * src/counters.rs reads them by the same numbers.
 */
#ifndef GEMEL_COUNTERS_H
#define GEMEL_COUNTERS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum counter {
	REDIRECTED,
	PASSED_NOT_IPV6,
	PASSED_NOT_OURS,
	PASSED_EXT_HEADER,
	PASSED_NO_SOCKET,
	PASSED_MALFORMED,
	DROPPED_FLOOD,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline int count(enum counter counter, int verdict)
{
	__u32 key = counter;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1;
	return verdict;
}

#endif
