# SPDX-License-Identifier: GPL-2.0-or-later
# How things are compiled. VARIANT picks the build directory and its flags:
#   plain  what is installed
#   san    AddressSanitizer and UndefinedBehaviorSanitizer (SANITIZE=1)
#   fuzz   the same with clang and libFuzzer's coverage

VARIANT ?= $(if $(filter 1,$(SANITIZE)),san,plain)
O := build/$(VARIANT)
PKG_CONFIG ?= pkg-config
AR = ar

CSTD := -std=c17 -D_GNU_SOURCE
# Empty for a package: a newer compiler's new warning must not stop it.
WERROR ?= -Werror
WARN := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef \
	-Wformat=2 -Wvla -Wpointer-arith -Wwrite-strings -Wcast-align \
	-Wimplicit-fallthrough -Wno-unused-parameter -Wno-missing-field-initializers
HARDEN := -fstack-protector-strong -fPIE -fno-strict-aliasing
LINK_HARDEN := -pie -Wl,-z,relro,-z,now -Wl,--as-needed

ifeq ($(VARIANT),plain)
CC = gcc
# Debian's build flags may set another level, hence -U. It needs optimisation and libc's own
# malloc, so not with sanitizers. The static analyser of null pointers guesses wrong there too.
TUNE := -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-clash-protection -Wnull-dereference
else ifeq ($(VARIANT),san)
CC = gcc
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TUNE := -O1 -g $(SANITIZERS)
LINK_TUNE := $(SANITIZERS)
else ifeq ($(VARIANT),fuzz)
CC = clang
SANITIZERS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
TUNE := -O1 -g $(SANITIZERS) -DTM_FUZZING=1
LINK_TUNE := $(SANITIZERS)
else
$(error VARIANT must be plain, san or fuzz)
endif

VERSION := $(shell awk 'NR == 1 { print substr($$2, 2, length($$2) - 2) }' packaging/debian/changelog)

DAEMON_PKGS := devmapper libmicrohttpd jansson libsystemd sqlite3 libkmod mount blkid inih uuid libzstd
CLI_PKGS := libcurl jansson smartcols
TEST_PKGS := cmocka

INCLUDES := -Idaemon -Iapi -I$(O)/gen
DEFINES := -DTM_VERSION='"$(VERSION)"'

# pkg-config is asked once, and only when something is compiled: `make help` and `make check` have
# to work before the libraries are there.
pkg_cflags = $(eval pkg_cflags := $$(shell $(PKG_CONFIG) --cflags $(DAEMON_PKGS) $(CLI_PKGS)))$(pkg_cflags)
daemon_libs = $(eval daemon_libs := $$(shell $(PKG_CONFIG) --libs $(DAEMON_PKGS)) -lm)$(daemon_libs)
cli_libs = $(eval cli_libs := $$(shell $(PKG_CONFIG) --libs $(CLI_PKGS) libsystemd uuid) -lm)$(cli_libs)
test_libs = $(eval test_libs := $$(shell $(PKG_CONFIG) --libs $(TEST_PKGS)))$(test_libs)

COMPILE = $(CC) $(CSTD) $(CPPFLAGS) $(INCLUDES) $(DEFINES) $(CFLAGS) $(WARN) $(HARDEN) $(TUNE) \
	$(pkg_cflags) -pthread -MMD -MP
LINK = $(CC) $(CFLAGS) $(LINK_TUNE) $(LINK_HARDEN) $(LDFLAGS) -pthread
