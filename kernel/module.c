// SPDX-License-Identifier: GPL-2.0-only
/* The module dm-thinmgr: what happens when it is loaded and unloaded. */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/printk.h>

static int __init dtm_init(void)
{
	pr_info("version " DTM_VERSION "\n");
	return 0;
}

static void __exit dtm_exit(void)
{
}

module_init(dtm_init);
module_exit(dtm_exit);

MODULE_DESCRIPTION("thinmgr's thin-pool and thin targets for device-mapper");
MODULE_AUTHOR("The thinmgr authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(DTM_VERSION);
