# SPDX-License-Identifier: MIT
"""What the processes of a pool did that have ended."""


class Totals:
    """Sums over the processes that have ended."""

    def __init__(self):
        self.tasks = self.bytes_in = self.bytes_out = self.deaths = 0
        self.busy = 0.0

    def add(self, record, died):
        """record: what the channel said of it at last."""
        self.tasks += record["tasks"]
        self.busy += record["busy"]
        self.bytes_in += record["bytes_in"]
        self.bytes_out += record["bytes_out"]
        self.deaths += died
