// SPDX-License-Identifier: GPL-2.0-only
/* See cell.h. */

#include "cell.h"

void dtm_cells_init(struct dtm_cells *cells)
{
	spin_lock_init(&cells->lock);
	cells->held = RB_ROOT;
	cells->n = 0;
}

/* The cell that overlaps; or where one would be put. */
static struct dtm_cell *find(struct dtm_cells *cells, u64 begin, u64 end, struct rb_node **parent,
			     struct rb_node ***ret_link)
{
	struct rb_node **link = &cells->held.rb_node;

	*parent = NULL;
	while (*link) {
		struct dtm_cell *other = rb_entry(*link, struct dtm_cell, node);

		if (end > other->begin && begin < other->end)
			return other;
		*parent = *link;
		link = end <= other->begin ? &(*link)->rb_left : &(*link)->rb_right;
	}
	*ret_link = link;
	return NULL;
}

bool dtm_cell_take(struct dtm_cells *cells, struct dtm_cell *cell, struct bio *holder, u64 begin,
		   u64 end)
{
	struct rb_node **link, *parent;
	struct dtm_cell *other;
	unsigned long flags;

	spin_lock_irqsave(&cells->lock, flags);
	other = find(cells, begin, end, &parent, &link);
	if (other) {
		bio_list_add(&other->waiting, holder);
	} else {
		INIT_LIST_HEAD(&cell->list);
		cell->begin = begin;
		cell->end = end;
		cell->holder = holder;
		bio_list_init(&cell->waiting);
		rb_link_node(&cell->node, parent, link);
		rb_insert_color(&cell->node, &cells->held);
		WRITE_ONCE(cells->n, cells->n + 1);
	}
	spin_unlock_irqrestore(&cells->lock, flags);
	return !other;
}

bool dtm_cell_join(struct dtm_cells *cells, struct bio *bio, u64 begin, u64 end)
{
	struct rb_node **link, *parent;
	struct dtm_cell *other;
	unsigned long flags;

	/* What the last holder changed is seen from here on. */
	if (!smp_load_acquire(&cells->n))
		return false;
	spin_lock_irqsave(&cells->lock, flags);
	other = find(cells, begin, end, &parent, &link);
	if (other)
		bio_list_add(&other->waiting, bio);
	spin_unlock_irqrestore(&cells->lock, flags);
	return other;
}

void dtm_cells_leave(struct dtm_cells *cells, bool (*leaves)(const struct bio *bio, const void *of),
		     const void *of, struct bio_list *ret)
{
	struct rb_node *node;
	unsigned long flags;

	spin_lock_irqsave(&cells->lock, flags);
	for (node = rb_first(&cells->held); node; node = rb_next(node)) {
		struct dtm_cell *cell = rb_entry(node, struct dtm_cell, node);
		struct bio_list all = cell->waiting;
		struct bio *bio;

		bio_list_init(&cell->waiting);
		while ((bio = bio_list_pop(&all)))
			bio_list_add(leaves(bio, of) ? ret : &cell->waiting, bio);
	}
	spin_unlock_irqrestore(&cells->lock, flags);
}

void dtm_cell_release(struct dtm_cells *cells, struct dtm_cell *cell, struct bio_list *waiting)
{
	unsigned long flags;

	spin_lock_irqsave(&cells->lock, flags);
	rb_erase(&cell->node, &cells->held);
	/* Whoever sees that none is held sees what its holder changed as well. */
	smp_store_release(&cells->n, cells->n - 1);
	bio_list_merge(waiting, &cell->waiting);
	spin_unlock_irqrestore(&cells->lock, flags);
}
