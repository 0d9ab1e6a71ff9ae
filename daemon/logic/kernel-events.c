// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/kernel-events.h"

#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"

/* ---- the text ------------------------------------------------------------------------------- */

static bool take_char(const char **at, char c)
{
	if (**at != c)
		return false;
	(*at)++;
	return true;
}

/* Printable and without a space; not empty. */
static bool take_word(const char **at, const char **ret, size_t *ret_len)
{
	const char *start = *at;

	while (**at > ' ' && **at <= '~')
		(*at)++;
	*ret = start;
	*ret_len = (size_t)(*at - start);
	return *ret_len > 0;
}

static bool is(const char *word, size_t len, const char *text)
{
	return strlen(text) == len && memcmp(word, text, len) == 0;
}

static enum tm_kernel_cause cause_of(const char *word, size_t len)
{
	static const char *const names[] = {
		[TM_CAUSE_DATA_LOW] = "data_low",
		[TM_CAUSE_METADATA_LOW] = "metadata_low",
		[TM_CAUSE_MODE] = "mode",
		[TM_CAUSE_NEEDS_CHECK] = "needs_check",
		[TM_CAUSE_NO_SPACE_TIMEOUT] = "no_space_timeout",
		[TM_CAUSE_DATA_GROWN] = "data_grown",
		[TM_CAUSE_METADATA_GROWN] = "metadata_grown",
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++)
		if (is(word, len, names[i]))
			return (enum tm_kernel_cause)i;
	return TM_CAUSE_OTHER;
}

static bool mode_of(const char *word, size_t len, enum tm_pool_mode *ret)
{
	if (is(word, len, "rw"))
		*ret = TM_MODE_WRITE;
	else if (is(word, len, "out_of_data_space"))
		*ret = TM_MODE_OUT_OF_DATA_SPACE;
	else if (is(word, len, "ro"))
		*ret = TM_MODE_READ_ONLY;
	else if (is(word, len, "Fail"))
		*ret = TM_MODE_FAIL;
	else
		return false;
	return true;
}

/* One line, without its end. */
static bool take_event(const char **at, struct tm_kernel_event *ret)
{
	struct tm_kernel_event e = { 0 };
	const char *word;
	size_t len;

	if (!tm_take_number(at, &e.number) || !take_char(at, ' ') ||
	    !tm_take_number(at, &e.time_ns) || !take_char(at, ' ') || !take_word(at, &word, &len) ||
	    !take_char(at, ' '))
		return false;
	e.cause = cause_of(word, len);
	if (e.cause == TM_CAUSE_MODE) {
		if (!take_word(at, &word, &len))
			return false;
		if (!mode_of(word, len, &e.mode))
			e.cause = TM_CAUSE_OTHER;
	} else if (e.cause != TM_CAUSE_OTHER) {
		if (!tm_take_number(at, &e.value))
			return false;
	} else { /* whatever it has to say */
		while (**at >= ' ' && **at <= '~')
			(*at)++;
	}
	*ret = e;
	return true;
}

int tm_kernel_events_parse(const char *text, uint64_t since, struct tm_kernel_events *ret)
{
	struct tm_kernel_events e = { 0 };
	struct tm_kernel_event one;
	uint64_t last = since, count = 0;
	const char *at = text;

	if (!tm_take_number(&at, &e.newest))
		return -EINVAL;
	e.anew = e.newest < since;
	while (take_char(&at, '\n')) {
		/* After the first, which tells how many were lost, none is left out. */
		if (!take_event(&at, &one) || one.number <= last ||
		    (count && one.number != last + 1))
			return -EINVAL;
		if (!count && one.number != last + 1)
			e.lost = true;
		last = one.number;
		count++;
		e.list[(count - 1) % TM_KERNEL_EVENTS_MAX] = one;
	}
	if (*at || (e.newest > since ? last != e.newest : count != 0))
		return -EINVAL;
	e.n = count < TM_KERNEL_EVENTS_MAX ? (size_t)count : TM_KERNEL_EVENTS_MAX;
	if (count > TM_KERNEL_EVENTS_MAX) {
		const struct tm_kernel_events round = e;

		for (size_t i = 0; i < e.n; i++)
			e.list[i] = round.list[(count + i) % TM_KERNEL_EVENTS_MAX];
		e.lost = true;
	}
	*ret = e;
	return 0;
}

/* ---- what it says --------------------------------------------------------------------------- */

/* Nothing is known of how it came to be what it is. */
static void forget(struct tm_kernel_ring *ring)
{
	ring->mode_known = false;
	ring->began_ns = 0;
	ring->data_low_ns = ring->metadata_low_ns = 0;
}

static void change_mode(struct tm_kernel_ring *ring, enum tm_pool_mode mode, uint64_t time_ns,
			bool tell, struct tm_kernel_news *ret)
{
	if (ring->mode_known && ring->mode == mode)
		return;
	if (ring->mode_known && ring->mode != TM_MODE_WRITE && ring->began_ns && !ring->told)
		ret->spells[ret->n_spells++] = (struct tm_kernel_spell){
			.before = ring->before,
			.mode = ring->mode,
			.after = mode,
			.began_ns = ring->began_ns,
			.ended_ns = time_ns,
			.timed_out = ring->timed_out,
		};
	ring->before = ring->mode_known ? ring->mode : TM_MODE_WRITE;
	ring->mode = mode;
	ring->mode_known = true;
	ring->began_ns = tell ? time_ns : 0;
	ring->told = ring->timed_out = false;
}

static struct tm_kernel_growth grown(uint64_t blocks, uint64_t *low_ns, uint64_t time_ns)
{
	struct tm_kernel_growth g = { .blocks = blocks };

	/* A clock that was set back says nothing. */
	if (*low_ns && time_ns > *low_ns)
		g.low_usec = (time_ns - *low_ns) / 1000;
	*low_ns = 0;
	return g;
}

static void leave_out_seen(struct tm_kernel_ring *ring, enum tm_pool_mode mode,
			   struct tm_kernel_news *ret)
{
	size_t i;

	if (ring->mode_known && ring->mode == mode) {
		ring->told = true;
		return;
	}
	for (i = ret->n_spells; i > 0; i--)
		if (ret->spells[i - 1].mode == mode)
			break;
	if (!i)
		return;
	memmove(&ret->spells[i - 1], &ret->spells[i], (ret->n_spells - i) * sizeof(ret->spells[0]));
	ret->n_spells--;
}

void tm_kernel_ring_follow(struct tm_kernel_ring *ring, const struct tm_kernel_events *events,
			   unsigned int seen, struct tm_kernel_news *ret)
{
	*ret = (struct tm_kernel_news){ 0 };
	if (events->anew || events->lost)
		forget(ring);
	/* Of another life only the newest number was told: all of it with the next answer. */
	ring->since = events->anew ? 0 : events->newest;
	for (size_t i = 0; i < events->n; i++) {
		const struct tm_kernel_event *e = &events->list[i];
		const bool tell = e->time_ns >= ring->floor_ns;

		switch (e->cause) {
		case TM_CAUSE_MODE:
			change_mode(ring, e->mode, e->time_ns, tell, ret);
			break;
		case TM_CAUSE_NO_SPACE_TIMEOUT:
			ring->timed_out = true;
			break;
		case TM_CAUSE_DATA_LOW:
			ring->data_low_ns = tell ? e->time_ns : 0;
			break;
		case TM_CAUSE_METADATA_LOW:
			ring->metadata_low_ns = tell ? e->time_ns : 0;
			break;
		case TM_CAUSE_DATA_GROWN:
			ret->data = grown(e->value, &ring->data_low_ns, e->time_ns);
			break;
		case TM_CAUSE_METADATA_GROWN:
			ret->metadata = grown(e->value, &ring->metadata_low_ns, e->time_ns);
			break;
		case TM_CAUSE_NEEDS_CHECK:
		case TM_CAUSE_OTHER:
			break;
		}
	}
	for (unsigned int mode = TM_MODE_WRITE + 1; mode <= TM_MODE_FAIL; mode++)
		if (seen & 1U << mode)
			leave_out_seen(ring, (enum tm_pool_mode)mode, ret);
}
