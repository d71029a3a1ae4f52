"""Apache Iggy 0.9 behind ports/broker.py, over the wheel `apache-iggy` 0.9.0 (the extra `kfm-server[iggy]`).

What of the wheel is used: `poll_messages` and `send_messages` with an explicit partition, reads of topics, management
of streams, topics and groups, and raw commands. What is not, because it loses or hides: its producers (they make
missing topics with one partition, and the background one drops failures into a log that nobody sees), its consumers
(`iter_messages` loses what a cancelled wait had taken, `consume_messages` goes on after a cancel and swallows
exceptions), automatic commits, routing by key (it depends on a cached number of partitions), unlimited retries.
"""

from kfm_server.bus.iggy.broker import IggyBroker
from kfm_server.bus.iggy.group import IggyGroup

__all__ = ["IggyBroker", "IggyGroup"]
