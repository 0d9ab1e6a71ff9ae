# SPDX-License-Identifier: GPL-2.0-or-later
# thinmgr: `make help` lists what can be done here.
#
# Sources are found by wildcard, so a new file needs no line in here. Nothing is written outside
# build/: build/plain, build/san and build/fuzz hold the same programs built in three ways.

.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
SHELL := /bin/bash

include mk/flags.mk

# ---- what there is ---------------------------------------------------------------------------

COMMON_SRC := $(wildcard daemon/common/*.c)
DAEMON_SRC := $(filter-out daemon/main.c $(COMMON_SRC),$(wildcard daemon/*.c daemon/*/*.c))
CLI_SRC := $(filter-out cli/main.c,$(wildcard cli/*.c))
# What of the kernel module is pure C, and so can be tested here.
PURE_SRC := $(wildcard kernel/pure/*.c)
UNIT_SRC := $(wildcard tests/unit/test-*.c)
UNIT_HELP_SRC := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz-*.c)
TOOL_SRC := $(wildcard tests/bench/*.c tests/tools/*.c)

objects = $(patsubst %.c,$(O)/%.o,$(1))
COMMON_LIB := $(O)/libthinmgr-common.a
DAEMON_LIB := $(O)/libthinmgr-daemon.a
CLI_LIB := $(O)/libthinmgr-cli.a
PURE_LIB := $(O)/libthinmgr-pure.a
DAEMON := $(if $(wildcard daemon/main.c),$(O)/thinmgrd)
CLI := $(if $(wildcard cli/main.c),$(O)/thinmgr)
UNIT_BIN := $(patsubst tests/unit/%.c,$(O)/unit/%,$(UNIT_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(O)/fuzzers/%,$(FUZZ_SRC))
TOOL_BIN := $(patsubst %.c,$(O)/tools/%,$(notdir $(TOOL_SRC)))
SUITES := bookworm trixie

# ---- building --------------------------------------------------------------------------------

.PHONY: all
all: $(DAEMON) $(CLI) ## Build the daemon and the command line

.PHONY: module
module: ## The kernel module, in build/module/RELEASE/; KDIR= names the kernel's headers
	@mk/module $(KDIR)

.PHONY: test-tools
test-tools: $(TOOL_BIN) ## Build the helper programs that cases and benches run

$(O)/%.o: %.c $(MAKEFILE_LIST)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(COMPILE) -c -o $@ $<

# An archive is made anew, or the object of a file that is gone would stay in it.
define archive
	@mkdir -p $(@D)
	@rm -f $@
	@$(AR) rcsD $@ $(filter %.o,$^)
endef
$(COMMON_LIB): $(call objects,$(COMMON_SRC)) ; $(archive)
$(DAEMON_LIB): $(call objects,$(DAEMON_SRC)) ; $(archive)
$(CLI_LIB): $(call objects,$(CLI_SRC)) ; $(archive)
$(PURE_LIB): $(call objects,$(PURE_SRC)) ; $(archive)

$(O)/thinmgrd: $(O)/daemon/main.o $(DAEMON_LIB) $(COMMON_LIB)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(daemon_libs)

$(O)/thinmgr: $(O)/cli/main.o $(CLI_LIB) $(COMMON_LIB)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(cli_libs)

# Tests see everything but the two main files; the linker takes what each needs.
$(O)/unit/%: $(O)/tests/unit/%.o $(call objects,$(UNIT_HELP_SRC)) $(DAEMON_LIB) $(CLI_LIB) $(PURE_LIB) $(COMMON_LIB)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(daemon_libs) $(cli_libs) $(test_libs)

$(O)/fuzzers/%: $(O)/tests/fuzz/%.o $(DAEMON_LIB) $(COMMON_LIB)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(LINK) -fsanitize=fuzzer -o $@ $^ $(daemon_libs)

define tool_rule
$(O)/tools/$(notdir $(1:.c=)): $(O)/$(1:.c=.o) $(DAEMON_LIB) $(COMMON_LIB)
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	@$$(LINK) -o $$@ $$^ $$(daemon_libs)
endef
$(foreach source,$(TOOL_SRC),$(eval $(call tool_rule,$(source))))

.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)

# ---- testing ---------------------------------------------------------------------------------

.PHONY: check
check: ## Everything: lint, unit tests, fuzzing, packages, cases on Debian 12 and 13 (an hour on two cores)
	@packaging/install-deps --check --all || packaging/install-deps --all
	@mk/check

.PHONY: unit
unit: $(UNIT_BIN) $(CLI) ## Unit tests; SANITIZE=1 runs them under ASan and UBSan; T=name picks some
	@mk/run-unit $(VARIANT) "$(T)" $(UNIT_BIN) $(if $(CLI),tests/cli/run-cli)

.PHONY: lab-selftest
lab-selftest: ## Quick tests of the VM lab's own logic
	@python3 tests/vm/selftest.py

.PHONY: fuzz-check
fuzz-check: ## Each fuzz target for FUZZ_SECONDS (10), from its corpus; T=name picks some
	@$(MAKE) VARIANT=fuzz SANITIZE= fuzzers
	@mk/run-fuzz "$(T)"

.PHONY: fuzzers
fuzzers: $(FUZZ_BIN)

.PHONY: lint
lint: ## clang-format, clang-tidy, cppcheck, and the project's own rules
	@mk/lint

.PHONY: format
format: ## Let clang-format rewrite the C sources, or those of F=
	@git ls-files -z -- $(or $(F),'*.c' '*.h') | xargs -0 -r clang-format -i

# Whose thin-pool and thin: ours (kernel/), or the distribution's (stock).
vm_options = $(if $(SUITE),--suite $(SUITE)) $(if $(TARGET),--target $(TARGET))

.PHONY: vm-check
vm-check: ## Cases on a real kernel in a VM; SUITE=bookworm|trixie TARGET=ours|stock T=name KEEP=1
	@tests/vm/run $(vm_options) --cases $(T)

# Of kernel/, all but what takes half an hour (kernel-crash-long) and what wants another image (dkms).
KERNEL_CASES := module module-refused layout kernel-interface kernel-format kernel-unreadable kernel-faults kernel-model \
	kernel-cache kernel-order kernel-crash kernel-lvm kernel-inject kernel-long

.PHONY: kernel-check
kernel-check: ## Every case of the kernel module, also those that make check leaves out; SUITE=
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@tests/vm/run $(if $(SUITE),--suite $(SUITE)) --target ours --cases $(KERNEL_CASES)

# What runs on the debug kernel: all about the target, and the manager's main work on it.
DEBUG_CASES := module kernel-interface kernel-format kernel-unreadable kernel-faults kernel-model kernel-cache kernel-order \
	kernel-crash kernel-lvm kernel-inject kernel-long lifecycle extend

.PHONY: kernel-debug-check
kernel-debug-check: ## The module under KASAN, lockdep, kmemleak and injected faults; SUITE= T=name
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@tests/vm/run $(if $(SUITE),--suite $(SUITE)) --target ours --debug-kernel --cases $(or $(T),$(DEBUG_CASES))

.PHONY: vm-shell
vm-shell: ## A shell in a VM with the package installed; SUITE= TARGET=
	@tests/vm/run $(vm_options) --install --shell

.PHONY: demo
demo: ## From nothing to a pool kept from running out, in a VM; CASE=repair: one that breaks; KEEP=1 leaves it running
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@tests/vm/run $(vm_options) --demo $(CASE)

.PHONY: bench
bench: ## Measure against a bare libdevmapper program and LVM2; results in build/bench.json
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@tests/vm/run $(vm_options) --bench $(if $(BENCH),--bench-args "$(BENCH)")

.PHONY: bench-kernel
bench-kernel: ## What an I/O costs with our targets and the distribution's; build/bench-kernel.json
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@tests/vm/run $(if $(SUITE),--suite $(SUITE)) --bench-kernel $(if $(BENCH),--bench-args "$(BENCH)")

# ---- packaging -------------------------------------------------------------------------------

.PHONY: deb
deb: ## Debian packages of both suites, or of SUITE=, each in its own chroot; in build/deb/
	@packaging/install-deps --check --vm || packaging/install-deps --vm
	@for suite in $(or $(SUITE),$(SUITES)); do tests/vm/run --suite $$suite --deb || exit 1; done

PREFIX ?= /usr
DATADIR := $(PREFIX)/share
INSTALL_DIR = install -d $(DESTDIR)
INSTALL_DATA = install -m 644

.PHONY: install
install: all ## Install to DESTDIR= under PREFIX= (/usr); configuration goes to /etc
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin $(DAEMON)
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(CLI)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system packaging/thinmgrd.service
	sed -i 's|/usr/sbin/|$(PREFIX)/sbin/|' $(DESTDIR)$(PREFIX)/lib/systemd/system/thinmgrd.service
	install -D -m 644 packaging/thinmgr.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/thinmgr.conf
	install -D -m 644 packaging/56-thinmgr.rules \
		$(DESTDIR)$(PREFIX)/lib/udev/rules.d/56-thinmgr.rules
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/dbus-1/system.d packaging/org.thinmgr1.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/catalog packaging/thinmgr.catalog
	install -d -m 755 $(DESTDIR)/etc/thinmgr/thinmgrd.conf.d
	install -D -m 644 -t $(DESTDIR)/etc/thinmgr packaging/thinmgrd.conf
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/thinmgr $(wildcard api/openapi.yaml) \
		$(wildcard api/openapi.json) packaging/org.thinmgr1.conf
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/doc/thinmgr/docs $(wildcard docs/*.md)
	$(foreach page,$(wildcard docs/man/*.[1-8]),install -D -m 644 -t \
		$(DESTDIR)$(DATADIR)/man/man$(subst .,,$(suffix $(page))) $(page) &&) true
	if [ -f packaging/completion/thinmgr ]; then install -D -m 644 -t \
		$(DESTDIR)$(DATADIR)/bash-completion/completions packaging/completion/thinmgr; fi

# ---- the rest --------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove build/ (images in the cache stay)
	rm -rf build

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS=$$'\t' read -r name text; do printf '  %-13s %s\n' "$$name" "$$text"; done

.PHONY: print-flags
print-flags:
	@echo $(CSTD) $(INCLUDES) "$(subst ",\",$(DEFINES))" $(pkg_cflags) -Icli -Wno-unknown-warning-option
