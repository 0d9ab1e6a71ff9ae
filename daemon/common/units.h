/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sizes. Everything is bytes unless the name says sectors (512 bytes) or
 * blocks. Arithmetic on sizes from outside goes through the checked helpers.
 */
#ifndef TM_COMMON_UNITS_H
#define TM_COMMON_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TM_SECTOR ((uint64_t)512)
#define TM_KIB    ((uint64_t)1024)
#define TM_MIB    (1024 * TM_KIB)
#define TM_GIB    (1024 * TM_MIB)
#define TM_TIB    (1024 * TM_GIB)

#define TM_USEC_PER_SEC  ((uint64_t)1000000)
#define TM_USEC_PER_MSEC ((uint64_t)1000)

/*
 * Round up or down to a multiple of @unit (> 0). Rounding up past 2^64-1 gives the largest
 * multiple.
 */
uint64_t tm_round_up(uint64_t value, uint64_t unit);
uint64_t tm_round_down(uint64_t value, uint64_t unit);

/* Saturating arithmetic: never wraps. */
uint64_t tm_sat_add(uint64_t a, uint64_t b);
uint64_t tm_sat_mul(uint64_t a, uint64_t b);

/* a * b / c without overflow in between (saturates); c > 0. */
uint64_t tm_mul_div(uint64_t a, uint64_t b, uint64_t c);

/*
 * tm_size_parse - read a size written by a person: "256M", "1.5GiB", "4096", "10 GiB", "2TB".
 *
 * K M G T P E are powers of 1024 with or without "i" and "B"; "kB MB GB TB" too are
 * binary, as in LVM. Fractions are allowed with a unit. The result is in bytes, rounded down.
 * Returns 0, -EINVAL (not a size) or -ERANGE (does not fit in 63 bits). @ret only written on 0.
 */
int tm_size_parse(const char *text, uint64_t *ret);

/*
 * A decimal number as the kernel prints it, without sign, spaces or leading zeros, at the beginning
 * of *at, which is moved behind it. False, with @ret not written, when there is none or it does not
 * fit.
 */
bool tm_take_number(const char **at, uint64_t *ret);

/* Write @bytes for people, IEC units with at most one decimal: "1.5 GiB", "512 B". Returns @buf. */
const char *tm_size_format(uint64_t bytes, char *buf, size_t len);

#endif
