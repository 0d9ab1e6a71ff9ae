/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's configuration: /etc/thinmgr/thinmgrd.conf, then thinmgrd.conf.d/<name>.conf beside
 * it in the order of their names, each over what came before. What is not said keeps its
 * default; what is not known is refused with file and line.
 */
#ifndef TM_CONFIG_CONFIG_H
#define TM_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "logic/model.h"

#define TM_CONFIG_PATH "/etc/thinmgr/thinmgrd.conf"

struct tm_config {
	/* [daemon] */
	char state_directory[TM_PATH_SIZE];
	int log_level; /* LOG_ERR..LOG_DEBUG */
	uint32_t worker_threads;

	/* [http] */
	char socket[108]; /* fits a sockaddr_un */
	char socket_group[33];
	uint32_t loopback_port; /* 0: off */
	bool loopback_admin;    /* callers there may change things; else they only read */
	uint64_t max_body_bytes;
	uint32_t http_threads;
	uint32_t max_connections;

	/* [bus] */
	bool bus_enabled;

	/* [history] */
	uint64_t keep_events_usec;

	/* [repair] */
	uint64_t tool_limit_usec;

	/* [kernel] */
	bool load_module;
};

void tm_config_default(struct tm_config *ret);

/*
 * tm_config_load - the configuration of a file and its drop-ins.
 *
 * @path: the main file, which must be there then; or NULL for TM_CONFIG_PATH, which need not be.
 * The drop-ins are those in "<path>.d". *ret is only written on success. Returns 0; -EINVAL with
 * TM_ERR_BAD_CONFIG ("FILE:LINE: what is wrong"); or the errno of reading a file with
 * TM_ERR_BAD_CONFIG.
 */
int tm_config_load(const char *path, struct tm_config *ret, struct tm_error *err);

/*
 * One file's text over *config, which is only written on success. @name stands for the file in
 * messages. Pure; the part of tm_config_load that is fuzzed.
 */
int tm_config_parse(const char *name, const char *text, size_t len, struct tm_config *config,
		    struct tm_error *err);

#endif
