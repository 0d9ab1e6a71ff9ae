// SPDX-License-Identifier: GPL-2.0-only
/* The module dm-thinmgr: what happens when it is loaded and unloaded, and its parameters. */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/printk.h>

#include "pool.h"

unsigned int dtm_no_space_timeout_secs = 60;
module_param_named(no_space_timeout, dtm_no_space_timeout_secs, uint, 0644);
MODULE_PARM_DESC(no_space_timeout,
		 "Seconds that I/O waits for data space before it fails; 0: for ever (60)");

/* Copies for snapshots take all of the time they can get. */
struct dm_kcopyd_throttle dtm_copy_throttle = { .throttle = 100 };
module_param_named(snapshot_copy_throttle, dtm_copy_throttle.throttle, uint, 0644);
MODULE_PARM_DESC(snapshot_copy_throttle,
		 "Percent of the time that copies for snapshots may take (100)");

static int __init register_target(struct target_type *type)
{
	int r = dm_register_target(type);

	if (r == -EEXIST || r == -EBUSY) /* newer kernels say EBUSY */
		pr_err("the target \"%s\" is there already: unload the module it belongs to "
		       "(dm_thin_pool) first\n",
		       type->name);
	else if (r)
		pr_err("cannot register the target \"%s\": error %d\n", type->name, r);
	return r;
}

static int __init dtm_init(void)
{
	int r = register_target(&dtm_pool_target);

	if (r)
		return r;
	r = register_target(&dtm_thin_target);
	if (r) {
		dm_unregister_target(&dtm_pool_target);
		return r;
	}
	pr_info("version " DTM_VERSION "\n");
	return 0;
}

static void __exit dtm_exit(void)
{
	dm_unregister_target(&dtm_thin_target);
	dm_unregister_target(&dtm_pool_target);
}

module_init(dtm_init);
module_exit(dtm_exit);

MODULE_DESCRIPTION("thinmgr's thin-pool and thin targets for device-mapper");
MODULE_AUTHOR("The thinmgr authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(DTM_VERSION);
