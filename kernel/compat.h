/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels this is built for; no other file asks for a version. */
#ifndef DTM_COMPAT_H
#define DTM_COMPAT_H

#include <linux/blkdev.h>
#include <linux/version.h>

/* dm-persistent-data promises not to write to a validator since 6.11. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define DTM_VALIDATOR_CONST const
#else
#define DTM_VALIDATOR_CONST
#endif

/* How a device is opened for reading and writing; a type of its own since 6.5. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#define DTM_OPEN_READ  BLK_OPEN_READ
#define DTM_OPEN_WRITE BLK_OPEN_WRITE
#else
#define DTM_OPEN_READ  FMODE_READ
#define DTM_OPEN_WRITE FMODE_WRITE
#endif

/*
 * Of a target's status function: nothing is to be written for it. In the kernel's drivers/md/dm.h,
 * which header packages lack; the same since 3.8.
 */
#define DTM_STATUS_NOFLUSH (1 << 0)

/* What a target says of its discards; the block layer derives the other limit itself since 6.9. */
static inline void dtm_set_max_discard(struct queue_limits *limits, unsigned int sectors)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	limits->max_hw_discard_sectors = sectors;
#else
	limits->max_discard_sectors = sectors;
#endif
}

#endif
