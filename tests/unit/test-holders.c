// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who holds a device, by procfs and sysfs that the test makes in a directory; tests/tools/holders.c
 * shows the same of a real kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "host/holders.h"
#include "host/stack.h"
#include "logic/json.h"
#include "skip.h"

#define OWN_NS   "mnt:[4026531841]"
#define OTHER_NS "mnt:[4026532001]"

struct place {
	char base[64], proc[128], sys[128];
	dev_t device[2]; /* 253:900 and 253:901 */
	struct tm_holders found;
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

/* ---- making trees --------------------------------------------------------------------------- */

static void make_parents(char *path)
{
	for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
}

static void path_of(const struct place *p, char buf[512], const char *name)
{
	const int n = snprintf(buf, 512, "%s/%s", p->base, name);

	assert_true(n > 0 && n < 512);
	make_parents(buf);
}

static void put(const struct place *p, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	path_of(p, path, name);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void link_to(const struct place *p, const char *name, const char *target)
{
	char path[512];

	path_of(p, path, name);
	assert_int_equal(symlink(target, path), 0);
}

static void gone(const struct place *p, const char *name)
{
	char path[512];

	path_of(p, path, name);
	assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A process without mounts or descriptors. @who: "42" or "42/task/43". */
static void process(const struct place *p, const char *who, const char *comm, const char *ns,
		    const char *root)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "proc/%s/comm", who);
	put(p, name, comm);
	(void)snprintf(name, sizeof(name), "proc/%s/cgroup", who);
	put(p, name, "0::/system.slice/some.service\n");
	(void)snprintf(name, sizeof(name), "proc/%s/ns/mnt", who);
	link_to(p, name, ns);
	(void)snprintf(name, sizeof(name), "proc/%s/root", who);
	link_to(p, name, root);
	(void)snprintf(name, sizeof(name), "proc/%s/mountinfo", who);
	put(p, name, "");
	(void)snprintf(name, sizeof(name), "proc/%s/fd/0", who);
	link_to(p, name, "/dev/null");
}

static void mounts(const struct place *p, const char *who, const char *text)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "proc/%s/mountinfo", who);
	put(p, name, text);
}

/* False where devices' nodes may not be made. */
static bool opened(const struct place *p, const char *who, const char *fd, dev_t dev)
{
	char name[128], node[512], number[32];

	(void)snprintf(number, sizeof(number), "nodes/%u-%u", major(dev), minor(dev));
	path_of(p, node, number);
	if (mknod(node, S_IFBLK | 0600, dev) < 0 && errno != EEXIST)
		return false;
	(void)snprintf(name, sizeof(name), "proc/%s/fd/%s", who, fd);
	link_to(p, name, node);
	return true;
}

/* A block device; @name names it for device-mapper, or is NULL. */
static void device(const struct place *p, const char *kernel_name, dev_t dev, const char *dm_name)
{
	char path[256], text[64], target[128];

	(void)snprintf(path, sizeof(path), "sys/block/%s/dev", kernel_name);
	(void)snprintf(text, sizeof(text), "%u:%u\n", major(dev), minor(dev));
	put(p, path, text);
	if (dm_name) {
		(void)snprintf(path, sizeof(path), "sys/block/%s/dm/name", kernel_name);
		(void)snprintf(text, sizeof(text), "%s\n", dm_name);
		put(p, path, text);
	}
	(void)snprintf(target, sizeof(target), "../../block/%s", kernel_name);
	(void)snprintf(path, sizeof(path), "sys/dev/block/%u:%u", major(dev), minor(dev));
	link_to(p, path, target);
	/* A partition lies below its disk. */
	(void)snprintf(path, sizeof(path), "sys/class/block/%s",
		       strchr(kernel_name, '/') ? strchr(kernel_name, '/') + 1 : kernel_name);
	link_to(p, path, target);
}

static void stands_on(const struct place *p, const char *upper, const char *lower)
{
	char path[256], target[128];

	(void)snprintf(path, sizeof(path), "sys/block/%s/holders/%s", lower, upper);
	(void)snprintf(target, sizeof(target), "../../%s", upper);
	link_to(p, path, target);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	(void)snprintf(p->base, sizeof(p->base), "/tmp/test-holders.XXXXXX");
	if (!mkdtemp(p->base)) {
		free(p);
		return -1;
	}
	(void)snprintf(p->proc, sizeof(p->proc), "%s/proc", p->base);
	(void)snprintf(p->sys, sizeof(p->sys), "%s/sys", p->base);
	p->device[0] = makedev(253, 900);
	p->device[1] = makedev(253, 901);
	device(p, "dm-900", p->device[0], "pool:one");
	device(p, "dm-901", p->device[1], "pool:two");
	put(p, "proc/filesystems", "nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tbtrfs\n");
	put(p, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	put(p, "proc/sys/kernel/random/boot_id", "0a1b2c3d-0000-1111-2222-333344445555\n");
	process(p, "7", "thinmgrd\n", OWN_NS, "/");
	link_to(p, "proc/self", "7");
	process(p, "1", "systemd\n", OWN_NS, "/");
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r;

	tm_holders_done(&p->found);
	r = nftw(p->base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(p);
	return r;
}

static const struct tm_holders *find(struct place *p)
{
	struct tm_error err = { 0 };

	tm_holders_done(&p->found);
	if (tm_holders_find(p->device, 2, p->proc, p->sys, &p->found, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(err.code, TM_OK);
	return &p->found;
}

static void assert_texts(struct place *p, const char *const texts[])
{
	const struct tm_holders *h = find(p);
	size_t n = 0;

	for (; texts[n]; n++) {
		if (n >= h->n)
			fail_msg("not found: %s", texts[n]);
		assert_string_equal(h->list[n].text, texts[n]);
	}
	if (h->n > n)
		fail_msg("found as well: %s", h->list[n].text);
}

#define TEXTS(p, ...) assert_texts((p), (const char *const[]){ __VA_ARGS__, NULL })
#define NOBODY(p)     assert_int_equal(find(p)->n, 0)

/* ---- tests ---------------------------------------------------------------------------------- */

static void nobody(void **state)
{
	struct place *p = *state;

	mounts(p, "7", "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	NOBODY(p);
	assert_false(p->found.cut);
	assert_int_equal(p->found.unseen, 0);
}

static void mount_here(void **state)
{
	struct place *p = *state;
	const struct tm_holder *h;

	mounts(p, "7",
	       "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	       "31 30 253:901 /sub /srv/a\\040b rw,noatime shared:4 - ext4 /dev/dm-901 rw,x=y\n"
	       "not a line\n"
	       "32 30 253:900 / /srv/cde ro - xfs /dev/dm-900 ro\n");
	TEXTS(p, "mounted at /srv/a b", "mounted at /srv/cde");
	h = &p->found.list[0];
	assert_int_equal(h->kind, TM_HOLDER_MOUNT);
	assert_int_equal(h->device, 1);
	assert_true(h->held == p->device[1]);
	assert_string_equal(h->through, "");
	assert_int_equal(h->process.pid, 0);
	assert_true(h->mount.here);
	assert_int_equal(h->mount.ns, 4026531841);
	assert_int_equal(h->mount.pid, 7);
	assert_string_equal(h->mount.boot, "0a1b2c3d-0000-1111-2222-333344445555");
	assert_int_equal(h->mount.line.id, 31);
	assert_int_equal(h->mount.line.shared, 4);
	assert_string_equal(h->mount.line.root, "/sub");
	assert_string_equal(h->mount.line.point, "/srv/a b");
	assert_string_equal(h->mount.line.options, "rw,noatime");
	assert_string_equal(h->mount.line.type, "ext4");
	assert_string_equal(h->mount.line.source, "/dev/dm-901");
	assert_string_equal(h->mount.line.super_options, "rw,x=y");
	assert_int_equal(p->found.list[1].device, 0);
}

/* In what order they can be mounted again, whatever was moved since it was mounted. */
static void mounts_in_order(void **state)
{
	struct place *p = *state;

	process(p, "60", "init\n", OTHER_NS, "/");
	mounts(p, "60",
	       "41 40 253:900 / /m/b rw - ext4 /dev/dm-900 rw\n"
	       "42 40 253:901 / /m rw - ext4 /dev/dm-901 rw\n");
	mounts(p, "7",
	       "90 91 253:900 / /srv/a/b rw - ext4 /dev/dm-900 rw\n"
	       "92 30 253:901 / /srv rw - ext4 /dev/dm-901 rw\n"
	       "91 92 253:901 / /srv rw - ext4 /dev/dm-901 ro\n"
	       "93 91 253:900 / /srv/c/d rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /srv", "mounted at /srv", "mounted at /srv/a/b", "mounted at /srv/c/d",
	      "mounted at /m in the mount namespace of process 60 (init)",
	      "mounted at /m/b in the mount namespace of process 60 (init)");
	assert_int_equal(p->found.list[0].mount.line.id, 92);
	assert_int_equal(p->found.list[1].mount.line.id, 91);
}

static void hostile_names(void **state)
{
	struct place *p = *state;

	process(p, "50", "a\033[31m\xff\n", OTHER_NS, "/");
	mounts(p, "50", "31 30 253:900 / /\\033]0;x\\007\\377\\012y rw - ext4 /dev/x rw\n");
	TEXTS(p, "mounted at / ]0;x ? y in the mount namespace of process 50 (a [31m?)");
	/* It has to be found again under that name. */
	assert_string_equal(p->found.list[0].mount.line.point, "/\033]0;x\007\xff\ny");
}

static void other_namespaces(void **state)
{
	struct place *p = *state;
	const struct tm_holder *h;

	process(p, "60", "init\n", OTHER_NS, "/");
	process(p, "61", "worker\n", OTHER_NS, "/");
	process(p, "9", "late\n", "mnt:[4026532002]", "/");
	mounts(p, "7", "31 30 253:900 / /srv/a rw - ext4 /dev/dm-900 rw\n");
	mounts(p, "1", "31 30 253:900 / /srv/a rw - ext4 /dev/dm-900 rw\n");
	mounts(p, "60", "41 40 253:900 / /mnt rw master:1 - ext4 /dev/dm-900 rw\n");
	mounts(p, "61", "41 40 253:900 / /mnt rw master:1 - ext4 /dev/dm-900 rw\n");
	mounts(p, "9", "51 50 253:900 / /x rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /srv/a", "mounted at /x in the mount namespace of process 9 (late)",
	      "mounted at /mnt in the mount namespace of process 60 (init)");
	h = &p->found.list[2];
	assert_false(h->mount.here);
	assert_int_equal(h->mount.ns, 4026532001);
	assert_int_equal(h->mount.pid, 60);
	assert_int_equal(h->process.pid, 60);
	assert_string_equal(h->process.comm, "init");
	assert_string_equal(h->process.unit, "some.service");
	assert_int_equal(h->mount.line.master, 1);
}

static void changed_roots(void **state)
{
	struct place *p = *state;

	/* Of two that see a part only, each is read; of the third with the same root nothing is
	 * new. */
	process(p, "60", "jail\n", OTHER_NS, "/jail");
	process(p, "61", "cell\n", OTHER_NS, "/cell");
	process(p, "62", "jail2\n", OTHER_NS, "/jail");
	mounts(p, "60",
	       "41 40 253:900 / /mnt rw - ext4 /dev/dm-900 rw\n"
	       "42 40 253:901 / / rw - ext4 /dev/dm-901 rw\n");
	mounts(p, "61", "43 40 253:900 / /mnt rw - ext4 /dev/dm-900 rw\n");
	mounts(p, "62", "99 40 253:900 / /never rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /jail in the mount namespace of process 60 (jail)",
	      "mounted at /jail/mnt in the mount namespace of process 60 (jail)",
	      "mounted at /cell/mnt in the mount namespace of process 61 (cell)");
	/* One that sees all of it adds what is missing, and nothing twice. */
	process(p, "63", "all\n", OTHER_NS, "/");
	mounts(p, "63",
	       "41 40 253:900 / /jail/mnt rw - ext4 /dev/dm-900 rw\n"
	       "42 40 253:901 / /jail rw - ext4 /dev/dm-901 rw\n"
	       "43 40 253:900 / /cell/mnt rw - ext4 /dev/dm-900 rw\n"
	       "44 40 253:900 / /out rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /out in the mount namespace of process 63 (all)",
	      "mounted at /jail in the mount namespace of process 60 (jail)",
	      "mounted at /jail/mnt in the mount namespace of process 60 (jail)",
	      "mounted at /cell/mnt in the mount namespace of process 61 (cell)");
}

static void namespace_of_a_thread(void **state)
{
	struct place *p = *state;

	process(p, "60", "engine\n", OWN_NS, "/");
	process(p, "60/task/60", "engine\n", OWN_NS, "/");
	process(p, "60/task/66", "aside\n", OTHER_NS, "/");
	mounts(p, "60/task/66", "41 40 253:900 / /mnt rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /mnt in the mount namespace of process 66 (aside)");
}

static void btrfs(void **state)
{
	struct place *p = *state;

	put(p, "sys/fs/btrfs/features/dev", "253:900\n");
	device(p, "sdz", makedev(65, 144), NULL);
	mounts(p, "7",
	       "31 30 0:40 /@a /srv/a rw - btrfs /dev/dm-900 rw\n"
	       /* Anybody may call a tmpfs that. */
	       "32 30 0:41 / /srv/b rw - tmpfs /dev/dm-900 rw\n"
	       "33 30 0:42 / /srv/c rw - btrf /dev/dm-900 rw\n"
	       "34 30 0:43 / /srv/d rw - btrfs /dev/sdz rw\n"
	       "35 30 0:44 / /srv/e rw - btrfs dm-900 rw\n"
	       "36 30 0:45 / /srv/f rw - btrfs /dev/../dm-900 rw\n");
	TEXTS(p, "mounted at /srv/a");
	assert_true(p->found.list[0].held == p->device[0]);

	/* The table shows one of the file system's devices, and this is the other. */
	link_to(p, "sys/fs/btrfs/0f0f-77/devices/sdz", "../../../../block/sdz");
	link_to(p, "sys/fs/btrfs/0f0f-77/devices/dm-901", "../../../../block/dm-901");
	TEXTS(p, "mounted at /srv/a", "mounted at /srv/d");
	assert_true(p->found.list[1].held == p->device[1]);

	/* By a name that is no more: at least that much is known. */
	mounts(p, "7", "34 30 0:43 / /srv/d rw - btrfs /dev/mapper/renamed rw\n");
	TEXTS(p, "in use by the btrfs file system 0f0f-77");
	assert_int_equal(p->found.list[0].kind, TM_HOLDER_DEVICE);
	assert_int_equal(p->found.list[0].device, 1);
}

static void device_of_a_container(void **state)
{
	struct place *p = *state;
	char node[512];

	process(p, "60", "init\n", OTHER_NS, "/");
	/* Its own /dev, reached through its root, out of which no link leads. */
	path_of(p, node, "jail/dev/mine");
	if (mknod(node, S_IFBLK | 0600, p->device[0]) < 0)
		TM_SKIP("device nodes cannot be made here");
	link_to(p, "jail/dev/disk", "/dev/mine");
	mounts(p, "60", "41 40 0:43 / /mnt rw - btrfs /dev/disk rw\n");
	NOBODY(p);
	gone(p, "proc/60/root");
	(void)snprintf(node, sizeof(node), "%s/jail", p->base);
	link_to(p, "proc/60/root", node);
	assert_int_equal(find(p)->n, 1);
	assert_true(p->found.list[0].held == p->device[0]);
}

static void swap(void **state)
{
	struct place *p = *state;
	char file[512], text[1024];
	struct stat st;

	put(p, "proc/swaps",
	    "Filename Type Size Used Priority\n"
	    "/dev/sda2 partition\t8\t0\t-2\n"
	    "/dev/dm-901 partition\t8\t0\t5\n"
	    "/dev/dm-900\\040(deleted) partition\t8\t0\t-3\n");
	TEXTS(p, "in use as swap", "in use as swap");
	assert_int_equal(p->found.list[0].kind, TM_HOLDER_SWAP);
	assert_int_equal(p->found.list[0].device, 1);
	assert_string_equal(p->found.list[0].swap.path, "/dev/dm-901");
	assert_int_equal(p->found.list[0].swap.priority, 5);
	assert_false(p->found.list[0].swap.is_file);
	assert_int_equal(p->found.list[1].device, 0);

	/* A file, on the file system of this directory, whose device is the one asked for. */
	put(p, "swap file", "");
	path_of(p, file, "swap file");
	assert_int_equal(stat(file, &st), 0);
	p->device[0] = st.st_dev;
	(void)snprintf(text, sizeof(text), "%s/swap\\040file file\t\t8\t0\t-2\n", p->base);
	put(p, "proc/swaps", text);
	(void)snprintf(text, sizeof(text), "holds the swap file %s", file);
	TEXTS(p, text);
	assert_true(p->found.list[0].swap.is_file);

	/* A kernel without swap. */
	gone(p, "proc/swaps");
	NOBODY(p);
}

static void processes(void **state)
{
	struct place *p = *state;

	process(p, "4711", "dd\n", OWN_NS, "/");
	process(p, "80", "other\n", OWN_NS, "/");
	if (!opened(p, "4711", "3", p->device[0]))
		TM_SKIP("device nodes cannot be made here");
	assert_true(opened(p, "4711", "4", p->device[0]));
	assert_true(opened(p, "4711", "5", p->device[1]));
	assert_true(opened(p, "4711", "17", p->device[0]));
	assert_true(opened(p, "80", "3", makedev(253, 902)));
	assert_true(opened(p, "7", "3", p->device[0])); /* the daemon itself */
	link_to(p, "proc/80/fd/4", "/nowhere/at/all");
	(void)find(p);
	assert_int_equal(p->found.n, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct tm_holder *h = &p->found.list[i];

		assert_string_equal(h->text, "open in process 4711 (dd)");
		assert_int_equal(h->kind, TM_HOLDER_PROCESS);
		assert_int_equal(h->process.pid, 4711);
		assert_string_equal(h->process.comm, "dd");
		assert_string_equal(h->process.unit, "some.service");
		assert_true(h->held == p->device[h->device]);
	}
	assert_int_not_equal(p->found.list[0].device, p->found.list[1].device);
}

/* The first thread has ended, and with it the descriptors that the process shows as its own. */
static void thread_alone(void **state)
{
	struct place *p = *state;

	process(p, "90", "rest\n", OWN_NS, "/");
	gone(p, "proc/90/fd/0");
	process(p, "90/task/90", "rest\n", OWN_NS, "/");
	process(p, "90/task/91", "rest\n", OWN_NS, "/");
	if (!opened(p, "90/task/91", "3", p->device[0]))
		TM_SKIP("device nodes cannot be made here");
	TEXTS(p, "open in process 90 (rest)");
}

static void stacked(void **state)
{
	struct place *p = *state;
	char node[128];
	bool nodes;

	device(p, "dm-905", makedev(253, 905), "vg-lv");
	device(p, "md7", makedev(9, 7), NULL);
	device(p, "md7/md7p1", makedev(259, 4), NULL);
	put(p, "sys/block/md7/md7p1/partition", "1\n");
	put(p, "sys/block/md7/queue/rotational", "0\n");
	device(p, "loop3", makedev(7, 3), NULL);
	put(p, "sys/block/loop3/loop/backing_file", "/dev/dm-905\n");
	device(p, "loop4", makedev(7, 4), NULL); /* not on the device: on a file of a mount of it */
	put(p, "sys/block/loop4/loop/backing_file", "/srv/a/image\n");
	device(p, "loop5", makedev(7, 5), NULL); /* not bound */
	/* Where a look might wait for a file server nobody looks, whatever is there. */
	(void)opened(p, "7", "9", p->device[0]);
	device(p, "loop6", makedev(7, 6), NULL);
	(void)snprintf(node, sizeof(node), "%s/nodes/253-900", p->base);
	put(p, "sys/block/loop6/loop/backing_file", node);
	stands_on(p, "dm-905", "dm-900");
	stands_on(p, "md7", "dm-905");
	stands_on(p, "dm-905", "dm-901"); /* a volume group over both */
	TEXTS(p, "below device vg-lv", "below device vg-lv", "below device md7",
	      "below device loop3", "below device md7", "below device loop3", "below device md7p1",
	      "below device md7p1");
	assert_int_equal(p->found.list[0].kind, TM_HOLDER_DEVICE);
	assert_string_equal(p->found.list[0].name, "vg-lv");
	assert_true(p->found.list[0].held == makedev(253, 905));
	assert_int_equal(p->found.list[0].device, 0);
	assert_int_equal(p->found.list[1].device, 1);

	/* Who uses what stands on it uses it. */
	gone(p, "sys/block/dm-901/holders");
	mounts(p, "7",
	       "31 30 259:4 / /srv/a rw - ext4 /dev/md7p1 rw\n"
	       "32 30 7:4 / /srv/b rw - ext4 /dev/loop4 rw\n");
	put(p, "proc/swaps", "/dev/loop3 partition\t8\t0\t5\n");
	process(p, "4711", "dd\n", OWN_NS, "/");
	nodes = opened(p, "4711", "3", makedev(9, 7));
	(void)find(p);
	assert_int_equal(p->found.n, 6 + (size_t)nodes);
	assert_string_equal(p->found.list[0].text, "mounted at /srv/a, on device md7p1");
	assert_string_equal(p->found.list[0].through, "md7p1");
	assert_int_equal(p->found.list[0].device, 0);
	assert_true(p->found.list[0].held == makedev(259, 4));
	assert_string_equal(p->found.list[1].text, "in use as swap, on device loop3");
	if (nodes)
		assert_string_equal(p->found.list[2].text,
				    "open in process 4711 (dd), on device md7");
}

/* A ring cannot be, but text can say so. */
static void ring(void **state)
{
	struct place *p = *state;

	device(p, "dm-905", makedev(253, 905), "a\033b");
	stands_on(p, "dm-905", "dm-900");
	stands_on(p, "dm-900", "dm-905");
	TEXTS(p, "below device a b");
}

static void device_is_gone(void **state)
{
	struct place *p = *state;

	gone(p, "sys/dev");
	NOBODY(p);
}

/* Processes that end while they are read: at each point what is left of them is in the way. */
static void races(void **state)
{
	static const char *const parts[] = { "comm", "cgroup", "ns", "root", "mountinfo", "fd" };
	struct place *p = *state;
	char name[64];

	for (size_t i = 0; i < TM_ARRAY_SIZE(parts); i++) {
		(void)snprintf(name, sizeof(name), "6%zu", i);
		process(p, name, "short\n", OTHER_NS, "/");
		mounts(p, name, "41 40 253:900 / /mnt rw - ext4 /dev/dm-900 rw\n");
		(void)snprintf(name, sizeof(name), "proc/6%zu/%s", i, parts[i]);
		gone(p, name);
	}
	put(p, "proc/70", ""); /* not even a directory */
	link_to(p, "proc/71", "/nowhere/at/all");
	put(p, "proc/99999999999", "");
	put(p, "proc/08", "");
	/* The first whose table can be read serves; its name is lost. */
	TEXTS(p, "mounted at /mnt in the mount namespace of process 60 ()");
	gone(p, "proc/60");
	gone(p, "proc/61");
	gone(p, "proc/65");
	/* Without a namespace, without a root, without a table: none can. */
	NOBODY(p);
	process(p, "69", "last\n", OTHER_NS, "/");
	mounts(p, "69", "41 40 253:900 / /mnt rw - ext4 /dev/dm-900 rw\n");
	TEXTS(p, "mounted at /mnt in the mount namespace of process 69 (last)");
	assert_int_equal(p->found.unseen, 0);
}

static void too_many(void **state)
{
	struct place *p = *state;
	char path[512];
	FILE *f;

	path_of(p, path, "proc/7/mountinfo");
	f = fopen(path, "we");
	assert_non_null(f);
	for (int i = 0; i < TM_HOLDERS_MAX + 3; i++)
		assert_true(fprintf(f, "%d 1 253:900 / /m/%d rw - ext4 /dev/x rw\n", i + 2, i) > 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(find(p)->n, TM_HOLDERS_MAX);
	assert_true(p->found.cut);
}

static void nothing_can_be_read(void **state)
{
	struct place *p = *state;
	struct tm_error err = { 0 };

	assert_int_equal(tm_holders_find(p->device, 2, "/nowhere", p->sys, &p->found, &err),
			 -ENOENT);
	assert_int_equal(err.code, TM_ERR_IO);
	assert_non_null(strstr(err.detail, "/nowhere"));
	assert_int_equal(p->found.n, 0);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_holders_find(p->device, 2, p->proc, "/nowhere", &p->found, &err),
			 -ENOENT);
	assert_int_equal(err.code, TM_ERR_IO);
}

static void as_json(void **state)
{
	static const char want[] =
		"[{\"comm\": null, \"device\": \"253:901\", \"file_system\": \"ext4\", "
		"\"kind\": \"mount\", \"mount_point\": \"/srv/a?\", \"name\": null, "
		"\"namespace\": null, \"options\": \"rw,noatime\", \"path\": null, \"pid\": null, "
		"\"text\": \"mounted at /srv/a?\", \"through\": null, \"unit\": null}, "
		"{\"comm\": \"init\", \"device\": \"253:900\", \"file_system\": \"xfs\", "
		"\"kind\": \"mount\", \"mount_point\": \"/mnt\", \"name\": null, "
		"\"namespace\": 4026532001, \"options\": \"ro\", \"path\": null, \"pid\": 60, "
		"\"text\": \"mounted at /mnt in the mount namespace of process 60 (init)\", "
		"\"through\": null, \"unit\": \"some.service\"}, "
		"{\"comm\": null, \"device\": \"253:900\", \"file_system\": null, "
		"\"kind\": \"swap\", \"mount_point\": null, \"name\": null, \"namespace\": null, "
		"\"options\": null, \"path\": \"/dev/dm-905\", \"pid\": null, "
		"\"text\": \"in use as swap, on device vg-lv\", \"through\": \"vg-lv\", "
		"\"unit\": null}, "
		"{\"comm\": null, \"device\": \"253:900\", \"file_system\": null, "
		"\"kind\": \"device\", \"mount_point\": null, \"name\": \"vg-lv\", "
		"\"namespace\": null, \"options\": null, \"path\": null, \"pid\": null, "
		"\"text\": \"below device vg-lv\", \"through\": null, \"unit\": null}]";
	struct place *p = *state;
	char *text;
	json_t *json;

	device(p, "dm-905", makedev(253, 905), "vg-lv");
	stands_on(p, "dm-905", "dm-900");
	process(p, "60", "init\n", OTHER_NS, "/");
	mounts(p, "7", "31 30 253:901 / /srv/a\\377 rw,noatime - ext4 /dev/dm-901 rw\n");
	mounts(p, "60", "41 40 253:900 / /mnt ro - xfs /dev/dm-900 ro\n");
	put(p, "proc/swaps", "/dev/dm-905 partition\t8\t0\t5\n");
	json = tm_holders_json(find(p), p->device);
	assert_non_null(json);
	text = json_dumps(json, JSON_SORT_KEYS);
	assert_non_null(text);
	assert_string_equal(text, want);
	free(text);
	json_decref(json);
}

/* ---- records of mounts ---------------------------------------------------------------------- */

static void assert_same_mount(const struct tm_mount *a, const struct tm_mount *b)
{
	assert_int_equal(a->line.id, b->line.id);
	assert_int_equal(a->line.parent, b->line.parent);
	assert_int_equal(a->line.major, b->line.major);
	assert_int_equal(a->line.minor, b->line.minor);
	assert_int_equal(a->line.shared, b->line.shared);
	assert_int_equal(a->line.master, b->line.master);
	assert_int_equal(a->line.unbindable, b->line.unbindable);
	assert_string_equal(a->line.root, b->line.root);
	assert_string_equal(a->line.point, b->line.point);
	assert_string_equal(a->line.options, b->line.options);
	assert_string_equal(a->line.type, b->line.type);
	assert_string_equal(a->line.source, b->line.source);
	assert_string_equal(a->line.super_options, b->line.super_options);
	assert_int_equal(a->ns, b->ns);
	assert_int_equal(a->here, b->here);
	assert_int_equal(a->pid, b->pid);
	assert_int_equal(a->seen_ticks, b->seen_ticks);
	assert_string_equal(a->boot, b->boot);
}

static void mount_records(void **state)
{
	struct place *p = *state;
	struct tm_mount copy = { 0 }, back = { 0 };
	struct tm_error err = { 0 };
	json_t *json, *again;
	char *text;

	process(p, "60", "init\n", OTHER_NS, "/jail");
	mounts(p, "60",
	       "41 40 253:900 /a\\134b\\377 /m\\012n rw,nosuid shared:2 master:3 unbindable - xfs "
	       "/dev/dm\\040900 rw,a=b\\134,c\n");
	assert_int_equal(find(p)->n, 1);
	assert_int_equal(tm_mount_copy(&p->found.list[0].mount, &copy), 0);
	assert_same_mount(&copy, &p->found.list[0].mount);
	assert_string_equal(copy.line.point, "/jail/m\nn");
	json = tm_mount_to_json(&copy);
	assert_non_null(json);
	text = json_dumps(json, 0);
	assert_non_null(text);
	again = tm_json_parse(text, strlen(text), &err);
	assert_non_null(again);
	assert_int_equal(tm_mount_from_json(again, "", &back, &err), 0);
	assert_same_mount(&copy, &back);
	tm_mount_done(&back);

	/* Less or more than a record, or not one. */
	assert_int_equal(json_object_set_new(again, "more", json_true()), 0);
	assert_true(tm_mount_from_json(again, "", &back, &err) < 0);
	assert_int_equal(err.code, TM_ERR_UNKNOWN_FIELD);
	assert_int_equal(json_object_del(again, "more"), 0);
	for (void *at = json_object_iter(json); at; at = json_object_iter_next(json, at)) {
		const char *key = json_object_iter_key(at);
		json_t *value = json_incref(json_object_get(again, key));

		err = (struct tm_error){ 0 };
		assert_int_equal(json_object_del(again, key), 0);
		assert_true(tm_mount_from_json(again, "/m", &back, &err) < 0);
		assert_int_equal(err.code, TM_ERR_MISSING_FIELD);
		assert_int_equal(json_object_set_new(again, key, value), 0);
	}
	assert_int_equal(json_object_set_new(again, "mount_point", json_string("x")), 0);
	err = (struct tm_error){ 0 };
	assert_true(tm_mount_from_json(again, "/m", &back, &err) < 0);
	assert_int_equal(err.code, TM_ERR_OUT_OF_RANGE);
	assert_null(back.buffer);
	json_decref(again);
	json_decref(json);
	free(text);
	tm_mount_done(&copy);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(nobody),
		TEST(mount_here),
		TEST(mounts_in_order),
		TEST(hostile_names),
		TEST(other_namespaces),
		TEST(changed_roots),
		TEST(namespace_of_a_thread),
		TEST(btrfs),
		TEST(device_of_a_container),
		TEST(swap),
		TEST(processes),
		TEST(thread_alone),
		TEST(stacked),
		TEST(ring),
		TEST(device_is_gone),
		TEST(races),
		TEST(too_many),
		TEST(nothing_can_be_read),
		TEST(as_json),
		TEST(mount_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
