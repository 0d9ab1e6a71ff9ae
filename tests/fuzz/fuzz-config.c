/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whatever a configuration file holds: refused with a line that exists, or every value in its
 * range. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "common/units.h"
#include "config/config.h"

static void require(int condition)
{
	if (!condition)
		abort();
}

static unsigned long lines(const uint8_t *data, size_t size)
{
	unsigned long n = 1;

	for (size_t i = 0; i < size; i++)
		n += data[i] == '\n';
	return n;
}

static int same_bytes(const void *a, const void *b, size_t n)
{
	return memcmp(a, b, n) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tm_config config, before;
	struct tm_error err = { 0 };

	memset(&config, 0, sizeof(config));
	tm_config_default(&config);
	memcpy(&before, &config, sizeof(config));
	if (tm_config_parse("f", (const char *)data, size, &config, &err) < 0) {
		unsigned long line = strtoul(err.detail + 2, NULL, 10);

		require(err.code == TM_ERR_BAD_CONFIG);
		require(strncmp(err.detail, "f:", 2) == 0);
		require(line >= 1 && line <= lines(data, size));
		/* As bytes: nothing at all was written to. */
		require(same_bytes(&before, &config, sizeof(config)));
		for (const char *p = err.detail; *p; p++)
			require(*p >= ' ' && *p <= '~');
		return 0;
	}
	require(config.state_directory[0] == '/' && config.socket[0] == '/');
	require(!strstr(config.state_directory, "/../") && !strstr(config.socket, "//"));
	require(config.socket_group[0] && !strchr(config.socket_group, '/'));
	require(config.log_level >= LOG_ERR && config.log_level <= LOG_DEBUG);
	require(config.worker_threads >= 1 && config.worker_threads <= 32);
	require(config.loopback_port <= 65535);
	require(config.loopback_admin == false || config.loopback_admin == true);
	require(config.max_body_bytes >= 4096 && config.max_body_bytes <= 64 * TM_MIB);
	require(config.http_threads >= 1 && config.http_threads <= 16);
	require(config.max_connections >= 1 && config.max_connections <= 10000);
	require(config.keep_events_usec >= 3600 * TM_USEC_PER_SEC);
	return 0;
}
