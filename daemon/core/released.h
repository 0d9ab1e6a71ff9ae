/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a repair took off a pool's volumes, and owes to who used them: mounts and swap. Written to a
 * file in /run before the first is touched, and gone from there when all was given back: it lives
 * exactly as long as what it tells of. A restart of thinmgrd finds it; after one of the machine
 * there is nothing to give back.
 */
#ifndef TM_CORE_RELEASED_H
#define TM_CORE_RELEASED_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/name.h"
#include "host/release.h"
#include "logic/model.h"
#include "logic/repair-verdict.h"

/* How long one unmount, unit or swapoff may take. */
#define TM_RELEASE_LIMIT_SECONDS 30

struct tm_holding;

struct tm_released {
	struct tm_uuid volume;
	char *text;      /* for people: "home is mounted at /home"; owned */
	char leave[192]; /* why it is not to be given back after all; "" */
	struct tm_release release;
};

/* In the order of tm_holders: a mount after what it lies in, swap last. */
struct tm_released_list {
	struct tm_released *list;
	size_t n;
	bool repaired; /* the repair is done: what fails now is not tried again */
};
void tm_released_done(struct tm_released_list *l);

/*
 * Plan to have all of @holding let go, and put it at the list's end. Nothing is touched. Errors:
 * BUSY when one of them cannot be given back, naming all of those, or NO_MEMORY.
 */
int tm_released_plan(const struct tm_holding *holding, const char *pool,
		     const struct tm_volume_record *volumes, size_t n_volumes,
		     struct tm_released_list *l, struct tm_error *err);

/* Have all let go. Errors: BUSY, with what is in the way; some may have let go by then. */
int tm_released_take(const struct tm_released_list *l, const char *pool, struct tm_error *err);

/*
 * Give all back, on devices of the same volumes, which have to be active; with @heed but for what
 * is to be left. What was given back leaves the list. *ret_off becomes an array of objects with
 * text and reason of what is left in it, *ret_back one of texts; new references, or NULL when out
 * of memory. Returns how many could not be given back; @err says why of the first.
 */
size_t tm_released_give_back(struct tm_released_list *l, const char *pool,
			     const struct tm_volume_record *volumes, size_t n_volumes, bool heed,
			     json_t **ret_back, json_t **ret_off, struct tm_error *err);

/* What was taken off volumes that lost something, by the verdict on them, is to be left. */
void tm_released_judge(struct tm_released_list *l, const struct tm_volume_record *volumes,
		       size_t n_volumes, const struct tm_repair_verdict *verdict);
/* Nothing is to be left any more: as before the repair. */
void tm_released_leave_nothing(struct tm_released_list *l);

/* New reference, or NULL when out of memory. The reverse: 0 with *ret, or a negative errno. */
json_t *tm_released_to_json(const struct tm_released_list *l);
int tm_released_from_json(json_t *object, struct tm_released_list *ret, struct tm_error *err);

/* The file of a pool. */
void tm_released_path(char buf[TM_PATH_SIZE], const struct tm_uuid *pool);
/* 0 with *ret, empty when there is no file; -EIO when it cannot be read. */
int tm_released_load(const char *path, struct tm_released_list *ret, struct tm_error *err);
/* An empty list has no file. 0 or a negative errno. */
int tm_released_save(const char *path, const struct tm_released_list *l, struct tm_error *err);

#endif
