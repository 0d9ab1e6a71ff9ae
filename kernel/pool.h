/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A pool and its thin devices, as the files of the module share them. Who does what:
 *
 *   module.c        loading and unloading
 *   pool.c          a pool's life: found by its metadata device, shared by one table and the next
 *   pool-target.c   "thin-pool" as device-mapper sees it: tables, suspend and resume
 *   message.c       messages to it        status.c    its status and table lines
 *   thin-target.c   "thin" as device-mapper sees it
 *   map.c           where a bio goes, and what it has to wait for
 *   worker.c        the pool's one worker, what it does and when
 *   provision.c     blocks for first writes, copies for shared ones
 *   discard.c       blocks given back
 *   space.c         I/O that waits for space, marks, growing
 *   mode.c          carries out what pure/mode.c decides
 *   events.c        what happened lately, for whoever wakes late
 *
 * Locks, outermost first:
 *   pools_lock (pool.c)  the list of pools, and their reference counts
 *   pool->engine         a mutex: whoever changes metadata or the mode holds it: the worker for
 *                        each of its turns, which it ends early when somebody wants it, messages,
 *                        resume and suspend. No I/O on mapped blocks takes it.
 *   inside metadata      see metadata.h
 *   pool->lock           a spinlock, inside it those of flights.c
 *   thin->lock and those of cell.c and flights.c: spinlocks, each taken alone
 *
 * The gate: between suspend and the end of preresume every device's flights are closed, the
 * worker has ended its turn, and waking it only leaves a note. Nobody else has to ask
 * whether the pool is suspended before it changes something.
 */
#ifndef DTM_POOL_H
#define DTM_POOL_H

#include <linux/device-mapper.h>
#include <linux/dm-kcopyd.h>
#include <linux/list_sort.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>

#include "cell.h"
#include "compat.h"
#include "flights.h"
#include "metadata.h"
#include "pure/low-water.h"
#include "pure/mode.h"

#define DM_MSG_PREFIX "thinmgr"

#define DTM_MIN_BLOCK_SECTORS 128
#define DTM_MAX_BLOCK_SECTORS 2097152
/* Most that one discard may cover; it is not cheaper to do less. */
#define DTM_MAX_DISCARD_SECTORS (UINT_MAX >> SECTOR_SHIFT)

/* ---- what happened lately ---------------------------------------------------------------------
 */

enum dtm_cause {
	DTM_CAUSE_DATA_LOW,     /* free data is at its mark */
	DTM_CAUSE_METADATA_LOW, /* free metadata is */
	DTM_CAUSE_MODE,         /* the mode changed */
	DTM_CAUSE_NEEDS_CHECK,  /* needs_check was set */
	DTM_CAUSE_TIMEOUT,      /* I/O waited for space too long */
	DTM_CAUSE_DATA_GROWN,
	DTM_CAUSE_METADATA_GROWN,
	DTM_N_CAUSES,
};

#define DTM_EVENTS 64

struct dtm_events {
	spinlock_t lock;
	u64 last; /* number of the newest; the first is 1 */
	struct {
		enum dtm_cause cause;
		u64 value;
		s64 time_ns; /* CLOCK_REALTIME */
	} ring[DTM_EVENTS];
};

void dtm_events_init(struct dtm_events *e);
u64 dtm_events_add(struct dtm_events *e, enum dtm_cause cause, u64 value);
/*
 * A line for each event after the number: number, nanoseconds, cause, value. The first word of
 * the text is the number of the newest. False: it did not fit.
 */
bool dtm_events_print(struct dtm_events *e, u64 since, char *buf, unsigned int size);

/* ---- a pool -----------------------------------------------------------------------------------
 */

struct dtm_features {
	bool zero_new_blocks;
	bool discard;          /* blocks can be given back */
	bool discard_passdown; /* and the data device is told */
	bool error_if_no_space;
	enum dtm_mode mode; /* asked for: DTM_WRITE or DTM_READ_ONLY */
};

/* A table's thin-pool line. */
struct dtm_pool_line {
	struct dm_target *ti;
	struct dtm_pool *pool;
	struct dm_dev *metadata_dev, *data_dev;
	u64 low_water; /* blocks */
	struct dtm_features asked;
	bool passdown; /* asked for, and the data device can do it */
	bool grown;    /* by a message while this line was live: it may be shorter than the pool */
};

struct dtm_pool {
	struct list_head list; /* of all pools */
	unsigned int users;    /* lines and thin devices; both under pools_lock */
	struct mapped_device *md;
	struct block_device *metadata_bdev;
	struct block_device *data_bdev; /* that of the line bound last */
	struct dtm_metadata *metadata;

	u32 block_sectors;
	int block_shift; /* where that is a power of two, or -1 */
	struct dtm_features features;

	struct mutex engine;
	atomic_t engine_wanted;     /* by so many others than the worker */
	struct dtm_pool_line *line; /* live; NULL while none is */
	sector_t sectors;           /* of the line bound last */
	enum dtm_mode mode;         /* changed under engine, read anywhere */
	bool timed_out;             /* waiting for space is over until some comes */
	u64 low_water;              /* blocks of data: of the line, or set by a message since */
	struct dtm_low_water data_mark, metadata_mark;
	u64 set_metadata_mark; /* by a message; 0: the rule of mainline */
	struct dtm_events events;

	struct dm_kcopyd_client *copier;
	/* Our own: I/O that waits for us may have taken all of others. */
	struct bio_set discards, zeroes;
	struct workqueue_struct *queue; /* ordered: one thing at a time */
	struct work_struct work;
	struct delayed_work commit_tick, no_space_timeout;
	unsigned long last_commit; /* jiffies */

	/* Under engine. */
	bool commit_wanted;            /* as soon as nothing is in the way */
	struct list_head after_commit; /* changes that go on then; by dtm_change.list */
	u64 left_begin, left_end; /* data blocks that copies took the place of, not committed */

	spinlock_t lock;
	bool gate_closing; /* nothing new begins */
	bool gate_closed;  /* nothing moves; waking the worker leaves a note */
	bool work_noted;
	bool working; /* the worker is at it, and looks at again when it is done */
	bool again;
	struct list_head ready;     /* changes whose preparations are done; by dtm_change.list */
	struct bio_list flushes;    /* to be mapped once what is changed is committed */
	struct bio_list completing; /* to be completed then */
	struct list_head thins;     /* changed under engine and lock, so read under either */

	atomic_t busy;          /* changes begun and not ended; the gate waits for them */
	atomic_t passdowns;     /* of blocks that are free already: no commit meanwhile */
	wait_queue_head_t idle; /* none of these left, or nobody who wants the engine */
};

/* One is made for the metadata device, or the one that is there is used once more. */
struct dtm_pool *dtm_pool_get(struct mapped_device *md, struct block_device *metadata_bdev,
			      struct block_device *data_bdev, u32 block_sectors, bool read_only,
			      char **error, bool *ret_made);
/* For thin devices: the pool of a mapped device, or NULL. */
struct dtm_pool *dtm_pool_find(struct mapped_device *md);
void dtm_pool_put(struct dtm_pool *pool);

static inline u64 dtm_block_of(const struct dtm_pool *pool, sector_t sector)
{
	if (pool->block_shift >= 0)
		return sector >> pool->block_shift;
	sector_div(sector, pool->block_sectors);
	return sector;
}

static inline u32 dtm_offset_in_block(const struct dtm_pool *pool, sector_t sector)
{
	if (pool->block_shift >= 0)
		return sector & (pool->block_sectors - 1);
	return sector_div(sector, pool->block_sectors);
}

static inline sector_t dtm_sector_of(const struct dtm_pool *pool, u64 block)
{
	return (sector_t)block * pool->block_sectors;
}

/*
 * Engine, for all but the worker, which has it for most of the time when much is written. It ends
 * its turn early for them: more space must not have to wait until what there was is used up.
 */
static inline void dtm_engine_lock(struct dtm_pool *pool)
{
	atomic_inc(&pool->engine_wanted);
	mutex_lock(&pool->engine);
	if (atomic_dec_and_test(&pool->engine_wanted))
		wake_up_all(&pool->idle);
}

static inline void dtm_engine_unlock(struct dtm_pool *pool)
{
	mutex_unlock(&pool->engine);
}

/* For the worker: what is left to do has time, and is found by the next turn. */
static inline bool dtm_engine_is_wanted(struct dtm_pool *pool)
{
	return atomic_read(&pool->engine_wanted);
}

/* ---- the mode; under engine --------------------------------------------------------------------
 */

/* Something happened: pure/mode.c says what follows, and it is done. */
void dtm_pool_event(struct dtm_pool *pool, enum dtm_event event);
/*
 * A line was bound, and its mode is asked for. True: it was not possible. More: its data space is
 * about to grow.
 */
bool dtm_pool_bind_mode(struct dtm_pool *pool, bool more);
/* An operation on metadata failed: the transaction is taken back. Says so. */
void dtm_pool_metadata_failed(struct dtm_pool *pool, const char *what, int err);
/* The same, but only where the failure left the transaction in need of that; else it changed
 * nothing. */
void dtm_pool_change_failed(struct dtm_pool *pool, const char *what, int err);
/* Tries what could not be done when it should have been: reading the metadata again, writing
 * needs_check. An error: the metadata cannot be read yet, see dtm_metadata_mend(). */
int dtm_pool_mend(struct dtm_pool *pool);

/* ---- space; under engine ------------------------------------------------------------------------
 */

/* Compares free space with the marks. */
void dtm_pool_check_marks(struct dtm_pool *pool);
void dtm_pool_set_marks(struct dtm_pool *pool);
void dtm_pool_set_metadata_mark(struct dtm_pool *pool);
/* The metadata mark: set by a message, or by mainline's rule. */
u64 dtm_pool_metadata_mark(struct dtm_pool *pool, u64 metadata_blocks);
/* I/O that waits for space fails, or is tried again. */
void dtm_pool_error_waiting(struct dtm_pool *pool);
void dtm_pool_retry_waiting(struct dtm_pool *pool);
/* Some was given back to device-mapper: what waits later has its own time. */
void dtm_pool_gave_back(struct dtm_pool *pool);
/*
 * Takes more of the devices into use, up to a number of blocks; of the data without a commit, for
 * that may take a while. -EINVAL: less than there is, or
 * more than the device has; -EPERM: not in this mode, or with needs_check; or what went wrong.
 */
int dtm_pool_grow_data(struct dtm_pool *pool, u64 blocks);
int dtm_pool_grow_metadata(struct dtm_pool *pool, u64 blocks);
u64 dtm_metadata_device_blocks(struct block_device *bdev);
/* Says so in the log when the format cannot address all of a metadata device. */
void dtm_pool_warn_oversized(struct block_device *metadata_bdev);
void dtm_pool_no_space_timeout(struct work_struct *work);

/* ---- the worker ---------------------------------------------------------------------------------
 */

void dtm_pool_work(struct work_struct *work);
void dtm_pool_commit_tick(struct work_struct *work);
void dtm_pool_wake(struct dtm_pool *pool);
void dtm_pool_wake_locked(struct dtm_pool *pool); /* with pool->lock held */
/*
 * Under engine: flushes the data device, then commits. An error is dealt with already; the caller
 * has only to stop.
 */
int dtm_pool_commit(struct dtm_pool *pool);
/* The same, and those that wait for it go on. */
void dtm_pool_commit_and_tell(struct dtm_pool *pool);
bool dtm_commit_is_awaited(struct dtm_pool *pool); /* by a flush, or a write with FUA */
/* True: a change was refused for want of metadata, and may be tried again: what the transaction
 * freed is committed. */
bool dtm_pool_commit_for_room(struct dtm_pool *pool, int r);
/* After the first, nothing of the pool moves until the second. Sleeps. */
void dtm_pool_close_gate(struct dtm_pool *pool);
void dtm_pool_open_gate(struct dtm_pool *pool);

/* ---- a thin device ------------------------------------------------------------------------------
 */

/*
 * The order of I/O to the blocks of one device. Tables of several mapped devices may have a line of
 * it: LVM2 moves it from one to another that way. With cells of its own each of them would map a
 * block, and lose what another wrote.
 */
struct dtm_traffic {
	unsigned int users; /* lines; under engine */
	struct dtm_cells cells;
	struct dtm_flights flights;
};

/* A table's thin line. */
struct dtm_thin {
	struct list_head list; /* in pool->thins */
	struct dtm_pool *pool;
	struct dtm_device *device;
	struct dm_dev *pool_dev, *origin_dev;
	struct dm_target *ti;
	sector_t origin_sectors;
	struct dtm_traffic *traffic;

	spinlock_t lock;
	bool requeue;                /* being suspended without flush: what waits goes back */
	struct bio_list deferred;    /* to be mapped by the worker */
	struct list_head cells_todo; /* holders' cells whose blocks need a change */
	struct bio_list no_space;    /* wait for space */
};

/* What a bio carries with it while it is on its way. */
struct dtm_io {
	struct dtm_thin *thin;
	int turn;             /* of its flight, or -1 */
	bool committed;       /* what it depends on is, if it is mapped now */
	bool overwrites;      /* its own write fills the block of the change */
	bio_end_io_t *end_io; /* then: its own */
	bool holds;           /* the cell */
	struct dtm_cell cell;

	/* A change of the mapping of the cell's blocks, made when nothing is awaited any more. */
	struct list_head list;           /* in pool->ready, or waiting for flights */
	void (*next)(struct dtm_io *io); /* called by the worker */
	atomic_t awaited;
	blk_status_t status;
	u64 block;       /* data block of the first */
	u32 zeroes_left; /* to be written, to the end of that block */
	bool copied;
	u64 old_block; /* then: what it was copied from */
	u64 at;        /* discards: reached so far */
	struct dtm_run run;
};

static inline struct dtm_io *dtm_io_of(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct dtm_io));
}

static inline struct bio *dtm_bio_of(struct dtm_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(struct dtm_io));
}

/* ---- the way of a bio -------------------------------------------------------------------- */

/* device-mapper's map function. */
int dtm_map(struct dtm_thin *thin, struct bio *bio);
/* The same from the worker, which may sleep. */
void dtm_map_later(struct dtm_thin *thin, struct bio *bio);
/*
 * Being suspended without flush? Where such a suspend is given up, device-mapper takes nothing back
 * any more, and that is known a moment before thin->requeue says so.
 */
static inline bool dtm_gives_back(const struct dtm_thin *thin)
{
	return READ_ONCE(thin->requeue) && dm_noflush_suspending(thin->ti);
}

/* All that waits, to device-mapper, which keeps it; under engine, while that is so. */
void dtm_give_back(struct dtm_thin *thin);
/* To be mapped by the worker, some time. */
void dtm_defer(struct dtm_thin *thin, struct bio *bio);
/* Those that waited for a cell, each by the line it came to. */
void dtm_defer_list(struct bio_list *bios);
/* To its place in a data block; counted as a flight. */
void dtm_send(struct dtm_thin *thin, struct bio *bio, u64 block);
void dtm_end_flight(struct dtm_io *io);
/* One thing less is awaited; the last makes the change ready. May not sleep. */
void dtm_awaited(struct dtm_io *io);
/* A change has begun, or ended. */
void dtm_begin_change(struct dtm_io *io, void (*next)(struct dtm_io *io), int awaited);
void dtm_end_change(struct dtm_io *io);
/* The cell is let go; those that waited are mapped anew. */
void dtm_release(struct dtm_io *io);
/* It fails, or has to wait for space, with all that waited for its cell. */
void dtm_no_space(struct dtm_io *io);
void dtm_fail(struct dtm_io *io, blk_status_t status);

/* ---- changes; by the worker, under engine ------------------------------------------------ */

/* The holder of a cell needs its block mapped so that it can be written. */
void dtm_provision(struct dtm_io *io);
void dtm_discard(struct dtm_io *io);

/* ---- lines ------------------------------------------------------------------------------- */

int dtm_pool_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		     unsigned int size);
void dtm_pool_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		     char *result, unsigned int size);

extern struct target_type dtm_pool_target, dtm_thin_target;
extern unsigned int dtm_no_space_timeout_secs;
extern struct dm_kcopyd_throttle dtm_copy_throttle;

#endif
