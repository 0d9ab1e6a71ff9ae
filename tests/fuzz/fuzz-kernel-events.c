// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Answers to the message "events": what is accepted is sane, and following it tells no more than
 * is in it. The first byte is the number that was asked since, the second what was seen.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "logic/kernel-events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, struct tm_kernel_ring *ring, unsigned int seen)
{
	const uint64_t since = ring->since;
	struct tm_kernel_events e;
	struct tm_kernel_news news;
	size_t modes = 0;

	if (tm_kernel_events_parse(text, since, &e) < 0)
		return;
	assert(e.n <= TM_KERNEL_EVENTS_MAX);
	assert(e.anew == (e.newest < since));
	assert((e.n == 0) == (e.newest <= since));
	assert(!e.n || e.list[e.n - 1].number == e.newest);
	assert(!e.n || e.lost == (e.list[0].number != since + 1));
	for (size_t i = 0; i < e.n; i++) {
		assert(e.list[i].number > since);
		assert(!i || e.list[i].number == e.list[i - 1].number + 1);
		modes += e.list[i].cause == TM_CAUSE_MODE;
	}
	tm_kernel_ring_follow(ring, &e, seen, &news);
	assert(ring->since == (e.anew ? 0 : e.newest));
	assert(news.n_spells <= modes);
	for (size_t i = 0; i < news.n_spells; i++) {
		assert(news.spells[i].mode != TM_MODE_WRITE && news.spells[i].mode <= TM_MODE_FAIL);
		assert(news.spells[i].before != news.spells[i].mode);
		assert(news.spells[i].began_ns >= ring->floor_ns && news.spells[i].began_ns);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tm_kernel_ring ring = { .floor_ns = 100 };
	char *text;

	if (size < 2)
		return 0;
	/* Exactly as large as the text, so that reading past it is seen. */
	text = malloc(size - 1);
	if (!text)
		return 0;
	memcpy(text, data + 2, size - 2);
	text[size - 2] = '\0';
	ring.since = data[0] - '0' < 10U ? (uint64_t)(data[0] - '0') : data[0];
	check(text, &ring, data[1]);
	check(text, &ring, data[1]);
	free(text);
	return 0;
}
