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
#include "dm/dm.h"
#include "logic/extend.h"
#include "logic/kernel-events.h"
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
	bool active; /* has a device */
	bool mapped_valid;
	uint64_t mapped_bytes;
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
	bool sample_due; /* the next look is a sample, too */
	bool raising;    /* being brought up at the daemon's start: its queue waits */
	struct tm_op *running;
	struct tm_queued_op *queue;
	sd_event_source *retry_timer;
	uint64_t close_look_usec; /* how long the last wait for a look near the mark was */

	struct tm_kernel_ring ring; /* what is known of the events that our target keeps */
	bool ring_off;              /* it does not answer, or not so that it is understood */
	unsigned int modes_seen;    /* by tm_pool_saw since the last look: bits 1 << mode */

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
	sd_event_source *late_timer; /* are there looks that hang? */
	size_t n_looking;
	uint64_t rolled_up_usec;        /* monotonic */
	struct tm_pool_sample *samples; /* collected, to be recorded together */
	size_t n_samples, sample_looks; /* looks that will still add one */

	struct tm_record *unrecorded, *unrecorded_last; /* of this turn of the loop */
	sd_event_source *record_source;

	struct tm_waiter *waiters;
	struct tm_listener *listeners;
	void (*on_view)(void *userdata);
	void *on_view_userdata;

	struct tm_system_view system;
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
void tm_record_descriptor(struct tm_core *core,
			  const struct tm_pool *pool); /* if it is out of date */
void tm_record_samples(struct tm_core *core, struct tm_pool_sample *samples, size_t n); /* taken */
void tm_record_rollup(struct tm_core *core);
/* Hand over to the recorder what is still waiting for the turn of the main loop to end. */
void tm_record_flush(struct tm_core *core);

/* look.c, arm.c: extension */
void tm_pool_look(struct tm_pool *pool,
		  uint64_t seen_usec); /* seen_usec: when the event was seen; 0: no event */
/* Take a status read elsewhere, while no look was under way, and tell what changed. */
void tm_pool_saw(struct tm_pool *pool, const struct tm_thin_pool_status *status,
		 uint64_t backing_free_bytes);
void tm_pool_arm(struct tm_pool *pool);
/* Whether there was an arming that had not begun: it is no more, and a look may go first. */
bool tm_pool_call_off_arm(struct tm_pool *pool);

/* ring.c: what our target remembers beyond its status */
struct tm_ring_answer {
	bool asked, valid;
	struct tm_error error;
	struct tm_kernel_events events;
};
/* Ask for what came after event @since. Any thread. */
void tm_ring_ask(struct tm_core *core, const char *pool_name, uint64_t since,
		 struct tm_ring_answer *ret);
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
/* Bring the model in line with what devices there are. */
void tm_pool_observe(struct tm_pool *pool);

/* parts.c: what several operations do with a pool's devices; any thread */
int tm_parts_attach(struct tm_core *core, struct tm_pool_record *pool, bool *ret_direct_io,
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
/* Grow the file of a part and load the linear device on it, @bytes long, both. */
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
int tm_parts_check_metadata(struct tm_core *core, const struct tm_pool_record *pool,
			    struct tm_error *err);
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
	int status;        /* exit status, or 128 + signal */
	char output[4096]; /* the beginning of what it printed, both streams */
};
const char *tm_tool_path(const char *name, char *buf,
			 size_t len); /* NULL when it is not installed */
int tm_tool_run(const char *const argv[], unsigned int limit_seconds, struct tm_tool_result *ret,
		struct tm_error *err);

/* system.c */
int tm_system_probe(struct tm_core *core, struct tm_error *err);
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
