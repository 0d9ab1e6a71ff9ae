/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a pool's metadata maps, read from its blocks without asking any tool: so that damage is
 * known before a repair, and its result is judged by what it maps and not by an exit status.
 *
 * Read only, of format version 2. Nothing that is read is trusted: a node counts only where its
 * checksum, its own number, its numbers of entries, its keys and its place in the tree are right.
 * What hangs below one that is not cannot be seen, so counts are lower bounds where anything is
 * damaged, and exact where nothing is. The space maps are not looked at: a survey finds what is
 * mapped, and not whether blocks are counted right, which is thin_check's.
 *
 * Snapshots share nodes. Each node is read once, however many devices lead to it (once more where
 * the upper trees, or ranges, are listed), and what was found below is kept: 50 to 90 bytes for
 * each node of 4 KiB, nothing for a mapping. Neither loops nor nodes that refer to one another over
 * and over take longer than that: at most one read for each block of the device.
 */
#ifndef TM_LOGIC_THIN_SURVEY_H
#define TM_LOGIC_THIN_SURVEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logic/superblock.h"

#define TM_SURVEY_BLOCK 4096
/* Most devices that are listed; what a pool is used for ends far below it. */
#define TM_SURVEY_DEVICES_MAX ((size_t)1 << 18)

struct tm_survey_source {
	/*
	 * Reads TM_SURVEY_BLOCK bytes. 0 or -errno: the block counts as damaged, and the survey
	 * goes on, except after -ECANCELED, which ends it. Only asked for blocks below @blocks.
	 */
	int (*read)(void *userdata, uint64_t block, void *buf);
	void *userdata;
	uint64_t blocks; /* size of the device or file */
	/*
	 * Survey the metadata snapshot the pool holds instead of the present: the one thing of a
	 * pool in use that stays as it is.
	 */
	bool held;
};

/* Why something was not counted. */
enum tm_survey_damage {
	TM_SURVEY_READ,     /* the block could not be read */
	TM_SURVEY_CHECKSUM, /* it holds something else than what was written as a node */
	TM_SURVEY_LOCATION, /* it is another block's content */
	TM_SURVEY_LAYOUT,   /* it is no node of this tree: flags, sizes, numbers of entries */
	TM_SURVEY_ORDER,    /* keys do not ascend, are none at all, or do not belong there */
	TM_SURVEY_BEYOND,   /* it would lie outside of the metadata device */
	TM_SURVEY_LOOP,     /* it is above itself */
	TM_SURVEY_DEPTH,    /* it lies deeper than the kernel follows */
	TM_SURVEY_FOREIGN,  /* it is part of another kind of tree */
	TM_SURVEY_DATA,     /* a mapping to outside of the data device */
	TM_SURVEY_DAMAGE_COUNT,
};

/* For people: "with a wrong checksum", to follow "3 nodes" or "a node" (TM_SURVEY_DATA: mappings).
 */
const char *tm_survey_damage_text(enum tm_survey_damage damage);

struct tm_survey_tree {
	uint64_t root;      /* block */
	bool readable;      /* the root itself; otherwise nothing of it was found */
	uint64_t entries;   /* found */
	uint64_t bad_nodes; /* could not be read, with all below them: entries is a lower bound */
};

struct tm_survey_device {
	uint32_t dev_id;
	bool root_found;       /* the upper mapping tree has it; otherwise nothing was counted */
	uint64_t root;         /* block */
	uint64_t mapped;       /* blocks, counted; exact without bad_nodes and bad_mappings */
	uint64_t bad_nodes;    /* could not be read, with all below them; at most 2^32 - 1 */
	uint64_t bad_mappings; /* to outside of the data device; not counted as mapped */
	/*
	 * Of what is mapped, and to where: equal mappings have equal digests, others by chance
	 * only. Which snapshot a mapping is older than has no part in it.
	 */
	uint64_t digest;
	bool details_found; /* the following is known */
	uint64_t details_mapped;
	uint64_t transaction_id;
	uint32_t creation_time, snapshotted_time;
};

struct tm_survey_nodes;

struct tm_survey {
	/* 0, or why nothing else is known: of tm_superblock_parse or of the read; -ENODATA: held
	   was asked for, and there is none. */
	int superblock_error;
	struct tm_superblock superblock; /* sizes and use of the present, also with held */
	uint64_t blocks;                 /* size of the device; a pool may say that it has more */
	struct tm_survey_tree mappings;  /* upper tree: its entries are devices */
	struct tm_survey_tree details;
	size_t n_devices;
	struct tm_survey_device *devices;        /* in either tree, by ascending dev_id */
	bool truncated;                          /* there are more than TM_SURVEY_DEVICES_MAX */
	uint64_t mapped;                         /* sum of all devices */
	uint64_t nodes_read;                     /* different ones */
	uint64_t damage[TM_SURVEY_DAMAGE_COUNT]; /* found, each once however often it is shared */
	struct tm_survey_nodes *nodes;           /* what was found, for tm_survey_ranges */
};

/*
 * 0, also where all is damaged; -ENOMEM or -ECANCELED with nothing in *ret to be freed. Otherwise
 * free with tm_survey_done, which takes one that is all zero as well.
 */
int tm_survey_run(const struct tm_survey_source *source, struct tm_survey *ret);
void tm_survey_done(struct tm_survey *s);

/* NULL: there is none. */
const struct tm_survey_device *tm_survey_find(const struct tm_survey *s, uint32_t dev_id);

/* Nothing of it is missing or damaged: what is counted is all there is. */
bool tm_survey_device_sound(const struct tm_survey_device *d);

/*
 * The same of everything, with details that agree with what was counted, on a device that is not
 * smaller than the pool takes it to be (the kernel refuses that): metadata to be trusted.
 */
bool tm_survey_sound(const struct tm_survey *s);

/*
 * Everything that was counted of a device, in order: runs of blocks that follow each other here and
 * in the data device, as long as they can be. Another answer than 0 of the callback ends it. 0,
 * that answer, -ENODATA (no such device), -ENOMEM, -ECANCELED (source), or -ESTALE: a block reads
 * differently now, so that what was told is not what was counted.
 */
typedef int (*tm_survey_range_fn)(void *userdata, uint32_t dev_id, uint64_t first_block,
				  uint64_t data_block, uint64_t count);
int tm_survey_ranges(const struct tm_survey *s, const struct tm_survey_source *source,
		     uint32_t dev_id, tm_survey_range_fn range, void *userdata);

#endif
