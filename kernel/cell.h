/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cells: locks on ranges of a thin device's blocks, held while their mapping changes, that bios can
 * wait for. I/O on blocks whose mapping stays as it is takes none.
 *
 * A bio that has to change a mapping (a first write, breaking of sharing, a discard) takes the cell
 * of its blocks and is its holder. Another that needs the same blocks is added to the waiting; they
 * come out when the cell is released, and are mapped anew.
 */
#ifndef DTM_CELL_H
#define DTM_CELL_H

#include <linux/bio.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>

/* Of one thin device. */
struct dtm_cells {
	spinlock_t lock;
	struct rb_root held; /* by begin; no two overlap */
	unsigned int n;      /* that are held; read without the lock to see whether to look */
};

/* Part of the holder's per-bio data: it lives until the holder is completed. */
struct dtm_cell {
	struct rb_node node;
	struct list_head list; /* for whoever works on it */
	u64 begin, end;        /* [begin, end) of the device's blocks */
	struct bio *holder;
	struct bio_list waiting;
};

void dtm_cells_init(struct dtm_cells *cells);

/*
 * True: the cell is held by the bio. False: another one overlaps it, and the bio waits there;
 * nothing of it may be touched any more. May not sleep.
 */
bool dtm_cell_take(struct dtm_cells *cells, struct dtm_cell *cell, struct bio *holder, u64 begin,
		   u64 end);

/*
 * True: the blocks are in a cell that somebody holds, and the bio waits there; nothing of it may
 * be touched any more. Costs a read of memory where no cell is held. May not sleep.
 */
bool dtm_cell_join(struct dtm_cells *cells, struct bio *bio, u64 begin, u64 end);

/* Those that wait in any cell, and are to leave, are added to a list. May not sleep. */
void dtm_cells_leave(struct dtm_cells *cells, bool (*leaves)(const struct bio *bio, const void *of),
		     const void *of, struct bio_list *ret);

/* The cell is let go; those that waited are added to a list, in the order they came. */
void dtm_cell_release(struct dtm_cells *cells, struct dtm_cell *cell, struct bio_list *waiting);

#endif
