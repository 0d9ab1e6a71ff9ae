# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM lab: builds Debian images, boots them in QEMU and runs thinmgr's cases inside."""
