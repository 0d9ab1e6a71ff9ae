/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A pool's metadata: which device has which of its blocks where, and which data blocks are free.
 * On disk as in mainline's thin-pool (version 2), so that thin_check, thin_repair and mainline's
 * own target read what this wrote.
 *
 * Changes collect in a transaction that is in memory until dtm_metadata_commit() writes all of it,
 * the superblock last, or dtm_metadata_abort() takes all of it back. There is always one open; a
 * crash takes it back. Any function that changes something and fails leaves the transaction in
 * need of an abort: nothing else is done with it, all further changes answer an error. So it is
 * said where an error does not mean that: with -EEXIST, -ENODATA, -EBUSY, -EINVAL, -EPERM and
 * -EROFS nothing was changed; of others dtm_metadata_must_abort() knows. What a failure means for
 * the pool is decided in mode.h, never here.
 *
 * Out of metadata: -ENOSPC of any function but dtm_metadata_alloc_data(), where that speaks of
 * data, and -EXFULL of metadata. It comes before anything was changed when only the reserve is left
 * (dtm_metadata_sizes(): metadata_free is 0; what frees space, or maps a block that was allocated,
 * may use half of the reserve), or in the middle, where the reserve was too small for one change.
 *
 * Broken: the transaction was taken back, but what was committed before cannot be read again (an
 * error of the device). Then everything that needs the metadata answers -EIO until
 * dtm_metadata_mend() succeeds. What is needed to record needs_check and to say what the status
 * line says is kept in memory.
 *
 * Locking: one rw_semaphore inside. Functions that change take it for writing; those that read
 * for reading, and several may read at once. Those marked "may not sleep" only try.
 * Data blocks are counted in blocks of the pool, metadata in blocks of 4 KiB.
 */
#ifndef DTM_METADATA_H
#define DTM_METADATA_H

#include <linux/blkdev.h>
#include <linux/types.h>

#include "persistent-data.h"

#define DTM_METADATA_BLOCK_SECTORS 8
/* More than this the format cannot address: 255 index entries of 16320 blocks. */
#define DTM_METADATA_MAX_BLOCKS  (255ULL * ((1 << 14) - 64))
#define DTM_METADATA_MAX_SECTORS (DTM_METADATA_MAX_BLOCKS * DTM_METADATA_BLOCK_SECTORS)
/* A device larger than this is worth a warning: the rest of it goes unused. */
#define DTM_METADATA_WARN_SECTORS (16ULL * 1024 * 1024 * 1024 / 512)
#define DTM_MAX_DEVICE_ID         ((1U << 24) - 1)

struct dtm_metadata; /* of a pool */
struct dtm_device;   /* a thin device that is open */

/* ---- the whole --------------------------------------------------------------------------- */

/*
 * Opens what is on the device; where its first block is all zeroes, and format is allowed, makes
 * empty metadata there first. The result is freed by dtm_metadata_close().
 *
 * -EINVAL: the data block size is not the one in the superblock, the metadata is larger than the
 * device, or it has features this does not know (compat_ro ones only count when the device is
 * writable); -EILSEQ, -ENOTBLK: no superblock, or a damaged one; -EPERM: nothing is there and
 * format is not allowed; -EROFS: nor can it be made there; -EIO; -ENOMEM. Says why in the kernel
 * log.
 */
struct dtm_metadata *dtm_metadata_open(struct block_device *bdev, sector_t data_block_sectors,
				       bool format);

/*
 * Commits first, unless metadata is read-only, broken, or nothing changed. The data device has
 * been flushed by the caller if mappings were made. No device may be open. Takes NULL.
 */
void dtm_metadata_close(struct dtm_metadata *m);

/*
 * Writes the transaction and begins the next. -EROFS: read-only; any other error: abort. After 0
 * all of it is durable. Nothing is written where nothing changed. Everything mapped by it must be
 * durable on the data device before this is called.
 */
int dtm_metadata_commit(struct dtm_metadata *m);

/* Whether there is anything to commit. */
bool dtm_metadata_changed(struct dtm_metadata *m);

/* Whether a change failed half-way, so that there is only the abort. */
bool dtm_metadata_must_abort(struct dtm_metadata *m);

/*
 * Takes the transaction back, in memory; reads what was committed last. Devices with changes in
 * the transaction are marked (dtm_device_lost_changes()). An error: broken, see above.
 */
int dtm_metadata_abort(struct dtm_metadata *m);

/*
 * Tries to read the committed metadata again where it is broken; 0 where it is not (any more).
 * -ESTALE: it was detached, and others changed it since.
 */
int dtm_metadata_mend(struct dtm_metadata *m);
bool dtm_metadata_is_broken(struct dtm_metadata *m);

/*
 * For the time that nobody keeps the device open: it is not touched, and all is as where it is
 * broken, until dtm_metadata_mend(). There is no transaction to lose.
 */
void dtm_metadata_detach(struct dtm_metadata *m);
/* It is detached, and others changed it since. While somebody keeps the device open. */
bool dtm_metadata_is_stale(struct dtm_metadata *m);

/*
 * Nothing is written while read-only, whatever is called: what changes answers -EROFS. Set once
 * there is no transaction to lose; to go on writing, the flag is taken away again.
 */
void dtm_metadata_set_read_only(struct dtm_metadata *m, bool read_only);

/*
 * The flag that stops all writing until an offline check. Set in memory at once, and in the
 * superblock on the device, from the copy in memory of the one last committed, also while
 * read-only or broken: nothing has to be read for it. An error: it is not on the device yet; call
 * again later. Never call it with a transaction that is neither committed nor taken back.
 */
int dtm_metadata_set_needs_check(struct dtm_metadata *m);
bool dtm_metadata_needs_check(struct dtm_metadata *m);
/* Set in memory, but not on the device yet. */
bool dtm_metadata_needs_check_unwritten(struct dtm_metadata *m);

/* The number that user space keeps in step with its own records. */
u64 dtm_metadata_transaction_id(struct dtm_metadata *m);
/* -EINVAL: the current one is not the one that is there. */
int dtm_metadata_set_transaction_id(struct dtm_metadata *m, u64 current_id, u64 new_id);

/* Starts reading what non-blocking look-ups did not find in memory. */
void dtm_metadata_prefetch(struct dtm_metadata *m);

/* ---- sizes ------------------------------------------------------------------------------- */

struct dtm_metadata_sizes {
	u64 data_blocks, data_free; /* free: what can be allocated in this transaction */
	u64 metadata_blocks;
	u64 metadata_free; /* beside the reserve: 0 once only that is left */
	/* The same at the last commit: without what the transaction takes and its commit gives
	 * back. */
	u64 metadata_free_at_rest;
	u64 held_root; /* block of the metadata snapshot; 0: none */
};

/* Never sleeps long and never reads the device. -EIO: broken; then the last known sizes. */
int dtm_metadata_sizes(struct dtm_metadata *m, struct dtm_metadata_sizes *ret);

/*
 * Makes it larger. New data space can be used at once, that of metadata after the next commit,
 * which is the caller's. After a crash before that it has its former size, and nothing durable lies
 * in it. -EINVAL: smaller than it is. -ENOSPC: the metadata has no room for that, or, for metadata,
 * what is added is too little to write that down in it (9 blocks for small ones, 35 are always
 * enough). More than DTM_METADATA_MAX_BLOCKS is cut to that.
 */
int dtm_metadata_resize_data(struct dtm_metadata *m, u64 blocks);
int dtm_metadata_resize_metadata(struct dtm_metadata *m, u64 blocks);

/* ---- data blocks ------------------------------------------------------------------------- */

/*
 * A free data block, now in use once. A commit does not make that durable before the block is
 * mapped, so none is lost by a crash in between; dtm_metadata_dec_data() gives it back. -ENOSPC:
 * there is none; nothing is lost by that, and a commit may help: blocks that were freed in a
 * transaction are not given out in it. -EXFULL: there is no metadata left.
 */
int dtm_metadata_alloc_data(struct dtm_metadata *m, u64 *ret_block);
/* Is the block in use more than once? Waits as those that change do. */
int dtm_metadata_data_is_shared(struct dtm_metadata *m, u64 block, bool *ret_shared);
/* The first run of blocks in [begin, end) that nobody uses; -ENODATA: there is none. The same. */
int dtm_metadata_find_unused_data(struct dtm_metadata *m, u64 *begin, u64 *end);
/* Uses of the blocks [begin, end), one more or one less each. */
int dtm_metadata_inc_data(struct dtm_metadata *m, u64 begin, u64 end);
int dtm_metadata_dec_data(struct dtm_metadata *m, u64 begin, u64 end);

/* ---- devices ----------------------------------------------------------------------------- */

/*
 * -EEXIST: the id is taken. -EINVAL: not a device id. -EBUSY: an abort took this device back, but
 * somebody still has it open.
 */
int dtm_metadata_create_thin(struct dtm_metadata *m, u32 id);
/*
 * A snapshot of the origin as it is now. -EEXIST; -ENODATA: no such origin; -EINVAL, -EBUSY as
 * above; -EPERM: the format cannot count more snapshots.
 */
int dtm_metadata_create_snap(struct dtm_metadata *m, u32 id, u32 origin);
/* -ENODATA: there is none; -EBUSY: it is open. */
int dtm_metadata_delete(struct dtm_metadata *m, u32 id);

/*
 * Keeps the committed metadata of now readable for user space, from the next commit on. -EBUSY:
 * there is a snapshot; -EAGAIN: something changed, and has to be committed first.
 */
int dtm_metadata_reserve_snap(struct dtm_metadata *m);
/* -EINVAL: there is none. */
int dtm_metadata_release_snap(struct dtm_metadata *m);

/*
 * Opened more than once it is the same one. -ENODATA: no device of this id. Blocks: how large it
 * is, which says how many mappings are worth remembering.
 */
int dtm_device_open(struct dtm_metadata *m, u32 id, u64 blocks, struct dtm_device **ret);
void dtm_device_close(struct dtm_device *d); /* takes NULL */
u32 dtm_device_id(const struct dtm_device *d);

struct dtm_mapping {
	u64 block;   /* of the data device */
	bool shared; /* with a snapshot or its origin: may not be written in place */
};

/*
 * Where a block of the device is. One that was found lately is found without any lock, so the
 * caller sees to it that no change of this very block is under way. -ENODATA: nowhere, which is
 * never said for want of knowing better, nor of a device that an abort did away with (-EIO). With
 * wait false it may not sleep, and -EWOULDBLOCK says that it would have had to.
 */
int dtm_device_find(struct dtm_device *d, u64 virtual_block, bool wait, struct dtm_mapping *ret);

struct dtm_run {
	u64 virtual_begin, virtual_end; /* [begin, end) of the device's blocks */
	u64 block;                      /* of the first; the others follow it */
	bool shared;                    /* all of them, or none */
};

/*
 * The first run in [begin, end): blocks of the device, next to each other, mapped to data blocks
 * next to each other. The caller sees to it that no mapping in there changes meanwhile.
 * -ENODATA: nothing is mapped there.
 */
int dtm_device_find_run(struct dtm_device *d, u64 begin, u64 end, struct dtm_run *ret);

/* A block is mapped, or mapped elsewhere: then the use of the old data block ends. */
int dtm_device_insert(struct dtm_device *d, u64 virtual_block, u64 block);
/*
 * The first block in [begin, end) that is mapped. -ENODATA: none is.
 */
int dtm_device_find_first(struct dtm_device *d, u64 begin, u64 end, u64 *ret);
/*
 * Nothing from begin up to where that is set to is mapped any more, which is end unless there was
 * more to do than in a short time; uses of the data blocks end.
 */
int dtm_device_remove_some(struct dtm_device *d, u64 *begin, u64 end);
/* The same until end. Others get their turn in between; after an error some may be done. */
int dtm_device_remove_range(struct dtm_device *d, u64 begin, u64 end);

/* Changes of this device are in the transaction. Ask this first, then whether some were lost. */
bool dtm_device_changed(struct dtm_device *d);
/* Changes of this device were taken back since it was opened: data that was written is lost. */
bool dtm_device_lost_changes(struct dtm_device *d);
/* Says so, for a commit that did not tell how much of it got to the device. */
void dtm_device_set_lost_changes(struct dtm_device *d);

u64 dtm_device_mapped_blocks(struct dtm_device *d);
/* Of the blocks that are mapped. -ENODATA: none is. */
int dtm_device_highest_mapped(struct dtm_device *d, u64 *ret);

#endif
