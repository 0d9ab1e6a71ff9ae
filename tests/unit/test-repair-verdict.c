// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "logic/repair-verdict.h"
#include "skip.h"
#include "thin-image.h"
#include "thin-tools.h"

#define BLOCK (64 * TM_KIB)

/* ---- surveys by hand --------------------------------------------------------------------- */

#define NO_DETAILS UINT64_MAX

struct dev {
	uint32_t id; /* 0: the list ends */
	uint64_t mapped;
	uint64_t details; /* NO_DETAILS, or its count there */
	uint64_t bad_nodes, bad_mappings;
	bool no_root;
	uint64_t digest; /* 0: that of its number of blocks */
};

/* What is wrong with all of a survey. */
enum state { GOOD, NO_SUPERBLOCK, NO_ROOTS, SOME_ROOTS, LOST_DETAILS, SOME_DETAILS };

#define N 4

static void make_survey(struct tm_survey *s, enum state state, const struct dev *devs,
			struct tm_survey_device *room)
{
	size_t i;

	*s = (struct tm_survey){
		.superblock = { .block_sectors = 128, .data_blocks = 1 << 20, .data_used = 100 },
		.mappings = { .readable = state != NO_ROOTS,
			      .bad_nodes = state == NO_ROOTS || state == SOME_ROOTS },
		.details = { .readable = state != LOST_DETAILS,
			     .bad_nodes = state == LOST_DETAILS || state == SOME_DETAILS },
		.devices = room,
	};
	if (state == NO_SUPERBLOCK) {
		*s = (struct tm_survey){ .superblock_error = -EBADMSG };
		return;
	}
	if (state != GOOD)
		s->damage[TM_SURVEY_CHECKSUM] = 1;
	for (i = 0; i < N && devs[i].id; i++) {
		const struct dev *d = &devs[i];

		room[i] = (struct tm_survey_device){
			.dev_id = d->id,
			.root_found = !d->no_root,
			.mapped = d->mapped,
			.bad_nodes = d->bad_nodes,
			.bad_mappings = d->bad_mappings,
			.digest = d->digest ? d->digest : d->mapped * 1000003 + d->id,
			.details_found = d->details != NO_DETAILS,
			.details_mapped = d->details == NO_DETAILS ? 0 : d->details,
		};
		s->mapped += d->mapped;
		s->damage[TM_SURVEY_CHECKSUM] += d->bad_nodes;
		s->damage[TM_SURVEY_DATA] += d->bad_mappings;
		s->n_devices++;
	}
}

/* ---- the table --------------------------------------------------------------------------- */

struct known {
	uint32_t id;     /* 0: the list ends */
	int64_t blocks;  /* last known; -1: unknown */
	uint64_t copied; /* in the newest safety copy; 0: in none */
};

struct line {
	uint32_t id;
	enum tm_fate fate;
	enum tm_evidence evidence;
	uint64_t lost;
	bool unexplained;
};

struct verdict_case {
	const char *name;
	enum state before_state;
	struct dev before[N];
	enum state after_state;
	struct dev after[N];
	struct known volumes[N];
	enum tm_verdict verdict;
	enum tm_refusal refusal;
	struct line lines[N];
	const char *text; /* part of the verdict's, or NULL */
};

#define WHOLE(id, n)     \
	{                \
		id, n, n \
	}
#define DAMAGED(id, n, m)   \
	{                   \
		id, n, m, 1 \
	}

#define ACCEPT     TM_VERDICT_ACCEPT, TM_REFUSAL_NONE
#define LOSSES     TM_VERDICT_ACCEPT_LOSSES, TM_REFUSAL_NONE
#define REFUSE(r)  TM_VERDICT_REFUSE, TM_REFUSAL_##r
#define INTACT     TM_FATE_INTACT
#define LOST       TM_FATE_LOST
#define BLOCKS     TM_FATE_LOST_BLOCKS
#define CHANGED    TM_FATE_CHANGED
#define UNKNOWN    TM_FATE_UNKNOWN
#define COUNTED    TM_EVIDENCE_COUNTED
#define DETAILS    TM_EVIDENCE_DETAILS
#define LAST_KNOWN TM_EVIDENCE_LAST_KNOWN
#define PART       TM_EVIDENCE_PART
#define COPY       TM_EVIDENCE_COPY
#define NOTHING    TM_EVIDENCE_NONE

static const struct verdict_case cases[] = {
	/* Nothing was damaged but space maps, or the flag: all has to be as it was. */
	{ "all as it was",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 50) },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 50) },
	  { { 1, 90 }, { 2, -1 } },
	  ACCEPT,
	  { { 1, INTACT, COUNTED }, { 2, INTACT, COUNTED } },
	  "nothing was lost: 9.4 MiB is mapped" },
	{ "what is counted goes before what was last known",
	  GOOD,
	  { WHOLE(1, 10) },
	  GOOD,
	  { WHOLE(1, 10) },
	  { { 1, 100 } },
	  ACCEPT,
	  { { 1, INTACT, COUNTED } },
	  "nothing was lost" },
	{ "a pool without volumes",
	  GOOD,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 0 } },
	  ACCEPT,
	  { { 0 } },
	  NULL },
	{ "an empty volume",
	  GOOD,
	  { WHOLE(1, 0) },
	  GOOD,
	  { WHOLE(1, 0) },
	  { { 1, -1 } },
	  ACCEPT,
	  { { 1, INTACT, COUNTED } },
	  "0 B is mapped" },
	{ "readable, but lost a block",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 50) },
	  GOOD,
	  { WHOLE(1, 99), WHOLE(2, 50) },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, BLOCKS, COUNTED, 1, true }, { 2, INTACT, COUNTED } },
	  "of 1 of 2 volumes" },
	{ "readable, but gone",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 5) },
	  GOOD,
	  { WHOLE(1, 100) },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, INTACT, COUNTED }, { 2, LOST, COUNTED, 5, true } },
	  NULL },
	{ "readable and empty, but gone",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 0) },
	  GOOD,
	  { WHOLE(1, 100) },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, INTACT, COUNTED }, { 2, LOST, COUNTED, 0, true } },
	  NULL },
	{ "as much, but elsewhere",
	  GOOD,
	  { WHOLE(1, 100) },
	  GOOD,
	  { { .id = 1, .mapped = 100, .details = 100, .digest = 7 } },
	  { { 1, 100 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, CHANGED, COUNTED, 0, true } },
	  NULL },
	{ "more than there was",
	  GOOD,
	  { WHOLE(1, 100) },
	  GOOD,
	  { WHOLE(1, 101) },
	  { { 1, -1 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, CHANGED, COUNTED, 0, true } },
	  NULL },
	{ "one that was not there",
	  GOOD,
	  { WHOLE(1, 100) },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 3) },
	  { { 1, -1 }, { 2, 3 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, INTACT, COUNTED }, { 2, CHANGED, COUNTED, 0, true } },
	  NULL },
	{ "missing before already",
	  GOOD,
	  { WHOLE(1, 100) },
	  GOOD,
	  { WHOLE(1, 100) },
	  { { 1, -1 }, { 2, 70 } },
	  LOSSES,
	  { { 1, INTACT, COUNTED }, { 2, LOST, COUNTED } },
	  "1 of 2 volumes are missing" },
	{ "one that nobody recorded",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(9, 4) },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(9, 4) },
	  { { 1, -1 } },
	  ACCEPT,
	  { { 1, INTACT, COUNTED }, { 9, INTACT, COUNTED } },
	  NULL },

	/* A node of a volume. */
	{ "a leaf is lost",
	  GOOD,
	  { DAMAGED(1, 90, 100), WHOLE(2, 50) },
	  GOOD,
	  { WHOLE(1, 90), WHOLE(2, 50) },
	  { { 1, 100 }, { 2, 50 } },
	  LOSSES,
	  { { 1, BLOCKS, DETAILS, 10 }, { 2, INTACT, COUNTED } },
	  "640 KiB of the 9.4 MiB that was mapped is lost, 1 of 2 volumes" },
	{ "the tool found what we did not",
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  GOOD,
	  { WHOLE(1, 100) },
	  { { 1, 100 } },
	  ACCEPT,
	  { { 1, INTACT, DETAILS } },
	  NULL },
	{ "the tool found a part of it",
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  GOOD,
	  { WHOLE(1, 95) },
	  { { 1, 100 } },
	  LOSSES,
	  { { 1, BLOCKS, DETAILS, 5 } },
	  NULL },
	{ "the tool found more than there was",
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  GOOD,
	  { WHOLE(1, 120) },
	  { { 1, 100 } },
	  LOSSES,
	  { { 1, UNKNOWN, DETAILS } },
	  NULL },
	{ "and more than a leaf",
	  GOOD,
	  { DAMAGED(1, 90, 100), WHOLE(2, 50) },
	  GOOD,
	  { WHOLE(1, 80), WHOLE(2, 50) },
	  { { 1, 100 }, { 2, 50 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, BLOCKS, DETAILS, 20, true }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "a leaf, and what is left is elsewhere",
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  GOOD,
	  { { .id = 1, .mapped = 90, .details = 90, .digest = 7 } },
	  { { 1, 100 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, CHANGED, DETAILS, 10, true } },
	  NULL },
	{ "a leaf, and the volume with it",
	  GOOD,
	  { DAMAGED(1, 90, 100), WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, 100 }, { 2, 50 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, LOST, DETAILS, 100, true }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "a volume's root",
	  GOOD,
	  { DAMAGED(1, 0, 100), WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  LOSSES,
	  { { 1, LOST, DETAILS, 100 }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "a volume's root, and it is empty now",
	  GOOD,
	  { DAMAGED(1, 0, 100), WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(1, 0), WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  LOSSES,
	  { { 1, BLOCKS, DETAILS, 100 }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "the larger volume's root",
	  GOOD,
	  { DAMAGED(1, 0, 501), WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(TOO_MUCH),
	  { { 1, LOST, DETAILS, 501 }, { 2, INTACT, COUNTED } },
	  "31.3 MiB of the 62.6 MiB" },
	{ "exactly half",
	  GOOD,
	  { DAMAGED(1, 0, 500), WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  LOSSES,
	  { { 1, LOST, DETAILS, 500 }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "mappings to outside are no blocks",
	  GOOD,
	  { { .id = 1, .mapped = 98, .details = 100, .bad_mappings = 2 } },
	  GOOD,
	  { WHOLE(1, 98) },
	  { { 1, -1 } },
	  LOSSES,
	  { { 1, BLOCKS, DETAILS, 2 } },
	  NULL },

	/* The empty result, with exit status 0. */
	{ "all empty",
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 50) },
	  GOOD,
	  { { 0 } },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, COUNTED, 100, true }, { 2, LOST, COUNTED, 50, true } },
	  "maps nothing, where 9.4 MiB was mapped before" },
	{ "all roots lost, and empty",
	  NO_ROOTS,
	  { { .id = 1, .details = 100, .no_root = true } },
	  GOOD,
	  { { 0 } },
	  { { 1, 90 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, DETAILS, 100 } },
	  NULL },
	{ "nothing known but the record",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 1, -1 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, NOTHING } },
	  "nothing says that nothing was mapped" },
	{ "last known",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 1, 100 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, LAST_KNOWN, 100 } },
	  "6.3 MiB" },
	{ "last known to be empty",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 0) },
	  { { 1, 0 } },
	  ACCEPT,
	  { { 1, INTACT, LAST_KNOWN } },
	  NULL },
	{ "devices without blocks are empty, too",
	  GOOD,
	  { DAMAGED(1, 0, 100) },
	  GOOD,
	  { WHOLE(1, 0) },
	  { { 1, -1 } },
	  REFUSE(EMPTY),
	  { { 1, BLOCKS, DETAILS, 100 } },
	  NULL },
	{ "a damaged volume of unknown size",
	  SOME_DETAILS,
	  { { 1, 0, NO_DETAILS, 1 } },
	  GOOD,
	  { WHOLE(1, 0) },
	  { { 1, -1 } },
	  REFUSE(EMPTY),
	  { { 1, UNKNOWN, PART } },
	  NULL },
	{ "no volumes recorded, none found, but data in use",
	  NO_ROOTS,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 0 } },
	  REFUSE(EMPTY),
	  { { 0 } },
	  NULL },
	{ "no superblock, no volumes",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 0 } },
	  ACCEPT,
	  { { 0 } },
	  NULL },

	/* The upper trees. */
	{ "all roots, found again",
	  NO_ROOTS,
	  { { .id = 1, .details = 100, .no_root = true },
	    { .id = 2, .details = 50, .no_root = true } },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 50) },
	  { { 1, -1 }, { 2, -1 } },
	  ACCEPT,
	  { { 1, INTACT, DETAILS }, { 2, INTACT, DETAILS } },
	  "nothing was lost" },
	{ "some roots",
	  SOME_ROOTS,
	  { { .id = 1, .details = 100, .no_root = true }, WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  LOSSES,
	  { { 1, LOST, DETAILS, 100 }, { 2, INTACT, COUNTED } },
	  NULL },
	{ "details, and what they were of",
	  LOST_DETAILS,
	  { { 1, 100, NO_DETAILS }, { 2, 50, NO_DETAILS } },
	  GOOD,
	  { { 0 } },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, COUNTED, 100, true }, { 2, LOST, COUNTED, 50, true } },
	  NULL },
	{ "details, found again",
	  LOST_DETAILS,
	  { { 1, 100, NO_DETAILS } },
	  GOOD,
	  { WHOLE(1, 100) },
	  { { 1, -1 } },
	  ACCEPT,
	  { { 1, INTACT, COUNTED } },
	  NULL },
	{ "a damaged volume without details, last known",
	  SOME_DETAILS,
	  { { 1, 60, NO_DETAILS, 2 } },
	  GOOD,
	  { WHOLE(1, 60) },
	  { { 1, 100 } },
	  LOSSES,
	  { { 1, BLOCKS, LAST_KNOWN, 40 } },
	  NULL },
	{ "what can be counted may be more than was last known",
	  SOME_DETAILS,
	  { { 1, 60, NO_DETAILS, 2 } },
	  GOOD,
	  { WHOLE(1, 60) },
	  { { 1, 10 } },
	  ACCEPT,
	  { { 1, INTACT, LAST_KNOWN } },
	  "of what was last known" },
	{ "a damaged volume without details",
	  SOME_DETAILS,
	  { { 1, 60, NO_DETAILS, 2 } },
	  GOOD,
	  { WHOLE(1, 60) },
	  { { 1, -1 } },
	  LOSSES,
	  { { 1, UNKNOWN, PART } },
	  "of 1 of 1 volumes it is not known" },
	{ "a damaged volume without details, gone",
	  SOME_DETAILS,
	  { { 1, 60, NO_DETAILS, 2 }, WHOLE(2, 500) },
	  GOOD,
	  { WHOLE(2, 500) },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(UNEXPLAINED),
	  { { 1, LOST, PART, 60, true }, { 2, INTACT, COUNTED } },
	  NULL },

	/* No superblock: nothing but what was last known. */
	{ "as last known",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 60) },
	  { { 1, 100 }, { 2, 50 } },
	  ACCEPT,
	  { { 1, INTACT, LAST_KNOWN }, { 2, INTACT, LAST_KNOWN } },
	  "nothing is missing of what was last known" },
	{ "less than last known",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 99) },
	  { { 1, 100 } },
	  LOSSES,
	  { { 1, BLOCKS, LAST_KNOWN, 1 } },
	  NULL },
	{ "much less than last known",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 49) },
	  { { 1, 100 } },
	  REFUSE(TOO_MUCH),
	  { { 1, BLOCKS, LAST_KNOWN, 51 } },
	  NULL },
	/* A copy shows what there was, and that by then: it makes nothing intact, and forbids
	   little. */
	{ "as the copy has it",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 100), WHOLE(2, 60) },
	  { { 1, -1, 100 }, { 2, -1, 50 } },
	  LOSSES,
	  { { 1, UNKNOWN, COPY }, { 2, UNKNOWN, COPY } },
	  "it is not known" },
	{ "much less than the copy has, perhaps discarded since",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 40), WHOLE(2, 50) },
	  { { 1, -1, 100 }, { 2, 50 } },
	  LOSSES,
	  { { 1, BLOCKS, COPY, 60 }, { 2, INTACT, LAST_KNOWN } },
	  NULL },
	{ "much less than was last known, whatever a copy has",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 1000), WHOLE(2, 20) },
	  { { 1, -1, 1000 }, { 2, 50, 20 } },
	  REFUSE(TOO_MUCH),
	  { { 1, UNKNOWN, COPY }, { 2, BLOCKS, LAST_KNOWN, 30 } },
	  NULL },
	{ "nothing, where the copy has something",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { { 0 } },
	  { { 1, -1, 100 } },
	  REFUSE(EMPTY),
	  { { 1, LOST, COPY, 100 } },
	  "it maps nothing" },
	{ "the copy is not asked about what can be read in part",
	  GOOD,
	  { { 1, 60, NO_DETAILS, 1 } },
	  GOOD,
	  { WHOLE(1, 70) },
	  { { 1, -1, 65 } },
	  LOSSES,
	  { { 1, UNKNOWN, PART } },
	  NULL },
	{ "something, and nothing known",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { WHOLE(1, 10), WHOLE(5, 3) },
	  { { 1, -1 }, { 2, -1 } },
	  LOSSES,
	  { { 1, UNKNOWN, NOTHING }, { 2, LOST, NOTHING }, { 5, UNKNOWN, NOTHING } },
	  "1 of 3 volumes are missing" },

	/* Results that are none. */
	{ "no superblock after",
	  GOOD,
	  { WHOLE(1, 100) },
	  NO_SUPERBLOCK,
	  { { 0 } },
	  { { 1, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, LOST, COUNTED, 100, true } },
	  "superblock cannot be read" },
	{ "a damaged volume after",
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  GOOD,
	  { DAMAGED(1, 90, 100) },
	  { { 1, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, BLOCKS, DETAILS, 10 } },
	  "it has 1 node with a wrong checksum" },
	{ "roots damaged after",
	  GOOD,
	  { WHOLE(1, 100) },
	  SOME_ROOTS,
	  { WHOLE(1, 100) },
	  { { 1, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, INTACT, COUNTED } },
	  NULL },
	{ "details damaged after",
	  GOOD,
	  { WHOLE(1, 100) },
	  SOME_DETAILS,
	  { WHOLE(1, 100) },
	  { { 1, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, INTACT, COUNTED } },
	  NULL },
	{ "details that count otherwise after",
	  GOOD,
	  { WHOLE(1, 100) },
	  GOOD,
	  { { 1, 100, 99 } },
	  { { 1, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, INTACT, COUNTED } },
	  "say different things" },
	{ "a device without a tree after",
	  GOOD,
	  { WHOLE(1, 100), DAMAGED(2, 0, 7) },
	  GOOD,
	  { WHOLE(1, 100), { .id = 2, .details = 7, .no_root = true } },
	  { { 1, -1 }, { 2, -1 } },
	  REFUSE(UNSOUND),
	  { { 1, INTACT, COUNTED }, { 2, LOST, DETAILS, 7 } },
	  NULL },
	{ "mappings to outside after",
	  NO_SUPERBLOCK,
	  { { 0 } },
	  GOOD,
	  { { .id = 1, .mapped = 98, .details = 98, .bad_mappings = 2 } },
	  { { 1, 98 } },
	  REFUSE(UNSOUND),
	  { { 1, INTACT, LAST_KNOWN } },
	  "2 mappings to outside" },
};

static size_t count_volumes(const struct known *k, struct tm_verdict_volume *volumes)
{
	static const char *const names[] = { "root", "db", "spare", "cache" };
	size_t n;

	for (n = 0; n < N && k[n].id; n++)
		volumes[n] = (struct tm_verdict_volume){
			.dev_id = k[n].id,
			.name = names[n],
			.size_bytes = TM_GIB,
			.last_known = k[n].blocks >= 0,
			.last_mapped_bytes = k[n].blocks >= 0 ? (uint64_t)k[n].blocks * BLOCK : 0,
			.copied = k[n].copied > 0,
			.copied_bytes = k[n].copied * BLOCK,
		};
	return n;
}

static void check_lines(const struct verdict_case *c, const struct tm_repair_verdict *v)
{
	uint64_t lost = 0;
	size_t i;

	for (i = 0; i < v->n_lines; i++) {
		const struct tm_verdict_line *l = &v->lines[i];
		const struct line *want = &c->lines[i];

		if (i >= N || l->dev_id != want->id || l->fate != want->fate ||
		    l->evidence != want->evidence || l->lost_blocks != want->lost ||
		    l->unexplained != want->unexplained)
			fail_msg("%s: %s (%s, evidence %d, lost %" PRIu64 ", %sexplained)", c->name,
				 l->text, tm_fate_name(l->fate), (int)l->evidence, l->lost_blocks,
				 l->unexplained ? "un" : "");
		lost += l->lost_blocks;
		assert_true(strlen(l->text) > 20 && strlen(l->text) < sizeof(l->text) - 1);
		assert_non_null(strstr(l->text, l->name ? l->name : "no record"));
	}
	if (v->n_lines < N)
		assert_int_equal(c->lines[v->n_lines].id, 0);
	assert_int_equal(v->lost_blocks, lost);
}

static void test_table(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct verdict_case *c = &cases[i];
		struct tm_survey_device before_room[N], after_room[N];
		struct tm_verdict_volume volumes[N];
		struct tm_survey before, after;
		struct tm_verdict_input in = {
			.before = &before, .after = &after, .block_bytes = BLOCK, .volumes = volumes
		};
		struct tm_repair_verdict v;

		make_survey(&before, c->before_state, c->before, before_room);
		make_survey(&after, c->after_state, c->after, after_room);
		in.n_volumes = count_volumes(c->volumes, volumes);
		assert_int_equal(tm_repair_judge(&in, &v), 0);
		check_lines(c, &v);
		if (v.verdict != c->verdict || v.refusal != c->refusal ||
		    (c->text && !strstr(v.text, c->text)))
			fail_msg("%s: %s, refusal %d: %s", c->name, tm_verdict_name(v.verdict),
				 (int)v.refusal, v.text);
		assert_true(strlen(v.text) > 20 && strlen(v.text) < sizeof(v.text) - 1);
		tm_repair_verdict_done(&v);
	}
}

/* ---- the rest ---------------------------------------------------------------------------- */

static void judge(struct tm_survey *before, struct tm_survey *after, uint32_t block_bytes,
		  const struct known *known, struct tm_repair_verdict *v)
{
	static struct tm_verdict_volume volumes[N];
	struct tm_verdict_input in = {
		.before = before, .after = after, .block_bytes = block_bytes, .volumes = volumes
	};

	in.n_volumes = count_volumes(known, volumes);
	assert_int_equal(tm_repair_judge(&in, v), 0);
}

static void test_block_size(void **state)
{
	static const struct dev devs[N] = { WHOLE(1, 100) };
	struct tm_survey_device before_room[N], after_room[N];
	struct known known[N] = { { 1, -1 } };
	struct tm_survey before, after;
	struct tm_repair_verdict v;

	(void)state;
	make_survey(&before, NO_SUPERBLOCK, devs, before_room);
	make_survey(&after, GOOD, devs, after_room);
	judge(&before, &after, 2 * BLOCK, known, &v);
	assert_int_equal(v.verdict, TM_VERDICT_REFUSE);
	assert_int_equal(v.refusal, TM_REFUSAL_BLOCK_SIZE);
	assert_non_null(strstr(v.text, "65536"));
	assert_non_null(strstr(v.text, "131072"));
	tm_repair_verdict_done(&v);

	after.superblock.metadata_blocks = 1;
	judge(&before, &after, BLOCK, known, &v);
	assert_int_equal(v.refusal, TM_REFUSAL_UNSOUND);
	assert_non_null(strstr(v.text, "smaller than it should be"));
	tm_repair_verdict_done(&v);

	after.superblock.metadata_blocks = 0;
	after.truncated = true;
	judge(&before, &after, BLOCK, known, &v);
	assert_int_equal(v.refusal, TM_REFUSAL_UNSOUND);
	assert_non_null(strstr(v.text, "too many devices"));
	tm_repair_verdict_done(&v);
}

/* Numbers that no pool has do not overflow into good ones. */
static void test_huge(void **state)
{
	static const struct dev before_devs[N] = { DAMAGED(1, 5, UINT64_MAX - 1),
						   DAMAGED(2, 5, UINT64_MAX - 1) };
	static const struct dev after_devs[N] = { WHOLE(1, 5), WHOLE(2, 5) };
	struct tm_survey_device before_room[N], after_room[N];
	struct known known[N] = { { 1, -1 }, { 2, -1 } };
	struct tm_survey before, after;
	struct tm_repair_verdict v;

	(void)state;
	make_survey(&before, GOOD, before_devs, before_room);
	make_survey(&after, GOOD, after_devs, after_room);
	judge(&before, &after, BLOCK, known, &v);
	assert_int_equal(v.before_blocks, UINT64_MAX);
	assert_int_equal(v.refusal, TM_REFUSAL_TOO_MUCH);
	tm_repair_verdict_done(&v);
}

/* What people read, once for each kind of line. */
static void test_texts(void **state)
{
	static const struct {
		enum state before_state;
		struct dev before, after;
		struct known known;
		const char *text;
	} lines[] = {
		{ GOOD,
		  WHOLE(1, 32),
		  WHOLE(1, 32),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): intact, 2 MiB mapped" },
		{ GOOD,
		  WHOLE(1, 32),
		  WHOLE(1, 32),
		  { 0 },
		  "device 1, which no record knows: intact, 2 MiB mapped" },
		{ NO_SUPERBLOCK,
		  { 0 },
		  WHOLE(1, 32),
		  { 1, 16 },
		  "volume \"root\" (1 GiB): 2 MiB mapped, no less than the 1 MiB it was last known"
		  " to have" },
		{ GOOD,
		  DAMAGED(1, 16, 32),
		  WHOLE(1, 16),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): lost 1 MiB (16 of 32 blocks) of the 2 MiB that it"
		  " had" },
		{ NO_SUPERBLOCK,
		  { 0 },
		  WHOLE(1, 16),
		  { 1, 32 },
		  "volume \"root\" (1 GiB): lost 1 MiB (16 of 32 blocks) of the 2 MiB that it was"
		  " last known to have" },
		{ GOOD,
		  WHOLE(1, 32),
		  WHOLE(1, 16),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): lost 1 MiB (16 of 32 blocks) of the 2 MiB that it had,"
		  " although 2 MiB could be read before the repair" },
		{ GOOD,
		  DAMAGED(1, 0, 32),
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): gone, with the 2 MiB (32 blocks) that it had" },
		{ GOOD,
		  WHOLE(1, 32),
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): gone, with the 2 MiB (32 blocks) that it had, although"
		  " 2 MiB could be read before the repair" },
		{ GOOD,
		  WHOLE(1, 0),
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): gone, but nothing of it was mapped" },
		{ SOME_DETAILS,
		  { 1, 16, NO_DETAILS, 1 },
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): gone, with the 1 MiB (16 blocks) that could be read,"
		  " and what could not, although 1 MiB could be read before the repair" },
		{ NO_SUPERBLOCK,
		  { 0 },
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): gone; how much of it was mapped is not known" },
		{ GOOD,
		  { 0 },
		  { 0 },
		  { 1, -1 },
		  "volume \"root\" (1 GiB): is missing; it was not there before the repair"
		  " either" },
		{ GOOD,
		  { 0 },
		  WHOLE(1, 16),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): has come up with 1 MiB mapped, but was not there"
		  " before" },
		{ GOOD,
		  WHOLE(1, 16),
		  WHOLE(1, 32),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): maps other blocks than could be read before the repair"
		  " (1 MiB then, 2 MiB now)" },
		{ GOOD,
		  DAMAGED(1, 16, 24),
		  WHOLE(1, 32),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): 2 MiB mapped, more than the 1.5 MiB that it should have"
		  " had" },
		{ SOME_DETAILS,
		  { 1, 16, NO_DETAILS, 1 },
		  WHOLE(1, 16),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): 1 MiB mapped; part of it was damaged, and how much is"
		  " not known" },
		{ NO_SUPERBLOCK,
		  { 0 },
		  WHOLE(1, 16),
		  { 1, -1 },
		  "volume \"root\" (1 GiB): 1 MiB mapped; how much was mapped before is not"
		  " known" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(lines); i++) {
		struct tm_survey_device before_room[N], after_room[N];
		struct dev b[N] = { lines[i].before }, a[N] = { lines[i].after };
		struct known known[N] = { lines[i].known };
		struct tm_survey before, after;
		struct tm_repair_verdict v;

		make_survey(&before, lines[i].before_state, b, before_room);
		make_survey(&after, GOOD, a, after_room);
		judge(&before, &after, BLOCK, known, &v);
		assert_int_equal(v.n_lines, 1);
		assert_string_equal(v.lines[0].text, lines[i].text);
		tm_repair_verdict_done(&v);
	}
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(tm_verdict_name(TM_VERDICT_ACCEPT), "accept");
	assert_string_equal(tm_verdict_name(TM_VERDICT_ACCEPT_LOSSES), "accept_losses");
	assert_string_equal(tm_verdict_name(TM_VERDICT_REFUSE), "refuse");
	assert_string_equal(tm_fate_name(TM_FATE_INTACT), "intact");
	assert_string_equal(tm_fate_name(TM_FATE_LOST_BLOCKS), "lost_blocks");
	assert_string_equal(tm_fate_name(TM_FATE_LOST), "lost");
	assert_string_equal(tm_fate_name(TM_FATE_CHANGED), "changed");
	assert_string_equal(tm_fate_name(TM_FATE_UNKNOWN), "unknown");
}

/* ---- with metadata ----------------------------------------------------------------------- */

/* Volume 1 has 100 blocks in leaves of 10, but for those of one leaf; volume 2 always has 30. */
static void make_metadata(struct image *m, uint32_t without, bool shifted)
{
	struct image_entry mappings[100], roots[2], details[2];
	uint32_t i, n = 0;

	image_init(m, 64);
	for (i = 0; i < 100; i++)
		if (i / 10 != without)
			mappings[n++] = image_mapping(i, 1000 + i + (shifted && i == 77), 0);
	roots[0] = image_u64(1, image_tree(m, mappings, n, 8, 10));
	details[0] = image_details(1, n, 0, 0, 0);
	for (i = 0; i < 30; i++)
		mappings[i] = image_mapping((uint64_t)5 * i, 2000 + i, 0);
	roots[1] = image_u64(2, image_tree(m, mappings, 30, 8, 10));
	details[1] = image_details(2, 30, 0, 0, 0);
	image_superblock(m, 0, image_tree(m, roots, 2, 8, 10), image_tree(m, details, 2, 24, 10),
			 100000, 0);
}

/* A leaf is damaged; results that lack it, that lack another, and that map a block elsewhere. */
static void test_surveyed(void **state)
{
	static const struct {
		uint32_t without;
		bool shifted;
		enum tm_verdict verdict;
		enum tm_fate fate;
	} results[] = {
		{ 3, false, TM_VERDICT_ACCEPT_LOSSES, TM_FATE_LOST_BLOCKS },
		{ 4, false, TM_VERDICT_REFUSE, TM_FATE_CHANGED },
		{ 3, true, TM_VERDICT_REFUSE, TM_FATE_CHANGED },
		{ 99, false, TM_VERDICT_ACCEPT, TM_FATE_INTACT },
	};
	struct known known[N] = { { 1, 100 }, { 2, -1 } };
	struct tm_survey_source source;
	struct tm_survey before;
	struct image damaged;
	size_t i;

	(void)state;
	make_metadata(&damaged, 99, false);
	image_at(&damaged, 1 + 3)[50] ^= 1; /* the leaves come first */
	source = image_source(&damaged);
	assert_int_equal(tm_survey_run(&source, &before), 0);
	for (i = 0; i < TM_ARRAY_SIZE(results); i++) {
		struct tm_repair_verdict v;
		struct tm_survey after;
		struct image result;

		make_metadata(&result, results[i].without, results[i].shifted);
		source = image_source(&result);
		assert_int_equal(tm_survey_run(&source, &after), 0);
		judge(&before, &after, BLOCK, known, &v);
		assert_int_equal(v.n_lines, 2);
		assert_int_equal(v.verdict, results[i].verdict);
		assert_int_equal(v.lines[0].fate, results[i].fate);
		assert_int_equal(v.lines[1].fate, TM_FATE_INTACT);
		tm_repair_verdict_done(&v);
		tm_survey_done(&after);
		image_done(&result);
	}
	tm_survey_done(&before);
	image_done(&damaged);
}

/* ---- with thin_repair -------------------------------------------------------------------- */

/* Volumes 1 and 3 of many nodes, 2 of one, 4 of none; every mapping its own run. */
static const uint32_t real_blocks[N] = { 5000, 100, 2000, 0 };

static void write_metadata(const char *xml, const char *bin)
{
	FILE *f = fopen(xml, "we");
	uint32_t v, i, data = 0;

	assert_non_null(f);
	assert_true(fprintf(f,
			    "<superblock uuid=\"\" time=\"0\" transaction=\"9\" flags=\"0\""
			    " version=\"2\" data_block_size=\"128\" nr_data_blocks=\"9000\">\n") >
		    0);
	for (v = 0; v < N; v++) {
		assert_true(fprintf(f,
				    "<device dev_id=\"%u\" mapped_blocks=\"%u\""
				    " transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\n",
				    v + 1, real_blocks[v]) > 0);
		for (i = 0; i < real_blocks[v]; i++)
			assert_true(fprintf(f,
					    "<single_mapping origin_block=\"%u\""
					    " data_block=\"%u\" time=\"0\"/>\n",
					    2 * i, data++) > 0);
		assert_true(fprintf(f, "</device>\n") > 0);
	}
	assert_true(fprintf(f, "</superblock>\n") > 0);
	assert_int_equal(fclose(f), 0);
	make_file(bin, 512);
	assert_int_equal(run_tool((char *[]){ (char *)"thin_restore", (char *)"-i", (char *)xml,
					      (char *)"-o", (char *)bin, NULL },
				  "/dev/null"),
			 0);
}

/* Repaired by the tool, whatever it answers. */
static void repair(const char *bad, const char *fixed, struct tm_survey *ret)
{
	struct tm_survey_source source;
	struct image m;

	make_file(fixed, 512);
	(void)run_tool((char *[]){ (char *)"thin_repair", (char *)"-i", (char *)bad, (char *)"-o",
				   (char *)fixed, NULL },
		       "/dev/null");
	load_image(fixed, &m);
	source = image_source(&m);
	assert_int_equal(tm_survey_run(&source, ret), 0);
	image_done(&m);
}

/*
 * What the tool makes of damage differs from version to version; what is said of it has to be true:
 * all is there, or what was lost is the difference.
 */
static void test_real_repair(void **state)
{
	static const char *const names[] = { "nothing", "a leaf", "the root of volume 1",
					     "the mapping root", "the details root" };
	char dir[] = "/tmp/thinmgr-test-XXXXXX", xml[64], bin[64], bad[64], fixed[64];
	struct known known[N] = { { 1, -1 }, { 2, -1 }, { 3, -1 }, { 4, -1 } };
	struct tm_survey_source source;
	struct tm_survey good;
	struct image m;
	size_t i, k;

	(void)state;
	if (access("/usr/sbin/thin_repair", X_OK) < 0)
		TM_SKIP("thin_repair is not installed");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(xml, sizeof(xml), "%s/xml", dir);
	(void)snprintf(bin, sizeof(bin), "%s/bin", dir);
	(void)snprintf(bad, sizeof(bad), "%s/bad", dir);
	(void)snprintf(fixed, sizeof(fixed), "%s/fixed", dir);
	write_metadata(xml, bin);
	load_image(bin, &m);
	source = image_source(&m);
	assert_int_equal(tm_survey_run(&source, &good), 0);
	assert_true(tm_survey_sound(&good));
	for (i = 0; i < TM_ARRAY_SIZE(names); i++) {
		const uint64_t damage[] = { 0, image_child(&m, good.devices[0].root, 5),
					    good.devices[0].root, good.mappings.root,
					    good.details.root };
		struct tm_survey before, after;
		struct tm_repair_verdict v;
		uint64_t missing = 0;

		if (damage[i])
			image_at(&m, damage[i])[77] ^= 1;
		assert_int_equal(tm_write_file_atomic(bad, (char *)m.bytes,
						      m.blocks * TM_SURVEY_BLOCK, 0600),
				 0);
		assert_int_equal(tm_survey_run(&source, &before), 0);
		if (damage[i])
			image_at(&m, damage[i])[77] ^= 1;
		repair(bad, fixed, &after);
		judge(&before, &after, BLOCK, known, &v);
		assert_int_equal(v.n_lines, N);
		for (k = 0; k < N; k++) {
			const struct tm_survey_device *d = tm_survey_find(&after, (uint32_t)k + 1);

			assert_int_equal(v.lines[k].before_blocks, real_blocks[k]);
			assert_int_equal(v.lines[k].after_blocks, d ? d->mapped : 0);
			if (v.lines[k].fate == TM_FATE_INTACT)
				assert_int_equal(d->digest, good.devices[k].digest);
			missing += real_blocks[k] - v.lines[k].after_blocks;
		}
		assert_int_equal(v.lost_blocks, missing);
		if (!damage[i])
			assert_int_equal(v.verdict, TM_VERDICT_ACCEPT);
		if (missing && v.verdict == TM_VERDICT_ACCEPT)
			fail_msg("%s: accepted, with %" PRIu64 " missing: %s", names[i], missing,
				 v.text);
		if (!after.mapped && v.verdict != TM_VERDICT_REFUSE)
			fail_msg("%s: accepted, and empty: %s", names[i], v.text);
		print_message("%s: %s\n", names[i], v.text);
		tm_repair_verdict_done(&v);
		tm_survey_done(&before);
		tm_survey_done(&after);
	}
	tm_survey_done(&good);
	image_done(&m);
	assert_int_equal(unlink(xml), 0);
	assert_int_equal(unlink(bin), 0);
	assert_int_equal(unlink(bad), 0);
	assert_int_equal(unlink(fixed), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),       cmocka_unit_test(test_block_size),
		cmocka_unit_test(test_huge),        cmocka_unit_test(test_texts),
		cmocka_unit_test(test_names),       cmocka_unit_test(test_surveyed),
		cmocka_unit_test(test_real_repair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
