/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the core. Only daemon/core/ includes this.
 *
 * The main loop owns struct tm_core and every struct tm_pool; nothing else touches them. What runs
 * on other threads gets copies and hands its findings back by the mailbox:
 *
 *   operations    on the crew `workers`, one per pool at a time  (operation.c, op-*.c)
 *   looks         on the crew `urgent`: read the status, decide, extend (look.c); then ask what
 *                 only our target remembers (ring.c)
 *   arming        on the crew `arming`: put the next step's space below (arm.c)
 *   the recorder  one thread: events, sizes, samples, in order   (recorder.c)
 */
#ifndef TM_CORE_INTERNAL_H
#define TM_CORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <systemd/sd-event.h>

#include "backing/backing.h"
#include "common/units.h"
#include "core/core.h"
#include "core/daemon.h"
#include "core/mailbox.h"
#include "core/operation.h"
#include "core/released.h"
#include "dm/dm.h"
#include "host/holders.h"
#include "logic/due.h"
#include "logic/extend.h"
#include "logic/kernel-events.h"
#include "logic/superblock.h"
#include "store/store.h"
#include "watch/watch.h"

#define TM_RUN_DIRECTORY "/run/thinmgr"

/* One of a pool's two spaces, as the extension machinery follows it. */
struct tm_space {
	struct tm_rate rate;
	struct tm_latency reaction, arming;
	struct tm_backoff backoff; /* of extending */
	uint64_t extensions;
	enum tm_extend_verdict verdict;
	uint64_t want_reserve_bytes;
};

struct tm_volume {
	struct tm_volume_record record;
	bool active;    /* has a device */
	bool check_due; /* of its file system, without being asked: see suspect.c */
	bool mapped_valid;
	uint64_t mapped_bytes;
};

/* Repair by itself, as far as it got. */
struct tm_mend {
	bool asked;           /* it is on its way to becoming an operation */
	bool tried;           /* in vain: not again before the pool was activated anew or mended */
	bool told;            /* that it waits */
	uint64_t seen_usec;   /* monotonic: when it was last found out for whom */
	char *waits_for;      /* JSON text: who they are; owned; NULL: it does not wait */
	uint64_t again_usec;  /* monotonic: those in the way are not to be bothered before */
	unsigned int refused; /* times in a row that somebody was in the way */
	size_t last_used;     /* index of the volume that was found in use */
	unsigned int passing; /* times in a row that nobody was found who uses it for long */
};

/* Checks and safety copies by themselves. */
struct tm_upkeep {
	struct tm_due_failures failures;
	enum tm_error_code told; /* why the last one failed; TM_OK: it did not */
	bool waits;              /* one is due, but the pool is in no state for it */
};

struct tm_queued_op {
	struct tm_op *op;
	struct tm_queued_op *next;
};

struct tm_pool {
	struct tm_core *core;
	struct tm_pool_record record;
	struct tm_volume *volumes;
	size_t n_volumes;
	enum tm_pool_state state;
	char state_reason[256];
	bool unsettled; /* an operation cut off by a stop waits: nothing may come before it */
	bool direct_io;

	unsigned int dm_minor; /* of the pool's device while active */
	uint32_t dm_event_nr;
	bool status_valid;
	struct tm_thin_pool_status status;
	uint64_t status_usec;
	uint64_t backing_free_bytes;
	uint64_t queueing_since_usec, queueing_until_usec;
	struct tm_space data, metadata;
	uint64_t sampled_usec; /* monotonic: last sample */
	struct tm_sample last_sample;
	uint64_t recorded_usec; /* monotonic: last sample that was kept */
	uint64_t remarked_usec; /* monotonic: last time the mark alone was moved */

	bool looking, look_again; /* a look is under way; another is asked for */
	uint64_t look_again_seen_usec;
	struct look *look;   /* the one under way; what of it the main loop may read, look.c says */
	bool look_is_late;   /* it was told that it hangs */
	bool look_crossed;   /* an operation ran meanwhile, and may have moved the transaction */
	bool left_suspended; /* the kernel may have it suspended: the next look lets it go */
	struct tm_arm *arming; /* waiting for its turn, or at work */
	struct tm_backoff arm_backoff;
	uint64_t spare_bytes; /* known to be set aside for a repair */
	struct tm_backoff spare_backoff;
	bool sample_due; /* the next look is a sample, too */
	bool raising;    /* being brought up at the daemon's start: its queue waits */
	bool owes;       /* a repair took off what is not given back yet, see op-release.c */
	struct tm_op *running;
	struct tm_queued_op *queue;
	sd_event_source *retry_timer;
	uint64_t close_look_usec; /* how long the last wait for a look near the mark was */

	struct tm_kernel_ring ring; /* what is known of the events that our target keeps */
	struct tm_mend mend;
	struct tm_upkeep upkeep;
	bool damaged; /* it could not be activated, because of its metadata */

	bool ring_off;           /* it does not answer, or not so that it is understood */
	unsigned int modes_seen; /* by tm_pool_saw since the last look: bits 1 << mode */

	uint64_t generation;
	struct tm_pool_view *view; /* published last; NULL: stale */
};

struct tm_waiter {
	struct tm_uuid operation;
	sd_event_source *timer;
	tm_wait_done done;
	void *userdata;
	struct tm_core *core;
	struct tm_waiter *next;
};

struct tm_listener {
	tm_event_fn fn;
	void *userdata;
	struct tm_listener *next;
};

enum tm_fault_action { TM_FAULT_NONE, TM_FAULT_KILL, TM_FAULT_RESET, TM_FAULT_ERROR };

/* A fault to be provoked at one step, for the crash tests:
 * THINMGR_FAULT=kill:volume-create:record:before */
struct tm_fault {
	enum tm_fault_action action;
	char kind[32], step[32];
	bool after;
};

struct tm_core {
	sd_event *event;
	struct tm_core_config config;
	struct tm_dm *dm;
	struct tm_store *store;
	struct tm_mailbox *mailbox;
	struct tm_crew *workers, *urgent, *arming, *recorder;
	struct tm_crew *raisers; /* at the start only */
	size_t n_raising;
	void (*on_ready)(void *userdata);
	void *on_ready_userdata;
	atomic_bool stopping;
	struct tm_fault fault; /* constant once started */

	struct tm_pool **pools;
	size_t n_pools;
	struct tm_pool **by_minor; /* dm minor -> pool */
	size_t n_by_minor;

	struct tm_op *global_running; /* pool-import: one at a time */
	struct tm_queued_op *global_queue;
	size_t n_unfinished;

	struct tm_watch *watch;
	sd_event_source *sample_timer;
	sd_event_source *mend_timer;   /* pools that wait to be repaired */
	sd_event_source *upkeep_timer; /* pools whose metadata is to be checked */
	bool upkeep_busy;              /* one is, or is about to be */
	sd_event_source *late_timer;   /* are there looks that hang? */
	size_t n_looking;
	uint64_t rolled_up_usec;        /* monotonic */
	struct tm_pool_sample *samples; /* collected, to be recorded together */
	size_t n_samples, sample_looks; /* looks that will still add one */

	struct tm_record *unrecorded, *unrecorded_last; /* of this turn of the loop */
	sd_event_source *record_source;
	atomic_size_t n_unpublished; /* handed to the recorder, or to be, and not published yet */

	struct tm_waiter *waiters;
	struct tm_listener *listeners;
	void (*on_view)(void *userdata);
	void *on_view_userdata;

	struct tm_system_view system;
	size_t n_target_degraded;    /* the first so many of system.degraded are of the target */
	pthread_mutex_t target_lock; /* what is seen of the target is posted in order */
	pthread_mutex_t view_lock;
	struct tm_view *view; /* under view_lock */
	bool view_stale;
	sd_event_source *publish_source;
	uint64_t view_generation;

	pthread_mutex_t live_lock; /* guards the live record of running operations, below */
	struct tm_op *live[256];   /* operations queued or running; under live_lock */

	pthread_mutex_t descriptor_lock; /* one writer of descriptors at a time */
};

/* pool.c: the model on the main loop */
struct tm_pool *tm_pool_new(struct tm_core *core, const struct tm_pool_record *record);
struct tm_pool *tm_pool_free(struct tm_pool *pool);
int tm_core_add_pool(struct tm_core *core, struct tm_pool *pool);
void tm_core_remove_pool(struct tm_core *core, struct tm_pool *pool);
struct tm_pool *tm_core_find_pool(struct tm_core *core, const char *ref);
struct tm_volume *tm_pool_find_volume(struct tm_pool *pool, const char *ref);
/* Replace the volumes by copies of @records, keeping what is known of those that stay. */
int tm_pool_set_volumes(struct tm_pool *pool, const struct tm_volume_record *records, size_t n);
/* Something of the pool changed: its view is to be published anew. */
void tm_pool_touch(struct tm_pool *pool);
/* The device came up: remember its minor and event number. Down: forget. */
void tm_pool_up(struct tm_pool *pool);
void tm_pool_down(struct tm_pool *pool);

/* publish.c */
void tm_core_publish(struct tm_core *core);      /* now */
void tm_core_publish_soon(struct tm_core *core); /* once this round of the loop is done */

/* recorder.c: what is written in the background, in order */
struct tm_event_spec {
	enum tm_event_type type;
	const struct tm_pool *pool;      /* NULL: none */
	const char *volume;              /* NULL: none */
	const struct tm_uuid *operation; /* NULL: none */
	char *data;                      /* JSON text, taken; NULL: none */
};
void tm_record_event(struct tm_core *core, const struct tm_event_spec *spec, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const char *tm_event_message_id(enum tm_event_type type); /* NULL: none */
void tm_record_sizes(struct tm_core *core, const struct tm_pool *pool, bool descriptor);
/* See tm_store_suspect_pool. */
void tm_record_suspect(struct tm_core *core, const struct tm_pool *pool, enum tm_suspicion why,
		       uint64_t happened_usec);
void tm_record_descriptor(struct tm_core *core,
			  const struct tm_pool *pool); /* if it is out of date */
void tm_record_samples(struct tm_core *core, struct tm_pool_sample *samples, size_t n); /* taken */
void tm_record_rollup(struct tm_core *core);
/* Hand over to the recorder what is still waiting for the turn of the main loop to end. */
void tm_record_flush(struct tm_core *core);
/* Call @passed on the main loop, with @mark, when all recorded so far was written and published. */
void tm_record_mark(struct tm_core *core, const struct tm_uuid *mark,
		    void (*passed)(struct tm_core *core, const struct tm_uuid *mark));

/* look.c, arm.c: extension */
void tm_pool_look(struct tm_pool *pool,
		  uint64_t seen_usec); /* seen_usec: when the event was seen; 0: no event */
/* Take a status read elsewhere, while no look was under way, and tell what changed. */
void tm_pool_saw(struct tm_pool *pool, const struct tm_thin_pool_status *status,
		 uint64_t backing_free_bytes);
void tm_pool_arm(struct tm_pool *pool);
/* The size that an extension of full metadata of @bytes would have, by the policy's step and
 * maximum: what a repair may have to make, at the most. See op-repair.c. */
uint64_t tm_repair_extended(const struct tm_pool_record *p, uint64_t bytes);
/* Whether there was an arming that had not begun: it is no more, and a look may go first. */
bool tm_pool_call_off_arm(struct tm_pool *pool);

/* holding.c: who holds those volumes of a pool that are in use; any thread, may block */
struct tm_holding {
	dev_t *devices; /* that are open */
	char (*names)[TM_NAME_MAX + 1];
	size_t n_devices;
	struct tm_holders
		holders; /* theirs, by their number in the list, but for udev's programs */
};
/* 0 with *ret for tm_holding_done, which is empty after an error: IO, NO_MEMORY. */
int tm_parts_holders(struct tm_core *core, const struct tm_pool_record *pool,
		     const struct tm_volume_record *volumes, size_t n, struct tm_holding *ret,
		     struct tm_error *err);
void tm_holding_done(struct tm_holding *h);
/* For people: "home is mounted at /home, www is open in process 4711 (dd)", as far as it fits. */
const char *tm_holding_text(const struct tm_holding *h, char *buf, size_t len);
/* As tm_holders_json, with the volume's name in each. New reference, or NULL. */
json_t *tm_holding_json(const struct tm_holding *h);

/* mend.c: something of the pool changed that may call for a repair, or for none. */
void tm_pool_mend(struct tm_pool *pool);
/* Somebody was in the way of one by force: they are left in peace for a while. */
void tm_pool_mend_later(struct tm_pool *pool);

/* upkeep.c: checks and safety copies that are due. Something changed that may make one so. */
void tm_upkeep_soon(struct tm_core *core);
void tm_upkeep_looked(struct tm_pool *pool); /* it may have become able to */
/* An operation ended; @pool: NULL when it is gone. */
void tm_upkeep_ended(const struct tm_op *op, struct tm_pool *pool);
/*
 * Whether it was told before that this check, made by itself, cannot be made, or what it found: it
 * is tried again and again. To be asked once for each failure.
 */
bool tm_upkeep_told(const struct tm_op *op, struct tm_pool *pool);

/* op-release.c: what a repair took off volumes when the daemon was killed. Main loop. */
void tm_core_give_back(struct tm_core *core); /* once it is ready */
void tm_pool_give_back(struct tm_pool *pool); /* if it still owes, and nothing is in the way */
void tm_released_forget(const struct tm_uuid *pool);

/* suspect.c: volumes that may have lost writes, see logic/suspect.h */
/*
 * If the pool's status (NULL: as it is now) says that writes are being lost, mark its volumes in
 * the database, before the pool is made to look healthy. Any thread; waits for the disk. 0, with
 * *ret for tm_pool_suspect where anything was found; or STORE: then the pool is to be left as it
 * is.
 */
int tm_parts_suspect(struct tm_core *core, const struct tm_pool_record *pool,
		     const struct tm_thin_pool_status *status, struct tm_loss *ret,
		     struct tm_error *err);
/* Take over what was marked, and tell. Main loop, like those below. */
void tm_pool_suspect(struct tm_pool *pool, enum tm_suspicion why, uint64_t usec,
		     uint64_t happened_usec);
void tm_volume_suspect(struct tm_pool *pool, struct tm_volume *volume, enum tm_suspicion why,
		       uint64_t usec);
/*
 * Have the file systems of those that are suspect, active and used by nobody checked, each by an
 * operation: the first now, the next when that has ended.
 */
void tm_pool_check_suspects(struct tm_pool *pool);
void tm_pool_check_next(struct tm_pool *pool);
/* Whether there is a volume that is not suspect, and would become so now. */
bool tm_pool_may_become_suspect(const struct tm_pool *pool);
/* A volume's new record, from an operation: what it does not know of stays. */
void tm_volume_take(struct tm_volume *volume, const struct tm_volume_record *record);

/* ring.c: what our target remembers beyond its status */
struct tm_ring_answer {
	bool asked, valid;
	struct tm_error error;
	struct tm_kernel_events events;
};
/* Ask for what came after event @since. Any thread. */
void tm_ring_ask(struct tm_core *core, const char *pool_name, uint64_t since,
		 struct tm_ring_answer *ret);
/* Whether the pool's target is ours, as far as it can be asked. Any thread. */
bool tm_ring_there(struct tm_core *core, const char *pool_name);
/*
 * Take an answer over, and tell of the modes that the pool was in unseen. @seen: those that status
 * lines showed since the last answer, bits 1 << mode. *ret is empty where nothing is known.
 */
void tm_ring_settle(struct tm_pool *pool, const struct tm_ring_answer *answer, unsigned int seen,
		    struct tm_kernel_news *ret);

/* queue.c: an operation's way from durable row to end */
int tm_core_enlist(struct tm_core *core, struct tm_op *op,
		   struct tm_error *err); /* make it visible as live */
void tm_core_delist(struct tm_core *core, struct tm_op *op);
void tm_core_enqueue(struct tm_core *core, struct tm_op *op); /* takes it */
void tm_pool_run_queue(struct tm_pool *pool);
void tm_core_run_global_queue(struct tm_core *core);

/* prepare.c: is it allowed now, and what will its steps work on? Main loop; called again when its
 * turn comes. */
int tm_op_prepare(struct tm_op *op, struct tm_pool *pool, struct tm_error *err);
/* What a new pool's record gets where the command says nothing. Any thread. */
int tm_pool_fill_defaults(struct tm_pool_record *record, struct tm_error *err);
/* The low-water mark of a pool that nothing is known of but its policy: bytes. */
uint64_t tm_pool_mark(const struct tm_pool_record *record);

/* apply.c: take over what an ended operation changed, and tell. Returns the pool, or NULL when it
 * is gone. */
struct tm_pool *tm_op_apply(struct tm_op *op, struct tm_pool *pool);
/* The same for one that was cancelled before it touched anything; another may be running. */
void tm_op_apply_dropped(struct tm_op *op, struct tm_pool *pool);
/* queue.c: whatever can end early is to, as the daemon stops */
void tm_core_cancel_all(struct tm_core *core);
/* Bring the model in line with what devices there are. */
void tm_pool_observe(struct tm_pool *pool);

/* parts.c: what several operations do with a pool's devices; any thread */
int tm_parts_attach(struct tm_core *core, struct tm_pool_record *pool, bool *ret_direct_io,
		    struct tm_error *err);
/*
 * Cut off what the data file has beyond what the record says, and beyond what the kernel uses: left
 * by a stop while it was longer for a moment (tm_loop_attach), or before its new size was recorded.
 */
int tm_parts_trim(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err);
/* The superblock of the metadata file: 1; 0 when it is new and the kernel has yet to format it; or
 * negative. */
int tm_parts_read_superblock(const struct tm_pool_record *pool, struct tm_superblock *ret,
			     struct tm_error *err);
/* DAMAGED when the metadata file is shorter than its superblock @sb has it. */
int tm_parts_metadata_whole(const struct tm_pool_record *pool, const struct tm_superblock *sb,
			    struct tm_error *err);
/* Bring the record's sizes in line with the metadata's superblock, which is the truth. */
int tm_parts_learn_sizes(struct tm_pool_record *pool, struct tm_error *err);
int tm_parts_start_pool(struct tm_core *core, struct tm_pool_record *pool, struct tm_error *err);
int tm_parts_remove_pool(struct tm_core *core, const struct tm_pool_record *pool,
			 struct tm_error *err);
int tm_parts_detach(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err);
int tm_parts_load_linear(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part,
			 uint64_t bytes, struct tm_error *err);
/*
 * Take more of the devices of a pool into use, and move its mark, by messages that only our target
 * knows: nothing is suspended. Sizes of 0 stay as they are.
 */
int tm_parts_grow_pool(struct tm_core *core, const struct tm_pool_record *pool, uint64_t data_bytes,
		       uint64_t metadata_bytes, uint64_t mark_bytes, struct tm_error *err);
/* Where free metadata lets the kernel speak up, in blocks of 4 KiB; the same. */
int tm_parts_mark_metadata(struct tm_core *core, const struct tm_pool_record *pool, uint64_t blocks,
			   struct tm_error *err);
/*
 * Grow the file of a part to @bytes, and see that the linear device on it is as long: that of
 * metadata exactly, that of data at least, which as a rule it is already.
 */
int tm_parts_lay(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part,
		 uint64_t bytes, struct tm_error *err);
int tm_parts_load_pool(struct tm_core *core, const struct tm_pool_record *pool, uint64_t data_bytes,
		       uint64_t low_water_bytes, struct tm_error *err);
/*
 * Make the pool's loaded table live. Where the kernel refuses it the pool goes on with the one it
 * had, @former; *ret_suspended: not even that, and its volumes stand still until somebody calls
 * tm_parts_let_go.
 */
int tm_parts_switch_pool(struct tm_core *core, const struct tm_pool_record *former,
			 bool *ret_suspended, struct tm_error *err);
/* Resume the pool if it is suspended, with the table it has or that of @pool. */
int tm_parts_let_go(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err);
int tm_parts_status(struct tm_core *core, const char *pool_name, struct tm_thin_pool_status *ret,
		    uint64_t *ret_table_bytes, struct tm_error *err);
/* The status of a pool that is up, and what its file system has free (0: not known): false when
 * it is not up, or cannot be read. */
bool tm_parts_saw(struct tm_core *core, const struct tm_pool_record *pool,
		  struct tm_thin_pool_status *ret, uint64_t *ret_backing_free_bytes);
int tm_parts_activate_volume(struct tm_core *core, const struct tm_pool_record *pool,
			     const struct tm_volume_record *volume, struct tm_error *err);
/* As tm_parts_ours; but gives who only looks at a device (udev does, after each change) a second to
 * close it. */
int tm_parts_unused(struct tm_core *core, const struct tm_pool_record *pool,
		    const struct tm_volume_record *volume, struct tm_dm_info *ret,
		    struct tm_error *err);
int tm_parts_deactivate_volume(struct tm_core *core, const struct tm_pool_record *pool,
			       const struct tm_volume_record *volume, struct tm_error *err);
int tm_parts_load_volume(struct tm_core *core, const struct tm_pool_record *pool,
			 const struct tm_volume_record *volume, uint64_t bytes,
			 struct tm_error *err);
int tm_parts_write_names(const struct tm_pool_record *pool, const struct tm_volume_record *volume,
			 struct tm_error *err);
void tm_parts_forget_names(const struct tm_pool_record *pool,
			   const struct tm_volume_record *volume);
/* set_transaction_id from @from to @to; fine when it is @to already. */
int tm_parts_move_transaction(struct tm_core *core, const struct tm_pool_record *pool,
			      uint64_t from, uint64_t to, struct tm_error *err);
int tm_parts_delete_thin(struct tm_core *core, const struct tm_pool_record *pool, uint32_t dev_id,
			 struct tm_error *err);
/* Is the device with this name ours, by its UUID? 1, 0 (absent), or -EEXIST when it is somebody
 * else's. */
int tm_parts_ours(struct tm_core *core, const struct tm_pool_record *pool, enum tm_dm_role role,
		  const struct tm_volume_record *volume, struct tm_dm_info *ret,
		  struct tm_error *err);
int tm_parts_check_metadata(struct tm_core *core, struct tm_progress *progress,
			    const struct tm_pool_record *pool, struct tm_error *err);
/*
 * A file that says which unfinished pool a directory belongs to: what undoing may delete is
 * decided by it, so that a directory that turned out to be somebody's is left alone.
 */
void tm_parts_claim_path(char buf[TM_PATH_SIZE + 64], const struct tm_pool_record *pool);
/* Delete it; fine when it is not there. */
int tm_parts_drop_claim(const struct tm_pool_record *pool, struct tm_error *err);
/* Write the pool's descriptor from the database, unless it says the same already. */
int tm_parts_write_descriptor(struct tm_core *core, const struct tm_uuid *pool,
			      struct tm_error *err);

/* udev-wait.c: wait until /dev/thinmgr/POOL/VOLUME leads to a device, or is gone. -ETIMEDOUT. */
int tm_udev_wait_link(const char *path, unsigned int major, unsigned int minor,
		      unsigned int limit_ms);
int tm_udev_wait_gone(const char *path, unsigned int limit_ms);

/* flush.c: write out the file system mounted from a device, if one is; bytes dirty in the whole
 * machine. */
void tm_flush_mounted(unsigned int major, unsigned int minor);
uint64_t tm_dirty_bytes(void);

/* tool.c: run a program of the field. */
struct tm_tool_result {
	int status;        /* exit status, or 128 + the signal of a fault of its own, as SIGABRT */
	char output[4096]; /* the beginning of what it printed, both streams */
};
const char *tm_tool_path(const char *name, char *buf,
			 size_t len); /* NULL when it is not installed */
/* Who watches a program run: ended within moments of being cancelled, with CANCELLED. */
struct tm_tool_watch {
	struct tm_progress *progress; /* NULL: nobody */
	/* What it is going to read and write, together, past the page cache; 0: that is not known,
	 * and no progress is told. */
	uint64_t io_bytes;
};
/* @watch: may be NULL. TOOL_FAILED, TIMEOUT, CANCELLED. */
int tm_tool_run(const char *const argv[], unsigned int limit_seconds,
		const struct tm_tool_watch *watch, struct tm_tool_result *ret,
		struct tm_error *err);
/*
 * The same for one that prints more than fits: @fn gets all of its standard output, in pieces, and
 * ends the program by a negative return, which is then that of the call. NULL: as above.
 */
typedef int (*tm_tool_sink_fn)(void *userdata, const char *data, size_t len, struct tm_error *err);
int tm_tool_read(const char *const argv[], unsigned int limit_seconds,
		 const struct tm_tool_watch *watch, tm_tool_sink_fn fn, void *userdata,
		 struct tm_tool_result *ret, struct tm_error *err);

/*
 * metadata-tools.c: thin_check and thin_repair on a file that nothing writes to. @pool is for what
 * is said, @progress for who watches (NULL: nobody). Errors: TOOL_MISSING, TOOL_FAILED (also when
 * somebody killed it), TIMEOUT (it is killed), CANCELLED.
 */
/* Whether both are there and new enough; TOOL_MISSING when not. */
int tm_metadata_tools_ready(struct tm_core *core, const char *pool, struct tm_error *err);
/* 1: clean; 0: not, and @ret has what was said about it. */
int tm_metadata_check(struct tm_core *core, struct tm_progress *progress, const char *path,
		      const char *pool, struct tm_tool_result *ret, struct tm_error *err);
/* Clears needs_check of metadata that is otherwise clean. */
int tm_metadata_clear_flag(struct tm_core *core, struct tm_progress *progress, const char *path,
			   const char *pool, struct tm_error *err);
/*
 * Writes what can be saved of @from to @to, a file that is large enough. @superblock_lost: what
 * only that says comes from the pool's record. DAMAGED: nothing can be saved. An end without an
 * error does not mean that anything was.
 */
int tm_metadata_repair(struct tm_core *core, struct tm_progress *progress,
		       const struct tm_pool_record *pool, const char *from, const char *to,
		       bool superblock_lost, struct tm_error *err);
/* Whether that one is there, too: thin_dump, thin_restore. TOOL_MISSING. */
int tm_metadata_tool_there(const char *name, const char *pool, struct tm_error *err);
/*
 * The metadata snapshot that is held of metadata in use, at @device. 1: nothing is wrong with it,
 * or this thin_check cannot read one (before 1.0); 0: something is, see @ret.
 */
int tm_metadata_check_held(struct tm_core *core, struct tm_progress *progress,
			   const struct tm_pool_record *pool, const char *device,
			   struct tm_tool_result *ret, struct tm_error *err);
/*
 * What thin_dump says of the metadata at @path, or of the snapshot that is @held of it, to @fn. 1:
 * that was all; 0: it could not read it, see @ret.
 */
int tm_metadata_dump(struct tm_core *core, struct tm_progress *progress,
		     const struct tm_pool_record *pool, const char *path, bool held,
		     tm_tool_sink_fn fn, void *userdata, struct tm_tool_result *ret,
		     struct tm_error *err);
/* Makes metadata of a dump, in a file that is large enough. DAMAGED: none can be made of it. */
int tm_metadata_restore(struct tm_core *core, struct tm_progress *progress,
			const struct tm_pool_record *pool, const char *from, const char *to,
			struct tm_error *err);

/* system.c */
int tm_system_probe(struct tm_core *core, struct tm_error *err);
/*
 * A pool is about to be given its table: load the module of the target where there is none, as at
 * the start. The kernel would, too, but it knows only the distribution's. Any thread; may block.
 */
void tm_system_want_target(struct tm_core *core);
/*
 * Which target it is that pools have: tell the main loop, which publishes it when it is another
 * than before. To be called once a pool has its table: as long as it has, no other can take its
 * place. What follows in the mailbox finds it in core->system. Any thread.
 */
void tm_system_target_taken(struct tm_core *core);
/* The same at once, on the main loop. */
void tm_system_look_again(struct tm_core *core);
int tm_system_no_space_timeout(void);

/* core.c: a pool came up or its policy changed: the sample timer may sleep too long. */
void tm_core_sample_soon(struct tm_core *core);

/* startup.c: pools that have to be brought up come up in the background, once the loop runs */
int tm_core_restore(struct tm_core *core, struct tm_error *err);
/* Tell, once, that the start is over. */
void tm_core_now_ready(struct tm_core *core);

/* fault.c */
void tm_fault_read(struct tm_fault *fault, const char *text);
int tm_fault_hit(const struct tm_core *core, const char *kind, const char *step, bool after,
		 struct tm_error *err);

void tm_device_path(char buf[TM_PATH_SIZE], const char *pool, const char *volume);

#endif
