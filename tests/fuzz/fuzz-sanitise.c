// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz what makes text safe for a terminal: the result is harmless, and safe text stays as it is.
 */

#include <assert.h>
#include <stdint.h>

#include "common/utf8.h"

/* Fuzz targets are linked with the daemon's parts alone; this is one of the command's. */
#include "../../cli/sanitise.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int utf8 = 0; utf8 < 2; utf8++) {
		char *safe = cli_sanitise((const char *)data, size, utf8);
		char *copy = safe ? strdup(safe) : NULL;
		char *again;

		assert(safe && copy && tm_utf8_valid(safe));
		for (const unsigned char *p = (const unsigned char *)safe; *p; p++) {
			assert(*p >= 0x20 && *p != 0x7f && (utf8 || *p < 0x80));
			assert(!(p[0] == 0xc2 && p[1] < 0xa0)); /* C1 */
		}
		again = cli_sanitise(copy, strlen(copy), utf8);
		assert(again && strcmp(safe, again) == 0);
		free(again);
		free(copy);
		free(safe);
	}
	return 0;
}
