// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Replays what dm-log-writes recorded below a thin pool, state by state as a crash could have left
 * it, and holds what its metadata then leads to against what had been acknowledged.
 *
 *     crash-replay LOG EVENTS METADATA DATA CACHE METADATA-BYTES DATA-BYTES VOLUME-BYTES SEED
 *
 * LOG is what dm-log-writes wrote; the disk below it holds the metadata first, the data behind it.
 * METADATA and DATA are files that are given the content of each state. CACHE tells which of the
 * two have a volatile write cache: "both", one in common, or "data": metadata is durable once it is
 * written. EVENTS says what was done to the thin devices ("volumes", all of one size), a line each,
 * numbered from 1:
 *
 *     NUMBER THREAD C VOLUME               its creation begins
 *     NUMBER THREAD S VOLUME ORIGIN        its creation as a snapshot begins
 *     NUMBER THREAD c VOLUME               it is created
 *     NUMBER THREAD X VOLUME               its deletion begins
 *     NUMBER THREAD x VOLUME               it is deleted
 *     NUMBER THREAD W VOLUME FIRST COUNT   a write of these blocks of 4 KiB begins
 *     NUMBER THREAD D VOLUME FIRST COUNT   a discard
 *     NUMBER THREAD F VOLUME UP-TO         a flush of all W and D up to a number has ended
 *     NUMBER THREAD K VOLUME WRITE         a FUA write has ended
 *
 * A volume and its snapshots belong to one thread. After c, x, F and K there is a mark in the log,
 * "THREAD:NUMBER". A write fills each sector with units of 16 bytes: its number, the block and
 * sector in it (block * 8 + sector), the volume, and a constant.
 *
 * States: at each flush or FUA write ("mark") what is durable and nothing else; before each flush,
 * with a part of what was in the cache ("part"); and, with CACHE data, at each superblock
 * ("commit"). For each a line is printed and a line read:
 *
 *     state KIND ENTRY CHANGED METADATA-BLOCKS DATA-BLOCKS BLOCK-SECTORS VOLUME[,VOLUME...]
 *     next          on to the next
 *     used          the same, but METADATA may have changed
 *     written       the same, but both may
 *     compare FILE  FILE holds the volumes, one behind the other: "same" is answered
 *
 * CHANGED: metadata is not what it was in any state before. Without a pool METADATA-BLOCKS is 0 and
 * VOLUME is "-", which it is without volumes, too. In the end "end ENTRIES FLUSHES FUAS STATES";
 * where something is wrong "bad WHY".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR  512
#define BLOCK   4096
#define STAMP   0x7ca51e0dU
#define NOWHERE UINT64_MAX

#define MAX_VOLUMES 4096
#define MAX_THREADS 16

/* ---- ends ---------------------------------------------------------------------------------- */

static uint64_t at_entry;

__attribute__((format(printf, 1, 2), noreturn)) static void bad(const char *format, ...)
{
	va_list args;

	printf("bad entry %" PRIu64 ": ", at_entry);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list args;

	printf("bad use: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(2);
}

static void *make(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("no memory");
	return p;
}

static uint32_t le32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

/* ---- what was done ------------------------------------------------------------------------- */

struct event {
	char type;
	uint32_t thread, volume, next; /* of the same thread; 0: none */
	uint64_t first, count;
};

struct volume {
	bool begun, must_exist, must_not_exist, deletion_begun;
	uint32_t thread;
	uint32_t sure_up_to; /* events up to here are in sure */
	/* For each block of 4 KiB an event, or 0: */
	uint32_t *sure; /* the last write or discard that is acknowledged */
	uint32_t *begun_last;
	uint32_t *begun_discard;
};

struct thread {
	uint32_t begun; /* next event that was not looked at */
	uint32_t last;  /* while reading */
	uint32_t limit; /* events up to here may have begun */
	size_t mark;    /* next one in the log */
};

static struct event *events;
static uint32_t n_events; /* numbers are below it */
static struct volume volumes[MAX_VOLUMES];
static struct thread threads[MAX_THREADS];
static uint64_t volume_blocks;
static uint32_t acknowledged; /* events up to here were looked at */

static bool changes_blocks(const struct event *e)
{
	return e->type == 'W' || e->type == 'D';
}

static void read_events(const char *path)
{
	FILE *file = fopen(path, "re");
	uint32_t number, room = 1024;
	char line[160];

	if (!file)
		die("%s: %s", path, strerror(errno));
	events = make(room, sizeof(*events));
	n_events = 1;
	while (fgets(line, sizeof(line), file)) {
		struct event e = { 0 };

		if (sscanf(line, "%u %u %c %u %" SCNu64 " %" SCNu64, &number, &e.thread, &e.type,
			   &e.volume, &e.first, &e.count) < 4 ||
		    number != n_events || e.thread >= MAX_THREADS || e.volume >= MAX_VOLUMES ||
		    (changes_blocks(&e) && (!e.count || e.first + e.count > volume_blocks)))
			die("%s: line %u: %s", path, n_events, line);
		if (n_events == room) {
			room *= 2;
			events = realloc(events, room * sizeof(*events));
			if (!events)
				die("no memory");
		}
		events[n_events] = e;
		if (threads[e.thread].last)
			events[threads[e.thread].last].next = n_events;
		else
			threads[e.thread].begun = n_events;
		threads[e.thread].last = n_events++;
	}
	if (ferror(file))
		die("%s: cannot be read", path);
	(void)fclose(file); /* it was only read */
}

static void begin_volume(const struct event *e)
{
	struct volume *v = &volumes[e->volume];

	if (v->begun)
		die("volume %u is made twice", e->volume);
	v->begun = true;
	v->thread = e->thread;
	v->sure = make(volume_blocks, sizeof(*v->sure));
	v->begun_last = make(volume_blocks, sizeof(*v->begun_last));
	v->begun_discard = make(volume_blocks, sizeof(*v->begun_discard));
	if (e->type == 'S') {
		const struct volume *origin;

		if (e->first >= MAX_VOLUMES || !volumes[e->first].begun)
			die("volume %u has no origin", e->volume);
		origin = &volumes[e->first];
		memcpy(v->begun_last, origin->begun_last, volume_blocks * sizeof(*v->begun_last));
		memcpy(v->sure, origin->begun_last, volume_blocks * sizeof(*v->sure));
	}
}

/* What a thread may have begun by now. */
static void look_at_begun(struct thread *t)
{
	uint64_t block;

	for (; t->begun && t->begun <= t->limit; t->begun = events[t->begun].next) {
		const struct event *e = &events[t->begun];
		struct volume *v = &volumes[e->volume];

		if (e->type == 'C' || e->type == 'S')
			begin_volume(e);
		else if (!v->begun)
			die("event %u is of no volume", t->begun);
		if (e->type == 'X')
			v->deletion_begun = true;
		if (!changes_blocks(e))
			continue;
		for (block = e->first; block < e->first + e->count; block++) {
			v->begun_last[block] = t->begun;
			if (e->type == 'D')
				v->begun_discard[block] = t->begun;
		}
	}
}

static void sure(struct volume *v, uint32_t number)
{
	const struct event *e = &events[number];
	uint64_t block;

	for (block = e->first; block < e->first + e->count; block++)
		if (v->sure[block] < number)
			v->sure[block] = number;
}

static void look_at_acknowledged(uint32_t number)
{
	while (acknowledged < number) {
		const struct event *e = &events[++acknowledged];
		struct volume *v = &volumes[e->volume];
		uint32_t n;

		switch (e->type) {
		case 'c':
			v->must_exist = true;
			break;
		case 'x':
			v->must_not_exist = true;
			break;
		case 'F':
			for (n = v->sure_up_to + 1; n <= e->first; n++)
				if (changes_blocks(&events[n]) && events[n].volume == e->volume)
					sure(v, n);
			v->sure_up_to = e->first;
			break;
		case 'K':
			sure(v, e->first);
			break;
		default: /* what begins is looked at by its thread */
			break;
		}
	}
}

/* ---- the log ------------------------------------------------------------------------------- */

#define LOG_MAGIC 0x6a736677736872ULL

#define FLUSH   1
#define FUA     2
#define DISCARD 4
#define MARK    8

struct entry {
	uint64_t sector, sectors, flags;
	const uint8_t *data;
};

struct mark {
	uint64_t entry;
	uint32_t thread, number;
};

static struct entry *entries;
static uint64_t n_entries;
static struct mark *marks;
static size_t n_marks;

static const uint8_t *map_file(const char *path, uint64_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	*ret_size = (uint64_t)st.st_size;
	p = mmap(NULL, *ret_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

static void read_log(const char *path)
{
	uint64_t size, at, number;
	const uint8_t *log = map_file(path, &size);

	if (size < SECTOR || le64(log) != LOG_MAGIC || le64(log + 8) != 1 ||
	    le32(log + 24) != SECTOR)
		die("%s is no log of dm-log-writes with sectors of %u bytes", path, SECTOR);
	n_entries = le64(log + 16);
	entries = make(n_entries, sizeof(*entries));
	marks = make(n_entries, sizeof(*marks));
	for (number = 0, at = SECTOR; number < n_entries; number++) {
		struct entry *e = &entries[number];
		const uint8_t *head = log + at;
		char text[64] = "";

		if (at + SECTOR > size)
			die("the log ends in entry %" PRIu64, number);
		*e = (struct entry){ le64(head), le64(head + 8), le64(head + 16), head + SECTOR };
		at += SECTOR;
		if (!(e->flags & DISCARD))
			at += e->sectors * SECTOR;
		if (at > size)
			die("the log ends in entry %" PRIu64, number);
		if (e->flags & MARK) {
			struct mark m = { .entry = number };

			memcpy(text, head + 32, sizeof(text) - 1);
			if (sscanf(text, "%u:%u", &m.thread, &m.number) != 2)
				continue; /* the target's own, at the end */
			if (m.thread >= MAX_THREADS || m.number >= n_events)
				die("an unknown mark: %s", text);
			marks[n_marks++] = m;
		}
	}
}

/* ---- the disks ----------------------------------------------------------------------------- */

struct disk {
	uint64_t start, size; /* bytes */
	uint8_t *durable, *shown;
};

static struct disk metadata, data;
static bool metadata_changed = true;

static uint8_t *map_shown(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p;

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

static void open_disk(struct disk *d, const char *path, uint64_t start, uint64_t size)
{
	d->start = start;
	d->size = size;
	d->durable = make(size, 1);
	d->shown = map_shown(path, size);
	memset(d->shown, 0, size);
}

static struct disk *disk_of(const struct entry *e, uint64_t *ret_at)
{
	const uint64_t at = e->sector * SECTOR;
	struct disk *d = at < data.start ? &metadata : &data;

	if (at - d->start + e->sectors * SECTOR > d->size)
		die("a write beyond the end, at sector %" PRIu64, e->sector);
	*ret_at = at - d->start;
	return d;
}

static void put(uint8_t *to, const struct entry *e, uint64_t from, uint64_t n)
{
	if (e->flags & DISCARD)
		memset(to + from, 0, n);
	else
		memcpy(to + from, e->data + from, n);
}

static void make_durable(const struct entry *e)
{
	uint64_t at;
	struct disk *d = disk_of(e, &at);

	put(d->durable + at, e, 0, e->sectors * SECTOR);
	put(d->shown + at, e, 0, e->sectors * SECTOR);
	if (d == &metadata)
		metadata_changed = true;
}

static void show_durable_again(struct disk *d)
{
	uint64_t at;

	for (at = 0; at < d->size; at += 16 * BLOCK) {
		const uint64_t n = d->size - at < 16 * BLOCK ? d->size - at : 16 * BLOCK;

		if (memcmp(d->shown + at, d->durable + at, n) != 0)
			memcpy(d->shown + at, d->durable + at, n);
	}
}

/* ---- a part of the cache ------------------------------------------------------------------- */

static struct entry **cached;
static size_t n_cached;

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

/*
 * Which parts of what was cached got to the disk: in blocks of 4 KiB, discards as a whole. Also
 * what is unlikely by chance: all of one disk and nothing of the other, all but one, in order.
 */
static void show_part(void)
{
	const unsigned int way = (unsigned int)random_below(9);
	const uint64_t odd_one = random_below(n_cached);
	size_t i;

	for (i = 0; i < n_cached; i++) {
		const struct entry *e = cached[i];
		uint64_t size, at, from, step;
		struct disk *d;

		if (!e) /* there are n_cached of them; some who read this do not know that */
			continue;
		size = e->sectors * SECTOR;
		step = e->flags & DISCARD ? size : BLOCK;
		d = disk_of(e, &at);
		for (from = 0; from < size; from += step) {
			const uint64_t n = size - from < step ? size - from : step;
			bool there = false;

			switch (way) {
			case 0:
			case 1:
				there = random_below(2);
				break;
			case 2:
				there = random_below(8);
				break;
			case 3:
				there = !random_below(8);
				break;
			case 4:
				there = d == &metadata;
				break;
			case 5:
				there = d == &data;
				break;
			case 6:
				there = i != odd_one;
				break;
			case 7:
				there = i <= odd_one;
				break;
			case 8:
				there = e->flags & DISCARD;
				break;
			}
			if (!there)
				continue;
			put(d->shown + at, e, from, n);
			if (d == &metadata)
				metadata_changed = true;
		}
	}
}

static void hide_part(void)
{
	size_t i;

	for (i = 0; i < n_cached; i++) {
		uint64_t at;
		struct disk *d = disk_of(cached[i], &at);

		memcpy(d->shown + at, d->durable + at, cached[i]->sectors * SECTOR);
		if (d == &metadata)
			metadata_changed = true;
	}
}

/* ---- metadata, as it is on disk ------------------------------------------------------------ */

#define SUPERBLOCK_MAGIC 27022010

struct pool {
	uint64_t metadata_blocks, data_blocks, block_bytes, volume_blocks;
	uint32_t n_volumes;
	uint32_t volumes[MAX_VOLUMES];
	uint64_t *maps[MAX_VOLUMES]; /* by place in volumes[]: data blocks, or NOWHERE */
};

static struct pool pool;

static const uint8_t *metadata_block(uint64_t number)
{
	if (number >= pool.metadata_blocks || (number + 1) * BLOCK > metadata.size)
		bad("metadata leads to block %" PRIu64 ", of %" PRIu64, number,
		    pool.metadata_blocks);
	return metadata.shown + number * BLOCK;
}

/* Each key of a B-tree with its value. */
static void walk(uint64_t root, uint32_t value_size,
		 void (*visit)(void *context, uint64_t key, const uint8_t *value), void *context,
		 unsigned int depth)
{
	const uint8_t *node = metadata_block(root);
	const uint32_t flags = le32(node + 4), n = le32(node + 16), most = le32(node + 20);
	const bool leaf = flags == 2;
	const uint32_t size = leaf ? value_size : 8;
	const uint8_t *keys = node + 32;
	uint32_t i;

	if ((flags != 1 && flags != 2) || le64(node + 8) != root || n > most ||
	    le32(node + 24) != size || 32 + (uint64_t)most * (8 + size) > BLOCK || depth > 16)
		bad("metadata block %" PRIu64 " is no node of a B-tree with values of %u bytes",
		    root, value_size);
	for (i = 0; i < n; i++) {
		const uint8_t *value = keys + (size_t)most * 8 + (size_t)i * size;

		if (leaf)
			visit(context, le64(keys + (size_t)i * 8), value);
		else
			walk(le64(value), value_size, visit, context, depth + 1);
	}
}

static void visit_details(void *unused, uint64_t id, const uint8_t *value)
{
	(void)unused;
	(void)value;
	if (id >= MAX_VOLUMES || pool.n_volumes == MAX_VOLUMES)
		bad("there is a volume %" PRIu64, id);
	pool.volumes[pool.n_volumes++] = (uint32_t)id;
}

static void visit_mapping(void *context, uint64_t block, const uint8_t *value)
{
	uint64_t *map = context;
	const uint64_t place = le64(value) >> 24;

	if (block >= pool.volume_blocks || place >= pool.data_blocks)
		bad("block %" PRIu64 " is mapped to %" PRIu64, block, place);
	map[block] = place;
}

static void visit_device(void *context, uint64_t id, const uint8_t *value)
{
	uint32_t i, *n = context;

	for (i = 0; i < pool.n_volumes; i++)
		if (pool.volumes[i] == id)
			break;
	if (i == pool.n_volumes)
		bad("volume %" PRIu64 " has mappings, and no details", id);
	(*n)++;
	walk(le64(value), 8, visit_mapping, pool.maps[i], 0);
}

/* Reads it all. False: there is none yet. */
static bool read_pool(void)
{
	const uint8_t *sb = metadata.shown;
	uint64_t block;
	uint32_t i, n = 0;

	pool.n_volumes = 0;
	if (!le64(sb + 32) && !le32(sb)) {
		pool.metadata_blocks = pool.data_blocks = 0;
		return false;
	}
	if (le64(sb + 32) != SUPERBLOCK_MAGIC)
		bad("no superblock");
	pool.metadata_blocks = le64(sb + 192); /* both by their space maps */
	pool.data_blocks = le64(sb + 64);
	pool.block_bytes = (uint64_t)le32(sb + 336) * SECTOR;
	if (pool.metadata_blocks * BLOCK > metadata.size || !pool.block_bytes ||
	    pool.data_blocks > data.size / pool.block_bytes)
		bad("the superblock speaks of larger disks");
	walk(le64(sb + 328), 24, visit_details, NULL, 0);
	pool.volume_blocks = (volume_blocks * BLOCK + pool.block_bytes - 1) / pool.block_bytes;
	for (i = 0; i < pool.n_volumes; i++) {
		if (!pool.maps[i])
			pool.maps[i] = make(pool.volume_blocks, sizeof(uint64_t));
		for (block = 0; block < pool.volume_blocks; block++)
			pool.maps[i][block] = NOWHERE;
	}
	walk(le64(sb + 320), 8, visit_device, &n, 0);
	if (n != pool.n_volumes)
		bad("%u volumes have mappings, %u have details", n, pool.n_volumes);
	return true;
}

/* Content of a block of 4 KiB. */
static const uint8_t *content(uint32_t i, uint64_t block)
{
	static const uint8_t zeroes[BLOCK];
	const uint64_t at = block * BLOCK, place = pool.maps[i][at / pool.block_bytes];

	return place == NOWHERE ? zeroes
				: data.shown + place * pool.block_bytes + at % pool.block_bytes;
}

/* ---- judgement ----------------------------------------------------------------------------- */

struct stamp {
	uint32_t number, where, volume, constant;
};

/* One and the same in all of the block; all zeroes, too. */
static struct stamp stamp_of(const uint8_t *block, uint32_t volume, uint64_t number)
{
	struct stamp first, s;
	unsigned int i;

	memcpy(&first, block, sizeof(first));
	for (i = 0; i < BLOCK / SECTOR; i++) {
		const uint8_t *sector = block + (size_t)i * SECTOR;

		memcpy(&s, sector, sizeof(s));
		if (s.number != first.number || s.volume != first.volume ||
		    s.constant != first.constant ||
		    s.where != (first.constant ? first.where + i : 0) ||
		    memcmp(sector, sector + sizeof(s), SECTOR - sizeof(s)) != 0)
			bad("volume %u, block %" PRIu64
			    ": sector %u is not of the same write as the first",
			    volume, number, i);
	}
	return first;
}

static void judge_block(uint32_t id, uint64_t block, const uint8_t *found)
{
	const struct volume *v = &volumes[id];
	const struct stamp s = stamp_of(found, id, block);
	const uint32_t sure = v->sure[block];
	const char wanted = sure ? events[sure].type : '0';
	const struct event *e;

	if (!s.constant && !s.number && !s.where && !s.volume) {
		if (wanted != 'W' || v->begun_discard[block] > sure)
			return;
		bad("volume %u, block %" PRIu64 ": zeroes, but write %u is acknowledged (%u)", id,
		    block, sure, acknowledged);
	}
	if (s.constant != STAMP || !s.number || s.number >= n_events ||
	    events[s.number].type != 'W')
		bad("volume %u, block %" PRIu64 ": nothing that anybody wrote", id, block);
	e = &events[s.number];
	if (s.volume != e->volume || s.where != block * 8 || block < e->first ||
	    block >= e->first + e->count)
		bad("volume %u, block %" PRIu64 ": holds block %u of volume %u", id, block,
		    s.where / 8, s.volume);
	if (s.number == sure)
		return;
	if (e->volume != id)
		bad("volume %u, block %" PRIu64 ": write %u to volume %u instead of %c %u", id,
		    block, s.number, e->volume, wanted, sure);
	if (s.number < sure)
		bad("volume %u, block %" PRIu64 ": write %u, but %c %u is acknowledged (%u)", id,
		    block, s.number, wanted, sure, acknowledged);
	if (s.number > threads[v->thread].limit)
		bad("volume %u, block %" PRIu64 ": write %u, which had not begun", id, block,
		    s.number);
}

static void judge(void)
{
	uint32_t i, id;
	uint64_t block;

	if (!read_pool()) {
		if (acknowledged)
			bad("there is no pool");
		return;
	}
	for (id = 0; id < MAX_VOLUMES; id++) {
		const struct volume *v = &volumes[id];
		bool there = false;

		for (i = 0; i < pool.n_volumes && !there; i++)
			there = pool.volumes[i] == id;
		if (there && !v->begun)
			bad("there is a volume %u", id);
		if (there && v->must_not_exist)
			bad("volume %u is back", id);
		if (!there && v->must_exist && !v->deletion_begun)
			bad("volume %u is gone", id);
	}
	for (i = 0; i < pool.n_volumes; i++)
		for (block = 0; block < volume_blocks; block++)
			judge_block(pool.volumes[i], block, content(i, block));
}

static void compare(const char *path)
{
	static uint8_t *room;
	const size_t size = volume_blocks * BLOCK;
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	uint64_t block;
	uint32_t i;

	if (fd < 0)
		bad("%s: %s", path, strerror(errno));
	if (!room)
		room = aligned_alloc(BLOCK, size);
	if (!room)
		die("no memory");
	for (i = 0; i < pool.n_volumes; i++) {
		const ssize_t got = pread(fd, room, size, (off_t)(i * size));

		if (got != (ssize_t)size)
			bad("volume %u cannot be read: %s", pool.volumes[i],
			    got < 0 ? strerror(errno) : "too short");
		for (block = 0; block < volume_blocks; block++)
			if (memcmp(room + block * BLOCK, content(i, block), BLOCK) != 0)
				bad("volume %u, block %" PRIu64 ": not what its metadata leads to",
				    pool.volumes[i], block);
	}
	close(fd);
	printf("same\n");
}

/* ---- state by state ------------------------------------------------------------------------ */

static uint64_t n_states;

/* Whether metadata is for the first time what it is now. */
static bool metadata_is_new(void)
{
	static uint64_t *seen, n_seen, room;
	const uint64_t *words = (const uint64_t *)(const void *)metadata.shown;
	const uint64_t n = pool.metadata_blocks * BLOCK / sizeof(*words);
	uint64_t i, hash = n;

	if (!metadata_changed)
		return false;
	for (i = 0; i < n; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL ^ hash >> 29;
	for (i = 0; i < n_seen; i++)
		if (seen[i] == hash)
			return false;
	if (n_seen == room) {
		room = room ? 2 * room : 256;
		seen = realloc(seen, room * sizeof(*seen));
		if (!seen)
			die("no memory");
	}
	seen[n_seen++] = hash;
	return true;
}

/* What may have begun when the log had come to an entry: all up to a thread's next mark. */
static void look_ahead(uint64_t entry)
{
	size_t i;

	for (i = 0; i < MAX_THREADS; i++) {
		struct thread *t = &threads[i];

		while (t->mark < n_marks &&
		       (marks[t->mark].thread != i || marks[t->mark].entry <= entry))
			t->mark++;
		t->limit = t->mark < n_marks ? marks[t->mark].number : UINT32_MAX;
		look_at_begun(t);
	}
}

static void show(const char *kind)
{
	char line[4096];
	bool used = false;
	uint32_t i;

	look_ahead(at_entry);
	judge();
	n_states++;
	printf("state %s %" PRIu64 " %d %" PRIu64 " %" PRIu64 " %" PRIu64 " ", kind, at_entry,
	       metadata_is_new(), pool.metadata_blocks, pool.data_blocks,
	       pool.block_bytes / SECTOR);
	for (i = 0; i < pool.n_volumes; i++)
		printf("%s%u", i ? "," : "", pool.volumes[i]);
	printf("%s\n", pool.n_volumes ? "" : "-");
	metadata_changed = false;
	while (fflush(stdout) || fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "compare ", 8) == 0) {
			compare(line + 8);
			continue;
		}
		used = strcmp(line, "used") == 0;
		if (strcmp(line, "written") == 0) {
			show_durable_again(&data);
			used = true;
		}
		if (used) {
			show_durable_again(&metadata);
			metadata_changed = true;
		}
		return;
	}
	exit(0); /* nobody asks any more */
}

static void show_with_part(void)
{
	if (!n_cached)
		return;
	show_part();
	show("part");
	hide_part();
}

int main(int argc, char **argv)
{
	uint64_t flushes = 0, fuas = 0;
	size_t i, mark = 0;
	bool one_cache;

	if (argc != 10)
		die("nine arguments, see the source");
	one_cache = strcmp(argv[5], "both") == 0;
	if (!one_cache && strcmp(argv[5], "data") != 0)
		die("which cache is %s?", argv[5]);
	volume_blocks = strtoull(argv[8], NULL, 10) / BLOCK;
	random_state = strtoull(argv[9], NULL, 10) * 0x9e3779b97f4a7c15ULL | 1;
	read_events(argv[2]);
	read_log(argv[1]);
	open_disk(&metadata, argv[3], 0, strtoull(argv[6], NULL, 10));
	open_disk(&data, argv[4], metadata.size, strtoull(argv[7], NULL, 10));
	cached = make(n_entries, sizeof(struct entry *));

	for (at_entry = 0; at_entry < n_entries; at_entry++) {
		struct entry *e = &entries[at_entry];
		const bool of_metadata = e->sector * SECTOR < data.start;

		if (e->flags & MARK) {
			if (mark < n_marks && marks[mark].entry == at_entry)
				look_ahead(at_entry), look_at_acknowledged(marks[mark++].number);
			continue;
		}
		if (e->flags & FLUSH) {
			show_with_part();
			for (i = 0; i < n_cached; i++)
				make_durable(cached[i]);
			n_cached = 0;
			flushes++;
			if (!e->sectors) {
				show("mark");
				continue;
			}
		}
		if (e->flags & FUA) {
			make_durable(e);
			fuas++;
			show("mark");
		} else if (of_metadata && !one_cache) {
			make_durable(e);
			if (!e->sector) { /* a commit */
				show("commit");
				show_with_part();
			}
		} else {
			cached[n_cached++] = e;
		}
	}
	show_with_part();
	printf("end %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", n_entries, flushes, fuas,
	       n_states);
	return 0;
}
