// SPDX-License-Identifier: GPL-2.0-only
/* What a pool says of itself. */

#include "pool.h"

static void emit_features(const struct dtm_features *f, char *result, unsigned int maxlen,
			  unsigned int *at)
{
	unsigned int sz = *at;

	DMEMIT("%u ", !f->zero_new_blocks + !f->discard + !f->discard_passdown +
			      (f->mode == DTM_READ_ONLY) + f->error_if_no_space);
	if (!f->zero_new_blocks)
		DMEMIT("skip_block_zeroing ");
	if (!f->discard)
		DMEMIT("ignore_discard ");
	if (!f->discard_passdown)
		DMEMIT("no_discard_passdown ");
	if (f->mode == DTM_READ_ONLY)
		DMEMIT("read_only ");
	if (f->error_if_no_space)
		DMEMIT("error_if_no_space ");
	*at = sz;
}

static void emit_info(struct dtm_pool_line *line, unsigned int status_flags, char *result,
		      unsigned int maxlen)
{
	struct dtm_pool *pool = line->pool;
	struct dtm_metadata_sizes sizes;
	enum dtm_mode mode;
	unsigned int sz = 0;

	/*
	 * So that what is told has happened, unless it may cost nothing, or the pool is still.
	 * Without that nothing is waited for: a manager has to see how fast a pool fills while it
	 * does.
	 */
	if (!(status_flags & DTM_STATUS_NOFLUSH) && !dm_suspended(line->ti)) {
		dtm_engine_lock(pool);
		(void)dtm_pool_commit(pool);
		dtm_engine_unlock(pool);
	}
	mode = READ_ONCE(pool->mode);
	if (mode == DTM_FAIL) {
		DMEMIT("Fail");
		return;
	}
	(void)dtm_metadata_sizes(pool->metadata, &sizes); /* broken: the last known */
	DMEMIT("%llu %llu/%llu %llu/%llu ", dtm_metadata_transaction_id(pool->metadata),
	       sizes.metadata_blocks - sizes.metadata_free, sizes.metadata_blocks,
	       sizes.data_blocks - sizes.data_free, sizes.data_blocks);
	if (sizes.held_root)
		DMEMIT("%llu ", sizes.held_root);
	else
		DMEMIT("- ");
	DMEMIT("%s ", dtm_mode_text(mode));
	if (!pool->features.discard)
		DMEMIT("ignore_discard ");
	else if (pool->features.discard_passdown && line->passdown)
		DMEMIT("discard_passdown ");
	else
		DMEMIT("no_discard_passdown ");
	/* Once the waiting took too long, it is over for what comes, too, as in mainline. */
	DMEMIT("%s ", pool->features.error_if_no_space || pool->timed_out ? "error_if_no_space"
									  : "queue_if_no_space");
	DMEMIT("%s ", dtm_metadata_needs_check(pool->metadata) ? "needs_check" : "-");
	DMEMIT("%llu ", dtm_pool_metadata_mark(pool, sizes.metadata_blocks));
}

/*
 * <transaction id> <used>/<all metadata blocks> <used>/<all data blocks> <held root or ->
 * <mode> <discards> <without space> <needs_check or -> <metadata low water>, or Fail
 *
 * <metadata dev> <data dev> <block sectors> <low water> <#features> <feature>...
 */
void dtm_pool_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		     char *result, unsigned int maxlen)
{
	struct dtm_pool_line *line = ti->private;
	char metadata_name[BDEVNAME_SIZE], data_name[BDEVNAME_SIZE];
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		emit_info(line, status_flags, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %lu %llu ",
		       format_dev_t(metadata_name, line->metadata_dev->bdev->bd_dev),
		       format_dev_t(data_name, line->data_dev->bdev->bd_dev),
		       (unsigned long)line->pool->block_sectors,
		       line == READ_ONCE(line->pool->line) ? READ_ONCE(line->pool->low_water)
							   : line->low_water);
		emit_features(&line->asked, result, maxlen, &sz);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}
