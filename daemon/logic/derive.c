// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/derive.h"

#include "logic/meta-size.h"

static bool at_mark(uint64_t used, uint64_t total, uint64_t mark)
{
	return used >= total || total - used <= mark;
}

static uint64_t metadata_mark(const struct tm_thin_pool_status *s)
{
	return s->metadata_low_water_valid ? s->metadata_low_water
					   : tm_metadata_low_water_blocks(s->metadata_total);
}

static enum tm_pool_mode mode_of(const struct tm_thin_pool_status *s)
{
	return s->failed ? TM_MODE_FAIL : s->mode;
}

static unsigned int derive_mode(enum tm_pool_mode before, enum tm_pool_mode now)
{
	unsigned int changes = 0;

	if (before == now)
		return 0;
	changes |= TM_CHANGE_MODE;
	if (now == TM_MODE_OUT_OF_DATA_SPACE)
		changes |= TM_CHANGE_OUT_OF_SPACE;
	if (before == TM_MODE_OUT_OF_DATA_SPACE)
		changes |= TM_CHANGE_SPACE_BACK;
	return changes;
}

/* What holds now and would be news about a pool that was healthy. */
static unsigned int levels(const struct tm_thin_pool_status *s, uint64_t low_water)
{
	unsigned int set = 0;

	if (at_mark(s->data_used, s->data_total, low_water))
		set |= TM_CHANGE_LOW_WATER;
	if (at_mark(s->metadata_used, s->metadata_total, metadata_mark(s)))
		set |= TM_CHANGE_METADATA_LOW_WATER;
	if (s->needs_check)
		set |= TM_CHANGE_NEEDS_CHECK;
	return set;
}

unsigned int tm_derive(const struct tm_thin_pool_status *before, uint64_t low_water_before,
		       const struct tm_thin_pool_status *now, uint64_t low_water_now)
{
	unsigned int changes, known;

	changes = derive_mode(before ? mode_of(before) : TM_MODE_WRITE, mode_of(now));
	if (now->failed)
		return changes;
	changes |= levels(now, low_water_now);
	if (!before || before->failed)
		return changes;

	known = levels(before, low_water_before);
	if (before->needs_check && !now->needs_check)
		changes |= TM_CHANGE_NEEDS_CHECK_CLEARED;
	if (before->transaction_id != now->transaction_id)
		changes |= TM_CHANGE_TRANSACTION;
	/* A size that moved and still is too small is news again: the extension was not enough. */
	if (before->data_total != now->data_total) {
		changes |= TM_CHANGE_DATA_SIZE;
		known &= ~(unsigned int)TM_CHANGE_LOW_WATER;
	}
	if (before->metadata_total != now->metadata_total) {
		changes |= TM_CHANGE_METADATA_SIZE;
		known &= ~(unsigned int)TM_CHANGE_METADATA_LOW_WATER;
	}
	changes &= ~known;
	if (!before->error_if_no_space && now->error_if_no_space &&
	    now->mode == TM_MODE_OUT_OF_DATA_SPACE)
		changes |= TM_CHANGE_NO_SPACE_TIMEOUT;
	return changes;
}

bool tm_thin_pool_status_equal(const struct tm_thin_pool_status *a,
			       const struct tm_thin_pool_status *b)
{
	if (a->failed || b->failed)
		return a->failed == b->failed;
	return a->mode == b->mode && a->transaction_id == b->transaction_id &&
	       a->metadata_used == b->metadata_used && a->metadata_total == b->metadata_total &&
	       a->data_used == b->data_used && a->data_total == b->data_total &&
	       a->held_root_valid == b->held_root_valid &&
	       (!a->held_root_valid || a->held_root == b->held_root) && a->discard == b->discard &&
	       a->discard_passdown == b->discard_passdown &&
	       a->error_if_no_space == b->error_if_no_space && a->needs_check == b->needs_check &&
	       a->metadata_low_water_valid == b->metadata_low_water_valid &&
	       (!a->metadata_low_water_valid || a->metadata_low_water == b->metadata_low_water);
}
