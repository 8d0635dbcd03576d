# SPDX-License-Identifier: MIT
"""The engine of pyconc's process pools. What programs use of it is in concurrent.futures and multiprocessing.pool."""
