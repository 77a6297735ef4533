"""The queue on disk that keeps records while Redis is away, across restarts of the daemon.

`records` is the format, `outcomes` is what the user is told, `shelf` decides over segments; `folder`, `writer`,
`recovery` and `spool` touch the disk.
"""

from ingestor.spool.folder import SpoolUnusable
from ingestor.spool.outcomes import Opened, Shed
from ingestor.spool.records import Damage, Item, Record
from ingestor.spool.spool import Spool
from ingestor.spool.writer import NotDurable

__all__ = ["Damage", "Item", "NotDurable", "Opened", "Record", "Shed", "Spool", "SpoolUnusable"]
